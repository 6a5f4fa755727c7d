"""Data on which a float32 oracle goes wrong, queries of them, and the promised tolerances.

One shape for all, 300 samples of 8x8 and 42 queries, and with it few programs to compile.
"""

from typing import Any

import numpy as np

from flowjax.oracle import OracleOutput
from flowjax.path import Cosine, RectifiedFlow, VariancePreserving
from tests import float64_oracle as exact

PATHS = {exact.RECTIFIED: RectifiedFlow(), exact.COSINE: Cosine(), exact.VP: VariancePreserving()}
TIMES = np.array([0.001, 0.01, 0.05, *np.arange(1, 10) / 10, 0.99, 0.999], np.float32)
T = np.repeat(TIMES, 3)
B, N, SHAPE, CLASSES = len(T), 300, (8, 8), 4
LABELS = (np.arange(N) * 7 % CLASSES).astype(np.int32)


def scatter(data: np.ndarray, size: int, scale: float, seed: int = 0) -> np.ndarray:
    """Copies of the first sample, moved by noise: a cluster of `size`, in place of as many samples."""
    moved = data.copy()
    moved[:size] = data[0] + scale * np.random.default_rng(seed).standard_normal(moved[:size].shape)
    return moved.astype(np.float32)


def data_sets() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    gauss = rng.standard_normal((N, *SHAPE)).astype(np.float32)
    grey = rng.uniform(0, 255, (N, *SHAPE)).round().astype(np.float32)
    triples = np.repeat(gauss[:100], 3, axis=0)
    triples = (triples + 1e-4 / 8 * (np.arange(N) % 3)[:, None, None] * rng.choice([-1, 1], triples.shape)).astype(np.float32)
    scales = np.concatenate([scatter(gauss[50 * k : 50 * k + 50], 50, 10.0 ** (k - 6), k) for k in range(6)])
    copies = gauss.copy()
    copies[100:160] = copies[100]
    return {
        "gaussians": gauss,
        "near-duplicates": triples,
        "heavy cluster": scatter(gauss, 70, 1e-4),
        "clusters of six scales": scales,
        "sixty exact copies": copies,
        "grey levels": grey,
        "sparse grey levels": (grey * (rng.uniform(size=grey.shape) < 0.3)).astype(np.float32),
        "small numbers": gauss * np.float32(1e-3),
        "large numbers": gauss * np.float32(1e4),
        "samples of many scales": (gauss * np.exp(rng.uniform(-6, 6, (N, 1, 1)))).astype(np.float32),
        "an outlier": np.concatenate([1000 * gauss[:1], gauss[1:]]),
        "pixels of many scales": (gauss * 10 ** np.linspace(-3, 3, 64).reshape(SHAPE)).astype(np.float32),
        "shifted by 50": gauss + np.float32(50),
        "near-duplicates shifted by 50": triples + np.float32(50),
        "shifted by 10,000": gauss + np.float32(1e4),
    }


SETS = data_sets()


def on_path(data: np.ndarray, name: str, t: np.ndarray = T, own: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """x_t of training samples: α y + σ noise, rounded to float32."""
    rng = np.random.default_rng(seed)
    own = rng.integers(len(data), size=len(t)) if own is None else own
    c = [exact.coefficients(name, v) for v in t]
    y = data[own].astype(np.float64).reshape(len(t), -1)
    x = np.array([v.alpha for v in c])[:, None] * y + np.array([v.sigma for v in c])[:, None] * rng.standard_normal(y.shape)
    return x.astype(np.float32).reshape(len(t), *data.shape[1:])


def off_path(data: np.ndarray, name: str) -> np.ndarray:
    """What no noising gives: midpoints of two samples, zero, ten times too far, pure noise a hundred times too large."""
    rng = np.random.default_rng(7)
    alpha = [np.float32(exact.coefficients(name, v).alpha) for v in T]
    own = rng.integers(N, size=B)
    a, b = data[own].astype(np.float32), data[(own + 150) % N].astype(np.float32)  # never two copies of one
    far = rng.standard_normal(a.shape).astype(np.float32) * 100 * np.abs(data).max()
    usual = on_path(data, name)
    return np.stack(
        [[(a[i] + b[i]) / 2, alpha[i] * (a[i] + b[i]) / 2, 0 * a[i], 10 * usual[i], far[i]][(i + i // 3) % 5] for i in range(B)]
    )


def check(out: OracleOutput, wanted: exact.Exact, t: np.ndarray = T, name: str = exact.RECTIFIED) -> None:
    """The promised tolerances, query by query."""

    def norms(v: Any) -> np.ndarray:
        return np.linalg.norm(np.asarray(v, np.float64).reshape(len(v), -1), axis=1)

    got = {key: np.asarray(value, np.float64) for key, value in vars(out).items()}
    A = np.array([exact.coefficients(name, v).A for v in np.broadcast_to(t, len(wanted.entropy))])
    allowed_gap = np.maximum(1e-4 * wanted.cfm_gap, 1e-6 * wanted.conditional_square)
    errors = {
        "velocity": norms(got["velocity"] - wanted.velocity) / (1e-5 * norms(wanted.velocity)),
        "log_density": np.abs(got["log_density"] - wanted.log_density) / (1e-4 * np.abs(wanted.log_density)),
        "entropy": np.abs(got["entropy"] - wanted.entropy) / 1e-4,
        "top1_weight": np.abs(got["top1_weight"] - wanted.top1_weight) / 1e-4,
        "effective_samples": np.abs(got["effective_samples"] / wanted.effective_samples - 1) / 2e-4,
        "cfm_gap": np.abs(got["cfm_gap"] - wanted.cfm_gap) / allowed_gap,
        "variance": np.abs(got["variance"] - wanted.variance) / np.maximum(1e-4 * wanted.variance, 1e-6 * wanted.conditional_square / A**2),
    }
    for key, error in errors.items():
        worst = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
        assert error[worst] <= 1, (
            f"{key}: {error[worst]:.3g} times the tolerance, query {worst}, t = {np.broadcast_to(t, len(error))[worst]}"
        )
    clear = wanted.top1_weight - wanted.runner_up > 1e-4
    np.testing.assert_array_equal(out.top1_index[clear], wanted.top1_index[clear])
    np.testing.assert_array_equal(out.error_bound, 0)
    assert (got["variance"] >= 0).all()
