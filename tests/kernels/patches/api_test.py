"""Patch posteriors against their definition by loops: every border, place and class, in float64 and float32."""

import numpy as np
import pytest

from kernels.patches import api
from kernels.patches.api import PatchSettings, patch_means
from kernels.patches.images import PatchSet
from kernels.patches.reference import patch_means_ref

TIMES = np.array([0.0, 0.1, 0.3, 0.7, 0.97, 0.999])
LABELS = np.array([-1, -1, 0, 1, 2, -1])


def problem(shape: tuple[int, int, int], n: int) -> tuple[np.ndarray, dict[int, slice], np.ndarray]:
    """Images of three classes, and queries at six times."""
    rng = np.random.default_rng(n)
    y = rng.standard_normal((n, *shape)).astype(np.float32)
    ends = [0, n // 4, n // 2 + 1, n]
    classes = {-1: slice(0, n)} | {label: slice(ends[label], ends[label + 1]) for label in range(3)}
    t = TIMES[:, None, None, None]
    return y, classes, (t * y[:6] + (1 - t) * rng.standard_normal((6, *shape))).astype(np.float32)


def largest_error(shape: tuple[int, int, int], n: int, size: int, anywhere: bool, position: bool, times: slice = slice(None)) -> float:
    y, classes, x = problem(shape, n)
    t, own = TIMES[times], LABELS[times]
    found = patch_means(PatchSet.of(y.reshape(n, -1), shape, classes), x[times], t, 1 - t, own, PatchSettings(size, anywhere, position))
    each = zip(x[times], t, own, strict=True)
    wanted = [
        patch_means_ref(y[classes[int(label)]], one, time, 1 - time, size=size, anywhere=anywhere, position=position)
        for one, time, label in each
    ]
    return float(np.abs(found - np.stack(wanted)).max())


@pytest.mark.parametrize(("anywhere", "position"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize(("shape", "n"), [((6, 7, 1), 21), ((5, 4, 3), 13), ((1, 9, 1), 30)])
def test_means_are_those_of_the_definition(shape: tuple[int, int, int], n: int, anywhere: bool, position: bool) -> None:
    for size in (1, 3, 5, 19):
        assert largest_error(shape, n, size, anywhere, position) < 1e-6


def test_a_score_far_above_those_of_the_first_images_does_not_overflow() -> None:
    rng = np.random.default_rng(0)
    y = rng.standard_normal((400, 3, 3, 1)).astype(np.float32)
    x = y[[371]] + np.float32(1e-3)  # late in time: the first chunks lie thousands of nats below
    one = np.ones(1)
    settings = PatchSettings(3, True, False)
    found = patch_means(PatchSet.of(y.reshape(400, -1), (3, 3, 1), {-1: slice(0, 400)}), x, one, 0.01 * one, np.array([-1]), settings)
    wanted = patch_means_ref(y, x[0], 1.0, 0.01, size=3, anywhere=True, position=False)
    np.testing.assert_allclose(found[0], wanted, atol=1e-6)


@pytest.mark.slow  # it compiles the loop for another dtype
def test_scores_in_float32_are_as_exact_as_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "FLOAT32_FROM", 0)
    for shape, n in (((6, 7, 1), 21), ((5, 4, 3), 13)):
        for position in (False, True):
            assert largest_error(shape, n, 3, True, position) < 1e-5
    monkeypatch.setattr(api, "LARGEST_SCORE", np.inf)  # beyond the limit it would show: the limit is needed
    assert largest_error((6, 7, 1), 21, 1, True, False, slice(5, 6)) > 1e-5
