"""A folder with a `.npy` for each sample."""

import numpy as np
import pytest

from flowjax import data
from flowjax.data.recognize import recognize

SAMPLES = np.random.default_rng(0).standard_normal((4, 2, 3)).astype(np.float32)


def test_samples_in_the_order_of_their_names_with_labels_beside_them(tmp_path):
    for i in (2, 0, 3, 1):
        np.save(tmp_path / f"{i}.npy", SAMPLES[i])
    assert data.open_records(recognize(tmp_path), path=tmp_path).labels is None
    np.save(tmp_path / "labels.npy", np.array(["b", "a", "a", "b"]))
    found = data.open_records(recognize(tmp_path), path=tmp_path)
    np.testing.assert_array_equal(found.load().data, SAMPLES)
    assert (found.labels.tolist(), found.class_names) == ([1, 0, 0, 1], ("a", "b"))
    (tmp_path / "2.npy").write_bytes((tmp_path / "2.npy").read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"2\.npy: not read: it is cut short"):
        found.load()


def test_arrays_of_many_samples_are_not_taken_for_samples(tmp_path):
    np.save(tmp_path / "x_train.npy", SAMPLES)
    np.save(tmp_path / "x_test.npy", SAMPLES)
    with pytest.raises(ValueError, match="name one of its files"):
        recognize(tmp_path)
