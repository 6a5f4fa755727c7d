"""Velocity fields that take turns, and the divergence of a model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.fields import divergence, model_field, staged
from flowjax.sampling import noise, sample
from flowjax.schedules import uniform_timesteps
from tests.flowjax.growth import ONE, TWO, grid, small_model, solve_by_hand


@pytest.mark.parametrize("edge", [0.0, 0.4, 1.0])
def test_staged_fields_take_turns_at_the_edge(edge: float) -> None:
    found = sample(staged([ONE, TWO], [edge]), jnp.ones((1, 1)), grid(10))
    expected = solve_by_hand(lambda t: 2 if t >= edge - 1e-9 else 1, uniform_timesteps(10))
    assert float(found[0, 0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
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
