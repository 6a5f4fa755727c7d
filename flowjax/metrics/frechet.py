"""The Fréchet distance between two sets of features, of all of them and extrapolated to infinitely many."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class Moments:
    """Mean `[F]` and covariance `[F, F]` of features, float64."""

    mean: Float[np.ndarray, " F"]
    covariance: Float[np.ndarray, "F F"]

    def __post_init__(self) -> None:
        values = np.asarray(self.covariance)
        if not (np.isfinite(self.mean).all() and np.isfinite(values).all()):
            raise ValueError("moments of features: expected a mean and a covariance without NaN or infinity")
        if np.abs(values - values.T).max(initial=0) > 1e-6 * max(np.abs(values).max(initial=0), 1e-300):
            raise ValueError("moments of features: expected a symmetric covariance")


def moments(features: Float[np.ndarray, "N F"], name: str = "features") -> Moments:
    """Mean and unbiased covariance, in float64.

    Raises:
      ValueError: fewer than two rows, or values that are not finite.
    """
    if len(features) < 2 or not np.isfinite(features).all():
        raise ValueError(f"{name}: {len(features)} rows of features, expected at least 2, all finite")
    wide = np.asarray(features, np.float64)
    return Moments(wide.mean(0), np.cov(wide, rowvar=False, ddof=1).reshape(wide.shape[1], wide.shape[1]))


def frechet_distance(a: Float[np.ndarray, "N F"] | Moments, b: Float[np.ndarray, "M G"] | Moments) -> float:
    """`‖μ_a - μ_b‖² + tr(C_a + C_b - 2 (C_a^½ C_b C_a^½)^½)`, the squared 2-Wasserstein distance of Gaussians with these moments.

    By eigendecompositions of symmetric matrices in float64: always real, and the same with every version of SciPy.

    Args:
      a, b: features, at least two rows each, or their moments. Singular covariances (fewer rows than features) are fine.

    Raises:
      ValueError: fewer than two rows, values that are not finite, features of different numbers.

    References:
      Dowson and Landau 1982; Heusel et al. 2017 for its use on Inception features (FID).
    """
    one, other = (part if isinstance(part, Moments) else moments(part, name) for name, part in (("a", a), ("b", b)))
    if one.mean.shape != other.mean.shape:
        raise ValueError(f"a has {len(one.mean)} features and b {len(other.mean)}: expected the same ones")
    # tr (C_a^½ C_b C_a^½)^½ is the sum of the singular values of C_a^½ C_b^½.
    cross = np.linalg.svd(_root(one.covariance) @ _root(other.covariance), compute_uv=False).sum()
    traces = np.trace(one.covariance) + np.trace(other.covariance)
    return max(0.0, float(((one.mean - other.mean) ** 2).sum() + traces - 2 * cross))


def _root(covariance: Float[np.ndarray, "F F"]) -> Float[np.ndarray, "F F"]:
    values, vectors = np.linalg.eigh(covariance)
    # Rounding errors of zero eigenvalues are cut off: their square roots would be a hundred million times larger.
    noise = len(values) * np.finfo(np.float64).eps * max(values[-1], 0)
    return (vectors * np.sqrt(np.where(values > noise, values, 0))) @ vectors.T


class Extrapolated(NamedTuple):
    """A Fréchet distance extrapolated to infinitely many samples, with a 95 % interval."""

    value: float
    low: float
    high: float
    plain: float
    """The distance of the given samples: too large, by about a constant over their number."""


def frechet_extrapolated(
    samples: Float[np.ndarray, "N F"],
    reference: Float[np.ndarray, "M G"] | Moments,
    *,
    seed: int = 0,
    sizes: int = 8,
    num_halves: int = 20,
) -> Extrapolated:
    """The distance of samples from a reference, extrapolated in 1/N to infinitely many samples.

    The distance of N samples is biased upwards by about c/N, c depending on the model: those of models, or of numbers of samples, that
    differ cannot be compared. Distances of random subsets, `sizes` of them from N/2 to N, are fitted by a line in 1/N, whose value at 0
    it is. The interval is from the spread of the same over random halves of the samples; it leaves out what another reference would
    give. A value may lie below 0, by chance, where the distributions agree.

    Args:
      reference: features, or their moments.
      sizes: subsets to fit.
      num_halves: halves for the interval.

    Raises:
      ValueError: fewer than 32 samples, or fewer than 3 sizes; as `frechet_distance`.

    References:
      Chong and Forsyth 2020 (FID∞).
    """
    n = len(samples)
    if n < 32 or sizes < 3:
        raise ValueError(f"{n} samples and {sizes} sizes: expected at least 32 and 3 to extrapolate from")
    held = reference if isinstance(reference, Moments) else moments(reference, "reference")
    rng = np.random.default_rng(seed)

    def fitted(rows: np.ndarray) -> tuple[float, float]:
        counts = np.unique(np.linspace(len(rows) / 2, len(rows), sizes).round().astype(int))
        distances = [frechet_distance(samples[rows[:count]], held) for count in counts]
        return float(np.polyfit(1 / counts, distances, 1)[1]), distances[-1]

    found = [fitted(rng.permutation(n)) for _ in range(4)]  # they differ by which samples the smaller subsets hold
    value = float(np.mean([at_infinity for at_infinity, _ in found]))
    # A mean over half of n, drawn without replacement, varies about that over all n as the latter varies about the truth.
    halves = [fitted(rng.permutation(n)[: n // 2])[0] for _ in range(num_halves)]
    spread = 1.96 * float(np.std(halves, ddof=1))
    return Extrapolated(value, value - spread, value + spread, found[0][1])
