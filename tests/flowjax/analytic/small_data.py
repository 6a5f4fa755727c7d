"""Small images with classes, queries on their path, and path coefficients in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from flowjax.path import Cosine, Path, RectifiedFlow, VariancePreserving

PATHS = [RectifiedFlow(), Cosine(), VariancePreserving()]
LABELS = np.repeat(np.arange(3, dtype=np.int32), [15, 6, 9])
ASKED = np.array([0, -1, 2, 1], np.int32)


def images(shape: tuple[int, ...] = (4, 5, 2)) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.standard_normal((30, *shape)) + LABELS.reshape(-1, *(1 for _ in shape))).astype(np.float32)


def coefficients(path: Path, t: float) -> tuple[float, float, float, float]:
    """α, σ and their derivatives."""
    with jax.enable_x64(True):
        time = jnp.float64(np.float32(t))
        alpha, sigma, alpha_dot, sigma_dot = (float(f(time)) for f in (path.alpha, path.sigma, path.alpha_dot, path.sigma_dot))
    return alpha, sigma, alpha_dot, sigma_dot


def queries(y: np.ndarray, path: Path, t: float) -> np.ndarray:
    alpha, sigma, _, _ = coefficients(path, t)
    return (alpha * y[[0, 7, 22, 16]] + sigma * np.random.default_rng(1).standard_normal((4, *y.shape[1:]))).astype(np.float32)


def velocity(path: Path, t: float, x: np.ndarray, denoised: np.ndarray) -> np.ndarray:
    alpha, sigma, alpha_dot, sigma_dot = coefficients(path, t)
    return alpha_dot * denoised + sigma_dot * (x - alpha * denoised) / sigma


def error(found: object, wanted: np.ndarray) -> float:
    """Largest error of a query, relative to its norm."""
    gap = (np.asarray(found, np.float64) - wanted).reshape(len(wanted), -1)
    return float((np.linalg.norm(gap, axis=1) / np.linalg.norm(wanted.reshape(len(wanted), -1), axis=1)).max())
