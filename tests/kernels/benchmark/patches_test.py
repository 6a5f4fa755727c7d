"""Ways to a patch posterior, measured on a few images: those that are exact agree with float64, and a tree's neighbours do not."""

from pathlib import Path

import numpy as np
import pytest

from kernels.benchmark.patches import OURS, WAYS, compare, measure


@pytest.mark.long
def test_exact_ways_agree_with_float64_and_nearest_neighbours_do_not(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.random.default_rng(0).standard_normal((40, 49), np.float32))
    found = {way: measure(way, str(tmp_path / "data.npy"), 24, 2, 3, 0.3) for way in WAYS if way != "KeOps"}
    for way in (OURS, *WAYS[1:3]):
        assert found[way]["error"] < 1e-5, way
        assert found[way]["seconds"] > 0
    assert found["SciPy, 64 nearest"]["error"] > 1e-3


def test_samples_that_are_no_squares_are_refused() -> None:
    with pytest.raises(ValueError, match="50 numbers in a sample"):
        next(compare(np.zeros((4, 50), np.float32), 2, 3, 0.3, 4))
