"""Unit Gaussians as a data set."""

import numpy as np
import pytest

from flowjax import data


def test_gaussian_has_unit_moments_and_follows_its_seed():
    first = data.load("gaussian", n=4000, d=8, seed=1)
    assert (first.n, first.shape, first.labels, first.num_classes) == (4000, (8,), None, None)
    np.testing.assert_allclose(np.cov(first.data.T), np.eye(8), atol=0.1)
    np.testing.assert_array_equal(first.data, data.load("gaussian", n=4000, d=8, seed=1).data)
    assert first.provenance["sha256"] != data.load("gaussian", n=4000, d=8, seed=2).provenance["sha256"]


@pytest.mark.parametrize("settings", [{"n": 0, "d": 3}, {"n": 3, "d": 0}, {"n": 3, "d": 3, "seed": -1}])
def test_gaussian_refuses_impossible_sizes(settings):
    with pytest.raises(ValueError, match="expected at least"):
        data.load("gaussian", **settings)
