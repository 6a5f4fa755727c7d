"""Advice keeps what it promises."""

import dataclasses
import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from flowjax.oracle import Oracle
from flowjax.path import Path
from flowjax.schedules import shift
from flowjax.stages import (
    advice,
    advised_share,
    covariance_spectrum,
    interval_in_words,
    measure_turning_point,
    predict_turning_point,
    predict_turning_point_by_class,
    predict_turning_point_from_data,
    turning_point_of_curve,
)
from tests.flowjax.softmax_turning_point import PATHS

# Advice.


@settings(deadline=None)
@given(turning=st.floats(0.01, 0.95), share=st.floats(0.05, 0.5))
def test_advice_puts_the_share_of_steps_before_the_turn(turning: float, share: float) -> None:
    found = advice(turning, np.ones(8), share=share)
    assert shift(share, found.shift.value) == pytest.approx(turning)
    assert found.shift.range[0] <= found.shift.value * (1 + 1e-9) <= found.shift.range[1] * (1 + 2e-9)
    guidance = found.guidance_interval
    if turning >= np.sqrt(3) / (1 + np.sqrt(3)) - 1e-3:  # where three quarters of unit variance are resolved
        assert (guidance.value, guidance.range) == (None, None)
        assert "before the turning point" in guidance.evidence
        return
    low, high = guidance.value
    (_, narrow), (_, wide) = guidance.range
    assert low == turning <= narrow <= high <= wide < 1


@settings(deadline=None)
@given(turning=st.floats(0.01, 0.95))
def test_the_advised_share_rises_with_the_turn_and_is_the_published_one_where_it_was_published(turning: float) -> None:
    found = advice(turning, np.ones(8), share=None)
    assert shift(advised_share(turning), found.shift.value) == pytest.approx(turning)
    assert turning < advised_share(turning) < advised_share(turning + 0.01)
    assert advised_share(0.1) == pytest.approx(0.16)
    assert advice(0.1, np.ones(8), share=None).shift.value == pytest.approx(advice(0.1, np.ones(8)).shift.value)


def test_advice_comes_near_the_published_optima() -> None:
    """Turning point 0.1 and isotropic latents: shifts of 0.5 to 0.7 were best, and intervals to 0.5, 0.6 or 0.7."""
    found = advice(0.1, np.ones(4096))
    assert found.shift.range == (pytest.approx(0.506, abs=1e-3), pytest.approx(0.683, abs=1e-3))
    assert found.guidance_interval.value == (0.1, pytest.approx(np.sqrt(3) / (1 + np.sqrt(3)), abs=1e-3))
    json.dumps(dataclasses.asdict(found))


def test_an_empty_interval_is_said_in_words() -> None:
    assert interval_in_words((0.1, 0.62)) == "[0.1, 0.62]"
    assert interval_in_words((0.45, 0.45)) == interval_in_words((0.4501, 0.4502)) == "none"
    found = advice(0.7, np.ones(4)).guidance_interval
    assert found.value is None
    assert "at t = 0.634" in found.evidence
    assert "at t = 0.7," in found.evidence
    assert advice(0.6, np.ones(4)).guidance_interval.range[0] == (0.6, 0.6)  # two thirds are resolved before


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_guidance_ends_where_a_quarter_of_the_variance_is_left(path: Path) -> None:
    spectrum = np.arange(1, 50.0) ** -1.5
    _, end = advice(1e-3, spectrum, path=path).guidance_interval.value
    squared = (float(path.alpha(end)) / float(path.sigma(end))) ** 2
    assert np.sum(spectrum / (1 + squared * spectrum)) / spectrum.sum() == pytest.approx(0.25, abs=1e-3)


def test_without_a_turning_point_advice_has_no_values() -> None:
    found = advice(None, np.ones(3))
    assert (found.shift.value, found.shift.range, found.guidance_interval.value) == (None, None, None)
    assert "never crosses" in found.shift.evidence


# What is refused.

DATA = np.ones((4, 3), np.float32)
REFUSED = {
    "data has shape": lambda: covariance_spectrum(np.ones(5)),
    "not finite, first in sample 2": lambda: predict_turning_point_from_data(np.where(np.arange(12).reshape(4, 3) == 7, np.nan, 1)),
    "data has dtype": lambda: covariance_spectrum(DATA.astype(complex)),
    "labels has shape": lambda: predict_turning_point_from_data(DATA, np.zeros(3, int)),
    "labels has shape .* dtype float": lambda: predict_turning_point_by_class(DATA, np.zeros(4)),
    "num_queries = 0": lambda: predict_turning_point_from_data(DATA, num_queries=0),
    "max_exact = 3": lambda: covariance_spectrum(DATA, max_exact=3),
    "minimum of -1": lambda: predict_turning_point([1.0, -1.0], 10),
    "one axis": lambda: predict_turning_point(np.eye(3), 10),
    "finite": lambda: predict_turning_point([1.0, np.nan], 10),
    "n = 0": lambda: predict_turning_point(np.ones(3), 0),
    "turning_point = 1": lambda: advice(1.0, np.ones(3)),
    "share = 0": lambda: advice(0.2, np.ones(3), share=0.0),
    "eigenvalues are all 0": lambda: advice(0.2, np.zeros(3)),
    "label = 'all'": lambda: measure_turning_point(Oracle(DATA), label="all"),
    "with labels": lambda: measure_turning_point(Oracle(DATA), label="own"),
    "t = ": lambda: measure_turning_point(Oracle(DATA), [0.2, 1.0]),
    "num_queries = -1": lambda: measure_turning_point(Oracle(DATA), num_queries=-1),
    "strictly rising": lambda: turning_point_of_curve([0.2, 0.1], np.ones((2, 2))),
    "top1_weight has shape": lambda: turning_point_of_curve([0.1, 0.2], np.ones(2)),
    "top1_weight has values": lambda: turning_point_of_curve([0.1, 0.2], np.full((2, 2), 1.5)),
    "num_bootstrap = 0": lambda: turning_point_of_curve([0.1, 0.2], np.ones((2, 2)), num_bootstrap=0),
}


@pytest.mark.parametrize("message", REFUSED)
def test_wrong_input_is_named(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()
