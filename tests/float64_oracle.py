"""The oracle once more, independently: NumPy, float64, every difference formed. What the tests measure the library against.

Nothing here is shared with the library: paths, softmax and moments are written down from their definitions.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

RECTIFIED, COSINE, VP = "rectified flow", "cosine", "variance preserving"
NAMES = (RECTIFIED, COSINE, VP)
BETA_MIN, BETA_MAX = 0.1, 20.0
CHUNK = 2**19
"""Numbers in one block of differences: 4 MB, so that it stays in the cache."""


@dataclasses.dataclass(frozen=True)
class Coefficients:
    """α, σ and their time derivatives at one t."""

    alpha: float
    sigma: float
    alpha_dot: float
    sigma_dot: float

    @property
    def A(self) -> float:
        return self.alpha_dot - self.alpha * self.sigma_dot / self.sigma

    @property
    def B(self) -> float:
        return self.sigma_dot / self.sigma


def coefficients(name: str, t: float) -> Coefficients:
    """α_t, σ_t, α'_t, σ'_t of a path by name, in float64. At t = 1 σ is 0 and VP's σ' infinite."""
    t = float(t)
    if name == RECTIFIED:
        return Coefficients(t, 1 - t, 1.0, -1.0)
    if name == COSINE:
        sigma = math.cos(math.pi * t / 2) if t < 1 else 0.0
        return Coefficients(math.sin(math.pi * t / 2), sigma, math.pi / 2 * sigma, -math.pi / 2 * math.sin(math.pi * t / 2))
    # α = exp(-½ ∫_0^{1-t} β(s) ds), β linear from 0.1 to 20, and σ² = 1 - α².
    s = 1 - t
    beta = BETA_MIN + (BETA_MAX - BETA_MIN) * s
    alpha = math.exp(-(BETA_MIN * s + (BETA_MAX - BETA_MIN) * s**2 / 2) / 2)
    sigma = math.sqrt(-math.expm1(2 * math.log(alpha))) if s > 0 else 0.0
    # log α has slope β/2 in t; σ² + α² = 1 then fixes σ'.
    alpha_dot = alpha * beta / 2
    return Coefficients(alpha, sigma, alpha_dot, -alpha * alpha_dot / sigma if sigma else -math.inf)


@dataclasses.dataclass(frozen=True)
class Exact:
    """One field of `B` values for each field of the library's output; and E‖u_cond‖², a scale of the problem."""

    velocity: np.ndarray
    denoised: np.ndarray
    log_density: np.ndarray
    top1_weight: np.ndarray
    top1_index: np.ndarray
    runner_up: np.ndarray
    """The largest weight of a sample that is no copy of the top one: how clear the choice of `top1_index` is."""
    entropy: np.ndarray
    effective_samples: np.ndarray
    variance: np.ndarray
    cfm_gap: np.ndarray
    divergence: np.ndarray
    conditional_square: np.ndarray
    doubt: np.ndarray
    """Nats by which the rounding of float64 may change a log weight that matters: beyond 1e-6 for samples as far from x as from each other,
    at 10⁶ times the noise."""


def oracle(
    data: np.ndarray,
    x: np.ndarray,
    t: np.ndarray | float,
    name: str = RECTIFIED,
    *,
    labels: np.ndarray | None = None,
    label: np.ndarray | None = None,
    counts: np.ndarray | None = None,
) -> Exact:
    """The oracle at `x` `[B, *shape]`, t < 1; a label of -1, or none, asks for all samples."""
    t = np.broadcast_to(np.asarray(t, np.float32), len(x))
    rows = []
    for i in range(len(x)):
        keep = np.arange(len(data))
        if label is not None and label[i] != -1:
            assert labels is not None
            keep = np.flatnonzero(labels == label[i])
        prior = np.ones(len(keep)) if counts is None else np.asarray(counts, np.float64)[keep]
        rows.append(_one(data.reshape(len(data), -1)[keep], prior, np.asarray(x[i], np.float64).ravel(), coefficients(name, t[i]), keep))
    columns = {field.name: np.stack([row[field.name] for row in rows]) for field in dataclasses.fields(Exact)}
    return Exact(**columns | {key: columns[key].reshape(x.shape) for key in ("velocity", "denoised")})


