"""The Wiener filter against its formula with an inverse, in float64, and the mixture of classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.analytic import gaussian
from flowjax.path import Path, RectifiedFlow
from tests.flowjax.analytic.small_data import ASKED, LABELS, PATHS, coefficients, error, images, queries, velocity


def filtered(y: np.ndarray, x: np.ndarray, alpha: float, sigma: float) -> tuple[np.ndarray, float]:
    """Prediction and log density of x `[D]` under the Gaussian of samples y `[N, D]`."""
    rows = y.astype(np.float64)
    mean, covariance = rows.mean(0), np.cov(rows.T)
    whole = alpha**2 * covariance + sigma**2 * np.eye(len(mean))
    away = x.astype(np.float64) - alpha * mean
    solved = np.linalg.solve(whole, away)
    return mean + alpha * covariance @ solved, -(away @ solved + np.linalg.slogdet(whole)[1]) / 2


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_the_filter_is_that_of_the_formula(path: Path) -> None:
    y = images()  # 40 numbers: fewer samples than numbers, in all and in each class
    flat = y.reshape(30, -1)
    field = gaussian(y, LABELS, path)
    for t in (0.05, 0.5, 0.99):
        alpha, sigma, _, _ = coefficients(path, t)
        x = queries(y, path, t)
        for asked in (None, ASKED):
            own = np.full(4, -1) if asked is None else ASKED
            rows = zip(x.reshape(4, -1), own, strict=True)
            wanted = np.stack([filtered(flat if label < 0 else flat[label == LABELS], one, alpha, sigma)[0] for one, label in rows])
            wanted = wanted.reshape(x.shape)
            assert error(field.denoised(x, t, asked), wanted) < 1e-5
            assert error(field(x, np.full(4, t, np.float32), asked), velocity(path, t, x, wanted)) < 1e-5


def test_without_a_label_the_mixture_weighs_the_classes() -> None:
    y, t = images((2, 3)), 0.3
    x, flat = queries(y, RectifiedFlow(), t), y.reshape(30, -1)
    field = gaussian(y, LABELS, by_class=True)
    wanted = []
    for one in x.reshape(4, -1):
        each = [filtered(flat[label == LABELS], one, t, 1 - t) for label in range(3)]
        scores = np.array([np.log(np.mean(label == LABELS)) + density for label, (_, density) in enumerate(each)])
        weights = np.exp(scores - scores.max())
        wanted.append(weights @ np.stack([mean for mean, _ in each]) / weights.sum())
    assert error(field.denoised(x, t), np.stack(wanted).reshape(x.shape)) < 1e-5
    np.testing.assert_array_equal(field(x, t, np.full(4, 1)), gaussian(y, LABELS)(x, t, np.full(4, 1)))
    assert error(field(x, t), np.asarray(gaussian(y)(x, t))) > 1e-2


def test_of_many_gaussian_samples_it_is_the_closed_form() -> None:
    rng = np.random.default_rng(3)
    scale = np.array([2.0, 1.0, 0.5, 0.1])
    y, t = (rng.standard_normal((400_000, 4)) * scale).astype(np.float32), 0.6
    x = rng.standard_normal((5, 4)).astype(np.float32)
    exact = x * (t * scale**2 / (t**2 * scale**2 + (1 - t) ** 2))
    assert error(gaussian(y).denoised(x, t), exact) < 5e-3  # 1/√N is 1.6e-3
    assert error(gaussian(y[:4000]).denoised(x, t), exact) > error(gaussian(y).denoised(x, t), exact)


@pytest.mark.slow
def test_it_is_differentiable_compiled_and_finite_at_both_ends() -> None:
    y = images((6,))
    field, x = gaussian(y), jnp.asarray(y[:2])
    jacobian = jax.jacrev(lambda one: field(one[None], 0.4)[0])(x[0])
    step = (field(x[:1] + 0.1, 0.4) - field(x[:1], 0.4))[0]
    np.testing.assert_allclose(jacobian @ np.full(6, 0.1), step, rtol=1e-4, atol=1e-5)  # it is affine
    np.testing.assert_allclose(jax.jit(lambda f, x, t: f(x, t, None))(field, x, jnp.float32(0.4)), field(x, 0.4), rtol=1e-6)
    assert np.isfinite(field(x, 0.0)).all()
    assert np.isfinite(field(x, 1.0)).all()
    np.testing.assert_allclose(field.denoised(x, 1.0), x, rtol=1e-5)


def test_bad_input_is_refused_in_a_line() -> None:
    y = images((2, 2))
    with pytest.raises(ValueError, match=r"by_class = True: .* give labels"):
        gaussian(y, by_class=True)
    with pytest.raises(ValueError, match="min\\(N, D\\) <= 8192"):
        gaussian(np.zeros((8193, 8193), np.uint8))
    with pytest.raises(ValueError, match="x_t must have shape"):
        gaussian(y)(y[0], 0.5)
    with pytest.raises(ValueError, match="t must lie in"):
        gaussian(y)(y, 1.5)
    with pytest.raises(ValueError, match="label 7 has no samples"):
        gaussian(y, LABELS)(y[:1], 0.5, np.array([7]))
    with pytest.raises(ValueError, match="the field has no labels"):
        gaussian(y)(y[:1], 0.5, np.array([1]))
