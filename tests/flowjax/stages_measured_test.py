"""Turning points are measured where an independent float64 computation puts them, wherever the scale of the data puts that."""

import numpy as np
import pytest

from flowjax.oracle import Oracle
from flowjax.stages import bracketing_times, measure_turning_point, predict_turning_point_from_data, turning_point_of_curve
from tests.flowjax.softmax_turning_point import gaussians, softmax_turning_point


@pytest.mark.parametrize("ratio", [1e-6, 0.1, 1, 3, 1e4])
def test_crossing_of_a_curve_that_is_straight_in_log_odds_is_interpolated(ratio: float) -> None:
    """On a geometric grid in t / (1 - t), of a factor of 8, wherever it lies."""
    odds = ratio * np.array([1, 8, 64])
    found = turning_point_of_curve(np.r_[0.0, odds / (1 + odds)], np.tile([[0.1], [0.3], [0.7], [0.9]], 5))
    crossing = ratio * np.sqrt(8) / (1 + ratio * np.sqrt(8))
    assert found.measured == pytest.approx(crossing, rel=1e-9)
    assert (found.ci_low, found.ci_high) == (pytest.approx(crossing), pytest.approx(crossing))
    assert found.reason is None


def test_a_crossing_in_a_step_from_0_is_not_interpolated() -> None:
    found = turning_point_of_curve([0.0, 0.04, 0.08], np.tile([[0.1], [0.9], [1.0]], 5))
    assert found.measured is None
    assert "already 0.900 at t = 0.04: times between are needed" in found.reason
    assert turning_point_of_curve([0.5, 1.0], np.tile([[0.1], [0.9]], 5)).measured == pytest.approx(0.75)


FAR_APART = 1e4 * np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
"""Of four corners of a square of side a the query's own is the likeliest with probability Φ(ρ a / 2)²: half where Φ = √½."""
SCALES = {
    "four points far apart": (FAR_APART, 2 * 0.5449521 / 1e4),
    "one dimension": (gaussians(200, 1), None),
    "one dimension, millions": (1e6 * gaussians(200, 1), None),
    "grey levels": (80 * gaussians(100, 8), None),
    "hundredths": (1e-2 * gaussians(100, 8), None),
    "ten thousandths": (1e-4 * gaussians(100, 8), None),
}


IN_CI = ("four points far apart", "one dimension, millions", "ten thousandths")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in IN_CI else pytest.mark.long) for name in SCALES])
def test_the_turning_point_is_found_wherever_the_scale_of_the_data_puts_it(name: str) -> None:
    """In α/σ it is as far from the ends of t as data are from unit scale; the interval covers the truth, the prediction is near."""
    data, ratio = SCALES[name]
    scale = float(np.std(data))
    if ratio is None:  # brute force at a scale of 1, in float64
        t = softmax_turning_point(data / scale, num_queries=3000)
        ratio = t / (1 - t) / scale
    truth = ratio / (1 + ratio)
    found = measure_turning_point(Oracle(data.astype(np.float32)), num_queries=256)
    widened = 0.25 * (found.ci_high - found.ci_low)  # the truth is a measurement, too
    assert found.ci_low - widened <= truth <= found.ci_high + widened
    assert found.measured / (1 - found.measured) == pytest.approx(ratio, rel=0.12)
    assert predict_turning_point_from_data(data) == pytest.approx(truth, rel=0.12)
    if name == "one dimension":
        assert found.remark is None
    else:
        assert "scale the data to about 1" in found.remark


def test_an_explicit_grid_grows_to_the_crossing_too() -> None:
    data = gaussians(100, 8) * 1e3
    found = measure_turning_point(Oracle(data), np.linspace(0.1, 0.9, 5))
    assert found.measured == pytest.approx(measure_turning_point(Oracle(data)).measured, rel=0.05)


def test_the_times_that_a_grid_lacks_follow_from_the_grid() -> None:
    def lacking(t: list[float], *weights: float) -> list[float]:
        return bracketing_times(t, np.tile(np.array(weights)[:, None], 8)).tolist()

    assert lacking([0.1, 0.2, 0.3], 0.1, 0.4, 0.6) == []
    assert lacking([0.01, 0.03], 0.6, 0.9) == [0.0]  # does it cross at all?
    assert lacking([0.0, 0.01], 0.5, 0.9) == []
    assert lacking([0.0, 0.01, 0.02], 0.1, 0.6, 0.9) == pytest.approx([1 / 397], rel=1e-6)  # odds of 1/99, over 4
    assert lacking([0.5, 0.9], 0.1, 0.2) == pytest.approx([36 / 37])
    assert lacking([0.5, 1 - 2.0**-16], 0.1, 0.2) == []
    between = lacking([0.0, 0.01, 0.04], 0.1, 0.2, 0.6)
    assert np.all(np.diff(np.log([0.01, *between, 0.04])) < np.log(1.26))
    assert lacking([0.0, 0.01, 0.04], 0.11, 0.21, 0.59) == between


def test_data_too_small_to_be_seen_have_no_turning_point_and_the_scale_is_the_reason() -> None:
    found = measure_turning_point(Oracle(gaussians(100, 8) * np.float32(1e-7)))
    assert found.measured is None
    assert "stays below 0.5" in found.reason
    assert "scale the data to about 1" in found.reason


@pytest.mark.slow
def test_the_interval_covers_the_truth_at_its_rate() -> None:
    """Steps at uniform times: the true crossing is 0.5. 95 % intervals of 100 experiments miss it 5 times, and hardly ever 14 times."""
    t = np.linspace(0, 1, 101)
    covered = 0
    for seed in range(100):
        steps = np.random.default_rng(seed).uniform(size=200)
        found = turning_point_of_curve(t, (t[:, None] >= steps).astype(float), seed=seed)
        covered += found.ci_low <= 0.505 and found.ci_high >= 0.495
    assert covered >= 86


@pytest.mark.parametrize(("level", "reason"), [(0.2, "stays below"), (0.9, "already")])
def test_a_curve_that_never_crosses_says_why(level: float, reason: str) -> None:
    found = turning_point_of_curve([0.1, 0.5], np.full((2, 3), level))
    assert (found.measured, found.ci_low, found.ci_high) == (None, None, None)
    assert reason in found.reason


@pytest.mark.slow
def test_measurement_agrees_with_an_independent_one_and_with_its_prediction(digits) -> None:
    images, labels = digits
    oracle = Oracle(images.reshape(-1, 8, 8), labels)
    for label, classes in ((None, None), ("own", labels)):
        found = measure_turning_point(oracle, label=label)
        expected = softmax_turning_point(images, classes)
        assert found.measured == pytest.approx(expected, rel=0.08)
        assert found.ci_low < found.measured < found.ci_high
        assert predict_turning_point_from_data(images, classes) == pytest.approx(found.measured, rel=0.08)


def test_measurement_counts_duplicates_as_one_sample(digits) -> None:
    """Pairs kept apart would hold the weight at one half for ever, and the crossing would be noise."""
    images, labels = (np.repeat(x, 2, axis=0) for x in digits)
    times = np.linspace(0.02, 0.9, 40)
    found = measure_turning_point(Oracle(images.reshape(-1, 8, 8), labels), times)
    assert found.measured == pytest.approx(softmax_turning_point(digits[0]), rel=0.08)


@pytest.mark.slow
def test_one_sample_has_no_turning_point() -> None:
    found = measure_turning_point(Oracle(np.ones((4, 3), np.float32)), num_queries=8)
    assert found.measured is None
    assert "already" in found.reason