def velocity(data: np.ndarray, x: np.ndarray, t: float, name: str = RECTIFIED) -> np.ndarray:
    """The velocity at one flat x `[D]`, which may be float64: for finite differences."""
    rows = data.reshape(len(data), -1)
    return _one(rows, np.ones(len(rows)), np.asarray(x, np.float64), coefficients(name, np.float32(t)), np.arange(len(rows)))["velocity"]


def posterior(data: np.ndarray, x: np.ndarray, alpha: float, sigma: float, prior: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The moments of one flat query `[D]` with any α and σ > 0, over samples that count `prior` times."""
    prior = np.ones(len(data)) if prior is None else prior.astype(np.float64)
    return _one(data, prior, x.astype(np.float64), Coefficients(float(alpha), float(sigma), 1.0, -1.0), np.arange(len(data)))


def _sums(terms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each row, and of its absolute values."""
    return terms.sum(axis=1), np.abs(terms).sum(axis=1)


def _one(data: np.ndarray, prior: np.ndarray, x: np.ndarray, c: Coefficients, index: np.ndarray) -> dict[str, np.ndarray]:
    d = len(x)

    def over_rows(f: Callable[[np.ndarray], Any]) -> list[Any]:
        step = max(1, CHUNK // d)
        return [f(data[start : start + step].astype(np.float64)) for start in range(0, len(data), step)]

    square = np.concatenate(over_rows(lambda y: np.square(x - c.alpha * y).sum(1)))
    score = np.log(prior) - square / (2 * c.sigma**2)
    near, peak = int(np.argmax(score)), score.max()
    pivot = data[near].astype(np.float64)
    # ‖x - α p‖² - ‖x - α y‖² = α (y - p)·(2x - α y - α p): however far x lies, nothing is lost.
    terms = over_rows(lambda y: _sums((y - pivot) * ((x - c.alpha * y) + (x - c.alpha * pivot))))
    closer, size = (np.concatenate(v) for v in zip(*terms, strict=True))
    score = np.log(prior) - np.log(prior[near]) + c.alpha * closer / (2 * c.sigma**2)
    peak, score = peak + score.max(), score - score.max()
    unnormalised = np.exp(score)
    gamma = unnormalised / unnormalised.sum()
    # Far samples have weight 0 to the last digit; the rest is few late in time.
    alive = np.flatnonzero(gamma > 0)
    data, gamma_alive = data[alive], gamma[alive]
    weights = iter(np.split(gamma_alive, range(max(1, CHUNK // d), len(alive), max(1, CHUNK // d))))
    # The mean as best + Σ γ (y - best): the subtraction is exact where rows are close.
    best = data[np.argmax(gamma_alive)].astype(np.float64)
    mean = best + np.sum(over_rows(lambda y: next(weights) @ (y - best)), axis=0)
    variance = gamma_alive @ np.concatenate(over_rows(lambda y: np.square(y - mean).sum(1)))
    # u = α' E[y] + σ' (x - α E[y]) / σ; the conditional ones alike, for each y.
    u = c.alpha_dot * mean + c.sigma_dot * (x - c.alpha * mean) / c.sigma
    entropy = -(gamma_alive @ (score[alive] - np.log(unnormalised.sum()))) if len(alive) > 1 else 0.0
    # With counts, a sample's weight is that of all its copies together, and so is the entropy.
    return {
        "velocity": u,
        "denoised": mean,
        "log_density": peak + np.log(unnormalised.sum()) - np.log(prior.sum()) - d / 2 * np.log(2 * np.pi * c.sigma**2),
        "top1_weight": gamma.max(),
        "top1_index": index[np.argmax(gamma)],
        "runner_up": gamma_alive[(data != data[np.argmax(gamma_alive)]).any(axis=1)].max(initial=0.0),
        "entropy": entropy,
        "effective_samples": 1 / np.square(gamma).sum(),
        "variance": variance,
        "cfm_gap": c.A**2 * variance,
        "divergence": c.A * c.alpha / c.sigma**2 * variance + d * c.B,
        "conditional_square": u @ u + c.A**2 * variance,
        "doubt": 2.0**-52 * c.alpha / (2 * c.sigma**2) * size[gamma > 1e-9].max(),
    }
