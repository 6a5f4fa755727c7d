"""Scikit-learn's digits as a data set."""

import hashlib

import numpy as np
from sklearn.datasets import load_digits

from flowjax import data


def test_digits_are_scikit_learns_scaled_exactly():
    digits = data.load("digits")
    raw = load_digits()
    assert (digits.n, digits.shape, digits.d, digits.num_classes) == (1797, (8, 8, 1), 64, 10)
    assert digits.data.dtype == np.float32
    assert digits.labels.dtype == np.int32
    np.testing.assert_array_equal((digits.data[..., 0].astype(np.float64) + 1) * 8, raw.images)
    np.testing.assert_array_equal(digits.labels, raw.target)
    assert digits.value_range == (-1, 1)
    assert digits.provenance["sha256"] == hashlib.sha256(digits.data.tobytes()).hexdigest()
