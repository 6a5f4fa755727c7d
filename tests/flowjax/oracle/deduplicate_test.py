"""Copies are merged into one sample that counts as often."""

import numpy as np
import pytest

from flowjax.oracle import Oracle
from tests import float64_oracle as exact
from tests.flowjax.oracle.hard_data import SETS, SHAPE, B, T, check, on_path


@pytest.mark.slow
def test_unique_merges_copies_and_keeps_the_velocity():
    """Distinct samples in the order of first occurrence, counts that add up, and the moments of the data as they were."""
    data = SETS["sixty exact copies"]
    distinct = Oracle(data).unique()
    assert distinct.data.shape == (241, *SHAPE)
    np.testing.assert_array_equal(distinct.data, np.delete(data, np.arange(101, 160), axis=0))
    np.testing.assert_allclose(distinct.counts, np.where(np.arange(241) == 100, 60, 1), rtol=1e-6)
    x = on_path(data, exact.RECTIFIED)
    out, wanted = distinct(x, T), exact.oracle(data, x, T)
    np.testing.assert_allclose(out.log_density, wanted.log_density, rtol=1e-4)
    np.testing.assert_allclose(out.variance, wanted.variance, rtol=1e-4, atol=1e-5)
    merged = exact.oracle(np.asarray(distinct.data), x, T, counts=np.asarray(distinct.counts).round())
    check(out, merged)
    size = np.linalg.norm(wanted.velocity.reshape(B, -1), axis=1)
    assert (np.linalg.norm((out.velocity - wanted.velocity).reshape(B, -1), axis=1) <= 1e-5 * size).all()


def test_unique_keeps_equal_samples_of_two_classes_apart():
    """And adds counts that were given."""
    data = np.zeros((5, 2), np.float32)
    data[4] = 1
    oracle = Oracle(data, np.array([0, 0, 1, 1, 1]), counts=np.array([1, 2, 3, 4, 5])).unique()
    np.testing.assert_array_equal(oracle.labels, [0, 1, 1])
    np.testing.assert_allclose(oracle.counts, [3, 7, 5], rtol=1e-6)
