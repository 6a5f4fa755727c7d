"""Velocity fields: composed in t, guided, converted to another interval, and their divergence."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowjax.fields import convert_interval, divergence, guided, model_field, staged
from flowjax.path import Cosine, RectifiedFlow, VariancePreserving
from flowjax.sampling import noise, sample
from flowjax.schedules import uniform_timesteps
from tests.flowjax.growth import ONE, TWO, grid, small_model, solve_by_hand


@pytest.mark.parametrize("edge", [0.0, 0.4, 1.0])
def test_staged_fields_take_turns_at_the_edge(edge: float) -> None:
    found = sample(staged([ONE, TWO], [edge]), jnp.ones((1, 1)), grid(10))
    expected = solve_by_hand(lambda t: 2 if t >= edge - 1e-9 else 1, uniform_timesteps(10))
    assert float(found[0, 0]) == pytest.approx(expected, rel=1e-5)


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


def test_the_divergence_of_a_model_is_the_trace_of_its_jacobian_and_hutchinson_estimates_it() -> None:
    field = model_field(small_model(), 3)
    x, t = jnp.asarray(noise(2, (4, 4, 1), 3)), jnp.float32(0.4)
    jacobian = jax.jit(jax.vmap(jax.jacrev(lambda y: field(y[None], t, None)[0])))(x).reshape(2, 16, 16)
    found = jax.jit(divergence)
    exact = found(field, x, t, None)
    np.testing.assert_allclose(exact, np.trace(jacobian, axis1=1, axis2=2), rtol=1e-4)
    probes = jax.random.rademacher(jax.random.key(0), (100, *x.shape), jnp.float32)
    off = jacobian + jacobian.swapaxes(1, 2)
    deviation = np.sqrt(((off - np.einsum("bii->bi", off)[:, :, None] * np.eye(16)) ** 2).sum((1, 2)) / 2 / 100)
    assert (np.abs(found(field, x, t, None, probes) - exact) < 4 * deviation).all()


@given(st.sampled_from([RectifiedFlow(), Cosine(), VariancePreserving()]), st.floats(0.05, 0.9), st.floats(0.01, 0.09))
def test_intervals_convert_there_and_back(path: Any, low: float, width: float) -> None:
    interval = (low, low + width)
    for name in ("sigma", "log_snr"):
        there = convert_interval(interval, "t", name, path)
        assert there[0] < there[1]
        assert convert_interval(there, name, "t", path) == pytest.approx(interval, abs=2e-4)
    assert convert_interval((1 / 3, 3.0), "sigma", "t", RectifiedFlow()) == pytest.approx((0.25, 0.75), abs=1e-6)
