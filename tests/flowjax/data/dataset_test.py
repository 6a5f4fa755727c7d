"""A data set in memory: what it counts, refuses and how it is split."""

import hashlib

import numpy as np
import pytest

from flowjax import data
from flowjax.data import DataSet


def test_record_counts_duplicates_and_takes_zero_for_minus_zero():
    rows = np.array([[0.0, 1], [2, 3], [-0.0, 1], [2, 3], [4, 5]], np.float32)
    assert DataSet("rows", rows).provenance["duplicates"] == 2
    assert DataSet("rows", rows).value_range == (0, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": np.zeros((5, 2))}, "float64, expected float32"),
        ({"data": np.zeros(5, np.float32)}, "expected \\[N"),
        ({"data": np.zeros((0, 2), np.float32)}, "at least one sample"),
        ({"data": np.zeros((5, 0), np.float32)}, "at least one value"),
        ({"data": np.array([[1, 2], [np.nan, 3], [4, np.inf]], np.float32)}, r"2 values are NaN or infinite.*first at index \(1, 0\)"),
        ({"labels": np.zeros(4, np.int32)}, r"shape \(4,\), expected \(5,\)"),
        ({"labels": np.zeros(5)}, "float64, expected whole numbers"),
        ({"labels": np.array([0, 1, -1, 0, 0])}, r"span \[-1, 1\]"),
        ({"labels": np.full(5, 2**31)}, "2147483648"),
        ({"labels": np.full(5, 2**31 - 1)}, "expected 0 to 2147483646"),
        ({"labels": np.full(5, 2), "class_names": ("a", "b")}, "2 class_names do not fit"),
        ({"class_names": ("a", "b")}, "class_names do not fit"),
        ({"value_range": (0.0, 0.5)}, r"outside of value_range=\(0.0, 0.5\)"),
    ],
)
def test_record_names_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        DataSet(**{"name": "mine", "data": np.ones((5, 2), np.float32), **change})


def test_split_is_deterministic_disjoint_and_keeps_every_class_in_training():
    labels = np.repeat([0, 1, 2], [50, 9, 1])
    whole = DataSet("rows", np.arange(60, dtype=np.float32)[:, None], labels)
    train, heldout = whole.split(0.2, seed=3)
    assert sorted([*train.data[:, 0], *heldout.data[:, 0]]) == list(range(60))
    np.testing.assert_array_equal(np.bincount(heldout.labels), [10, 2])
    assert set(train.labels) == {0, 1, 2}
    np.testing.assert_array_equal(heldout.labels, labels[heldout.data[:, 0].astype(int)])
    np.testing.assert_array_equal(heldout.data, whole.split(0.2, seed=3)[1].data)
    assert not np.array_equal(heldout.data, whole.split(0.2, seed=4)[1].data)
    assert (heldout.provenance["split"], train.provenance["split"]) == ("heldout", "train")
    assert heldout.provenance["sha256"] == hashlib.sha256(heldout.data.tobytes()).hexdigest()


@pytest.mark.parametrize("fraction", [-0.1, 0.0, 1.0, 1e-3, float("nan")])
def test_split_refuses_shares_that_leave_nothing(fraction):
    with pytest.raises(ValueError, match="heldout_fraction"):
        data.load("gaussian", n=20, d=2).split(fraction, seed=0)
