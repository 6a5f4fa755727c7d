"""Leaves: every point is in one, all but the last are full, and what is in one lies together."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kernels.posterior.cpu.tree import leaves_of


@given(n=st.integers(1, 200), k=st.integers(1, 4), size=st.integers(1, 20), kinds=st.integers(1, 200), seed=st.integers(0, 100))
def test_every_point_is_in_one_leaf_and_all_but_the_last_are_full(n, k, size, kinds, seed):
    """Also where many points are the same."""
    points = np.random.default_rng(seed).integers(0, kinds, (n, k)).astype(np.float32)
    leaves = leaves_of(points, size)
    assert leaves.shape == (-(-n // size), size)
    np.testing.assert_array_equal(np.sort(leaves[leaves >= 0]), np.arange(n))
    assert (leaves[:-1] >= 0).all()
    assert (np.diff((leaves[-1] < 0).astype(int)) >= 0).all()


def test_points_of_a_leaf_lie_together():
    """Of a plane that is ten times as long as it is wide, the hundred leaves are a few tenths long and wide."""
    points = np.random.default_rng(0).uniform(size=(6400, 2)).astype(np.float32) * np.float32([10, 1])
    sizes = np.stack([np.ptp(points[leaf], axis=0) for leaf in leaves_of(points, 64)])
    assert sizes.max() < 0.6
