"""The Fréchet distance between two sets of features."""

import numpy as np
from jaxtyping import Float


def frechet_distance(a: Float[np.ndarray, "N F"], b: Float[np.ndarray, "M F"]) -> float:
    """`‖μ_a - μ_b‖² + tr(C_a + C_b - 2 (C_a^½ C_b C_a^½)^½)`, the squared 2-Wasserstein distance of Gaussians with these moments.

    By eigendecompositions of symmetric matrices in float64: always real, and the same with every version of SciPy.

    Args:
      a, b: features, at least two rows each. Singular covariances (fewer rows than features) are fine.

    Raises:
      ValueError: fewer than two rows, or values that are not finite.

    References:
      Dowson and Landau 1982; Heusel et al. 2017 for its use on Inception features (FID).
    """
    for name, features in (("a", a), ("b", b)):
        if len(features) < 2 or not np.isfinite(features).all():
            raise ValueError(f"{name}: {len(features)} rows of features, expected at least 2, all finite")
    (mean_a, root_a, trace_a), (mean_b, root_b, trace_b) = (_moments(np.asarray(part, np.float64)) for part in (a, b))
    # tr (C_a^½ C_b C_a^½)^½ is the sum of the singular values of C_a^½ C_b^½.
    cross = np.linalg.svd(root_a @ root_b, compute_uv=False).sum()
    return max(0.0, float(((mean_a - mean_b) ** 2).sum() + trace_a + trace_b - 2 * cross))


def _moments(x: Float[np.ndarray, "N F"]) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean, root of the covariance, trace of the covariance."""
    values, vectors = np.linalg.eigh(np.cov(x, rowvar=False, ddof=1).reshape(x.shape[1], x.shape[1]))
    values = np.clip(values, 0, None)
    return x.mean(0), (vectors * np.sqrt(values)) @ vectors.T, values.sum()
