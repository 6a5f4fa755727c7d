"""Stochastic sampling: the score of a velocity, and the distribution that every diffusion coefficient leaves as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.fields import Field
from flowjax.path import Cosine, Path, RectifiedFlow, VariancePreserving
from flowjax.sampling import sample
from flowjax.schedules import uniform_timesteps
from flowjax.stochastic_sampling import DIFFUSIONS, sample_stochastic, score_of_velocity

MEAN, DEVIATION = 0.5, 0.3


def gaussian(path: Path) -> Field:
    """The velocity of data N(MEAN, DEVIATION²)."""

    @jax.tree_util.Partial
    def velocity(x: jax.Array, t: jax.Array, label: jax.Array | None) -> jax.Array:
        variance = (path.alpha(t) * DEVIATION) ** 2 + path.sigma(t) ** 2
        half_rate = path.alpha_dot(t) * path.alpha(t) * DEVIATION**2 + path.sigma_dot(t) * path.sigma(t)
        return path.alpha_dot(t) * MEAN + half_rate / variance * (x - path.alpha(t) * MEAN)

    return velocity


FIELD = gaussian(RectifiedFlow())


@pytest.mark.parametrize("path", [RectifiedFlow(), Cosine(), VariancePreserving()], ids=lambda path: type(path).__name__)
def test_the_score_of_a_velocity_is_that_of_the_density(path: Path) -> None:
    x = jnp.linspace(-2, 2, 9)[:, None]
    for t in (0.1, 0.5, 0.9):
        at = jnp.float32(t)
        variance = (path.alpha(at) * DEVIATION) ** 2 + path.sigma(at) ** 2
        found = score_of_velocity(gaussian(path)(x, at, None), x, at, path)
        np.testing.assert_allclose(found, -(x - path.alpha(at) * MEAN) / variance, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("diffusion", DIFFUSIONS)
def test_every_diffusion_leaves_the_distribution_as_it_is_and_moves_each_sample(diffusion: str) -> None:
    x_0 = jnp.asarray(np.random.default_rng(0).standard_normal((4096, 1)), jnp.float32)
    t = jnp.asarray(uniform_timesteps(100), jnp.float32)
    field = FIELD
    found = np.asarray(sample_stochastic(field, x_0, t, diffusion=diffusion, seed=1))
    assert found.mean() == pytest.approx(MEAN, abs=0.03)
    assert found.std() == pytest.approx(DEVIATION, abs=0.03)
    along = np.asarray(sample(field, x_0, t))
    assert np.corrcoef(found[:, 0], along[:, 0])[0, 1] < 0.9
    np.testing.assert_array_equal(found, sample_stochastic(field, x_0, t, diffusion=diffusion, seed=1))
    assert (found != np.asarray(sample_stochastic(field, x_0, t, diffusion=diffusion, seed=2))).all()


def test_without_diffusion_it_is_the_flow() -> None:
    x_0, t = jnp.ones((2, 3)), jnp.asarray(uniform_timesteps(8), jnp.float32)
    field = FIELD
    np.testing.assert_allclose(sample_stochastic(field, x_0, t, scale=0.0), sample(field, x_0, t), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(sample_stochastic(field, x_0, t[:2]), sample(field, x_0, t[:2]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("told", "message"), [({"diffusion": "SBDM"}, "expected one of constant"), ({"scale": -1.0}, "scale = -1.0")])
def test_what_is_no_diffusion_says_so(told: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_stochastic(gaussian(RectifiedFlow()), jnp.ones((2, 3)), jnp.asarray(uniform_timesteps(4), jnp.float32), **told)
