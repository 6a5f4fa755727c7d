"""The smoothed oracle against a posterior over centres and noise in float64, and the oracle itself where the noise is 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.analytic import smoothed
from flowjax.oracle import Oracle
from flowjax.path import Path
from flowjax.sampling import sample
from tests.flowjax.analytic.small_data import ASKED, LABELS, PATHS, coefficients, error, images, queries, velocity


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_prediction_and_velocity_are_those_of_noisy_data(path: Path) -> None:
    y, noise = images(), 0.4
    field, flat = smoothed(y, LABELS, path, noise=noise), y.reshape(30, -1).astype(np.float64)
    for t in (0.05, 0.6, 0.99):
        alpha, sigma, _, _ = coefficients(path, t)
        x = queries(y, path, t)
        wanted = []
        for one, label in zip(x.reshape(4, -1).astype(np.float64), ASKED, strict=True):
            some = flat if label < 0 else flat[label == LABELS]
            whole = sigma**2 + alpha**2 * noise**2
            scores = -np.sum((one - alpha * some) ** 2, axis=1) / (2 * whole)
            weights = np.exp(scores - scores.max())
            each = some + alpha * noise**2 / whole * (one - alpha * some)  # E[y + τ n | x, y]
            wanted.append(weights @ each / weights.sum())
        exact = np.stack(wanted).reshape(x.shape)
        assert error(field.denoised(x, t, ASKED), exact) < 1e-5
        assert error(field(x, t, ASKED), velocity(path, t, x, exact)) < 1e-5


def test_without_noise_it_is_the_oracle() -> None:
    y = images()
    for path in PATHS:
        x = queries(y, path, 0.4)
        out = Oracle(y, LABELS, path=path)(x, 0.4, ASKED)
        np.testing.assert_array_equal(smoothed(y, LABELS, path, noise=0.0)(x, 0.4, ASKED), out.velocity)
        np.testing.assert_array_equal(smoothed(y, LABELS, path, noise=0.0).denoised(x, 0.4, ASKED), out.denoised)


@pytest.mark.slow
def test_it_is_sampled_to_noisy_data_and_finite_at_the_end() -> None:
    y = images((3,))
    field = smoothed(y, noise=0.5)
    x = jax.random.normal(jax.random.key(0), (500, 3))
    found = np.asarray(sample(field, x, jnp.linspace(0, 1, 41)))
    assert np.isfinite(field(x, 1.0)).all()
    np.testing.assert_allclose(field.denoised(x, 1.0), x, rtol=1e-5, atol=1e-5)
    spread = y.std(axis=0) ** 2 + 0.25
    np.testing.assert_allclose(found.var(axis=0), spread, rtol=0.25)
    nearest = np.linalg.norm(found[:, None] - y, axis=2).min(axis=1)
    assert np.median(nearest) > 0.2  # the oracle's samples would be training samples


@pytest.mark.parametrize("noise", [-0.1, np.nan])
def test_bad_noise_is_refused(noise: float) -> None:
    with pytest.raises(ValueError, match="expected a standard deviation >= 0"):
        smoothed(images(), noise=noise)
