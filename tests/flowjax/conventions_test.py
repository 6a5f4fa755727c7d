"""Shifts and intervals of other projects, against their formulas, written out once more. diffusers itself: the test beside this one."""

import math

import numpy as np
import pytest

from flowjax.conventions import CONVENTIONS, direction, edm_indices, edm_levels, told
from flowjax.schedules import shift, uniform_timesteps
from flowjax.stages import advice

SHIFTS = (0.1, 0.317, 1 / 3, 0.737, 1.0, 2.5)
INTERVALS = ((0.1, 0.6), (0.29, 0.45), (0.0, 1.0))


def shifted_noise(sigma: np.ndarray, a: float) -> np.ndarray:
    return a / (a + 1 / np.maximum(sigma, 1e-300) - 1)


THEIR_TIMES = {
    # In their own time, as their samplers make them of the number that they are told.
    "lightningdit": lambda a, n: [a * t / (1 + (a - 1) * t) for t in np.linspace(0, 1, n)],
    "ddt": lambda a, n: [t / (t + (1 - t) * a) for t in [*np.linspace(0, 1 - 1 / n, n), 1.0]],
    "sit": lambda a, n: a * np.linspace(0, 1, n) / (1 + (a - 1) * np.linspace(0, 1, n)),
    "rae": lambda dim, n: [
        (alpha := math.sqrt(dim / 4096)) * t / (1 + (alpha - 1) * t) for t in 1 - np.linspace(0, 1, n)
    ],  # 1 is noise
    "comfyui": lambda a, n: [*(shifted_noise(np.arange(1, 1001) / 1000, a)[-(1 + int(x * 1000 / n))] for x in range(n)), 0.0],  # σ
}  # fmt: skip


@pytest.mark.parametrize("s", SHIFTS)
@pytest.mark.parametrize("name", THEIR_TIMES)
def test_a_shift_in_a_projects_units_gives_its_own_steps(name: str, s: float) -> None:
    convention = CONVENTIONS[name]
    for n in (10, 37):
        theirs = np.array(THEIR_TIMES[name](convention.shift.of(s), n))
        ours = theirs if "t = 0 is noise" in convention.time else 1 - theirs
        np.testing.assert_allclose(convention.times(s, n), ours, atol=1e-6)


def test_projects_without_a_shift_keep_their_own_steps() -> None:
    np.testing.assert_allclose(CONVENTIONS["repa"].times(0.5, 10), uniform_timesteps(10), atol=1e-12)
    np.testing.assert_allclose(CONVENTIONS["jit"].times(0.5, 10), uniform_timesteps(10), atol=1e-12)
    index = np.arange(18)
    sigma = (80 ** (1 / 7) + index / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose((1 - CONVENTIONS["edm"].times(0.5, 18)) / CONVENTIONS["edm"].times(0.5, 18), [*sigma, 0], rtol=1e-6)
    assert told("repa", 0.5, None, 10)["shift"] is told("edm", 0.5, None, 10)["shift"] is None


def test_jits_training_times_move_as_the_shift_moves_them() -> None:
    z = np.random.default_rng(0).normal(size=1000) * 0.8
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    np.testing.assert_allclose(sigmoid(z + CONVENTIONS["jit"].shift.of(0.4)), shift(sigmoid(z), 0.4), atol=1e-12)


@pytest.mark.parametrize("name", [name for name, convention in CONVENTIONS.items() if convention.shift])
def test_a_shift_comes_back(name: str) -> None:
    for s in SHIFTS:
        assert CONVENTIONS[name].shift.to_s(CONVENTIONS[name].shift.of(s)) == pytest.approx(s, rel=1e-12)


@pytest.mark.parametrize("name", ["lightningdit", "ddt", "rae", "repa", "jit", "edm", "comfyui"])
def test_an_interval_comes_back(name: str) -> None:
    unit = CONVENTIONS[name].interval
    for interval in INTERVALS:
        assert unit.to_t(unit.of(interval, 0.7, 50), 0.7, 50) == pytest.approx(interval, abs=1e-12)


def test_intervals_in_their_units() -> None:
    assert CONVENTIONS["rae"].interval.of((0.1, 0.6), 0.5, 50) == pytest.approx((0.4, 0.9))
    assert CONVENTIONS["edm"].interval.of((0.1, 0.6), 1.0, 50) == pytest.approx((2 / 3, 9.0))
    low, high = CONVENTIONS["comfyui"].interval.of((0.1, 0.6), 1 / 3, 50)
    for p, t in ((low, 0.1), (high, 0.6)):  # percent_to_sigma
        assert 3 * (1 - p) / (1 + 2 * (1 - p)) == pytest.approx(1 - t)


def test_edms_indices_are_the_steps_inside_both_included() -> None:
    levels = edm_levels(32)
    first, last = edm_indices((2 / 3, 9.0), 32)
    assert (levels[first : last + 1] <= 9).all()
    assert levels[first - 1] > 9
    assert levels[last] > 2 / 3 >= levels[last + 1]
    assert edm_indices((1.0, 1.0001), 4) == ()


def test_the_direction_is_where_the_steps_go() -> None:
    for s in (0.3, 3.0):
        before = np.mean(shift(uniform_timesteps(100)[:-1], s) < 0.5)
        assert direction(s) == f"more of the steps near {'noise' if before > 0.5 else 'data'}"
    assert told("ddt", 0.5, None, 50)["shift_line"] == "timeshift: 2"
    assert told("rae", 2.0, None, 50)["shift_line"].startswith("time_dist_shift_dim: 4096  # none")


def test_nothing_is_told_where_nothing_is_advised() -> None:
    settings = advice(None, [1.0])
    for name in CONVENTIONS:
        unit = told(name, settings.shift.value, settings.guidance_interval.value, 50)
        assert not any((unit["shift_line"], unit["interval_line"], unit["direction"]))
    with pytest.raises(ValueError, match="for = 'sd4': expected diffusers, sd3"):
        told("sd4", None, None, 50)
