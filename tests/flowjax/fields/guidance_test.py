"""Guidance: inside its interval and its channels alone, whatever the coordinate of the interval."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowjax.fields import convert_interval, guided
from flowjax.path import Cosine, RectifiedFlow, VariancePreserving
from tests.flowjax.growth import ONE


def test_guidance_pushes_inside_its_interval_and_its_channels_alone() -> None:
    x, label = jnp.ones((2, 3, 3, 4)), jnp.array([1, 3], jnp.int32)
    field = guided(ONE, 2.5, (0.1, 0.6), channels=3)
    plain = ONE(x, jnp.float32(0.3), label)
    inside = field(x, jnp.float32(0.3), label)
    expected = np.cos(0.9) * (1 + 2.5 * np.array([1, 3]))
    np.testing.assert_allclose(inside[:, 0, 0, :3], np.repeat(expected[:, None], 3, 1), rtol=1e-6)
    np.testing.assert_array_equal(inside[..., 3], plain[..., 3])
    np.testing.assert_allclose(
        guided(ONE, 2.5, (0.1, 0.6))(x, jnp.float32(0.1), label)[..., 3], inside[..., 0] * np.cos(0.3) / np.cos(0.9), rtol=1e-5
    )
    for t in (0.05, 0.6, 0.9):
        np.testing.assert_array_equal(field(x, jnp.float32(t), label), ONE(x, jnp.float32(t), label))
    np.testing.assert_allclose(guided(ONE, 1.0)(x, jnp.float32(0.3), label), plain, rtol=1e-6)


@given(st.sampled_from([RectifiedFlow(), Cosine(), VariancePreserving()]), st.floats(0.05, 0.9), st.floats(0.01, 0.09))
def test_intervals_convert_there_and_back(path: Any, low: float, width: float) -> None:
    interval = (low, low + width)
    for name in ("sigma", "log_snr"):
        there = convert_interval(interval, "t", name, path)
        assert there[0] < there[1]
        assert convert_interval(there, name, "t", path) == pytest.approx(interval, abs=2e-4)
    assert convert_interval((1 / 3, 3.0), "sigma", "t", RectifiedFlow()) == pytest.approx((0.25, 0.75), abs=1e-6)
