"""Condensation thresholds: the noise level from which on each query has its own sample on top."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from flowjax.stages import (
    condensation_thresholds,
)
from tests.flowjax.softmax_turning_point import gaussians


@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_near_duplicates_are_told_apart_by_differences(offset: float) -> None:
    """Pairs 1e-3 apart: a pair's threshold, 2 z·Δ/‖Δ‖² with z·Δ ~ N(0, ‖Δ‖²), is positive half the time, and then its median is 1349."""
    pairs = np.repeat(gaussians(100, 64).astype(np.float64), 2, axis=0) + offset
    pairs[1::2, 0] += 1e-3
    data = pairs.astype(np.float32)
    apart = np.abs(data[1::2, 0].astype(np.float64) - data[::2, 0]).mean()
    thresholds = condensation_thresholds(data, num_queries=4000)
    far = thresholds[thresholds > 30]
    assert len(far) / 4000 == pytest.approx(0.5, abs=0.05)
    assert np.median(far) == pytest.approx(2 * 0.6745 / apart, rel=0.1)


def test_thresholds_are_the_whole_curve() -> None:
    """P(ρ* <= ρ) is the mean top-1 weight at ρ, at every ρ."""
    data = gaussians(100, 16).astype(np.float64)
    thresholds = condensation_thresholds(data, num_queries=8000)
    rng = np.random.default_rng(5)
    for ratio in (0.3, 0.6, 1.0):
        top = []
        for own in rng.integers(0, 100, 3000):
            difference = data - data[own]
            logits = ratio * difference @ rng.standard_normal(16) - ratio**2 / 2 * (difference**2).sum(1)
            top.append(1 / np.exp(logits - logits.max()).sum())
        assert np.mean(thresholds <= ratio) == pytest.approx(np.mean(top), abs=0.03)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(3, 60), d=st.integers(1, 20), scale=st.floats(0.1, 10), seed=st.integers(0, 99))
def test_only_the_product_of_ratio_and_scale_matters(n: int, d: int, scale: float, seed: int) -> None:
    data = gaussians(n, d, seed)
    plain, scaled = (condensation_thresholds(x, num_queries=64) for x in (data, data * np.float32(scale) + np.float32(3)))
    np.testing.assert_allclose(scaled * scale, plain, rtol=1e-2, atol=1e-3)
