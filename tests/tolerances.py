"""The promised tolerances of an oracle's outputs: each error in units of what is allowed, query by query."""

from typing import Any

import numpy as np

from tests import float64_oracle as exact

LARGEST, SMALLEST = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)


def errors(
    out: Any, wanted: exact.Exact, x: np.ndarray, t: np.ndarray | float, name: str = exact.RECTIFIED, size: float = 0.0
) -> dict[str, np.ndarray]:
    """Error over allowed error, `[B]` for each output; at most 1 is promised. Infinite where a finite number was promised and is not there.

    Args:
      out: an `OracleOutput` of `B` queries.
      wanted: the same in float64.
      x, t, name: the queries, their times and the path.
      size: largest norm of a sample, of which float64 keeps 2⁻⁴⁴ or better.
    """
    got = {key: np.asarray(value, np.float64) for key, value in vars(out).items() if value is not None}
    A = np.array([exact.coefficients(name, v).A for v in np.broadcast_to(t, len(wanted.entropy))])
    # Below a thousandth of the noise, or below what the rounding of x to float32 moves the velocity, relative errors say nothing.
    rounding = A * np.maximum(2.0**-24 * norms(x), 2.0**-44 * size)
    scale = wanted.conditional_square + rounding**2 + 1e-6 * np.asarray(x)[0].size
    noise = 1e-2 * np.asarray(x)[0].size ** 0.5
    velocity = np.max([norms(wanted.velocity), 1e-4 * np.sqrt(scale), 0.1 * rounding, np.full(len(A), noise)], axis=0)
    doubt = 8 * wanted.doubt
    allowed = {
        "velocity": 1e-5 * velocity + doubt * A * np.sqrt(wanted.variance),
        "log_density": 1e-4 * np.maximum(np.abs(wanted.log_density), 1),
        "entropy": 1e-4 + doubt * (1 + wanted.entropy),
        "top1_weight": 1e-4 + doubt,
        "effective_samples": (2e-4 + doubt) * wanted.effective_samples,
        "cfm_gap": np.maximum((1e-4 + doubt) * wanted.cfm_gap, 1e-6 * scale),
        "variance": np.maximum((1e-4 + doubt) * wanted.variance, 1e-6 * scale / A**2),
    }
    found = {}
    for key, limit in allowed.items():
        of_float32 = np.clip(getattr(wanted, key), -LARGEST, LARGEST)  # a result beyond float32 is infinite, and tiny ones are 0
        difference = norms(np.clip(got[key], -LARGEST, LARGEST) - of_float32)
        found[key] = np.where(np.isnan(difference), np.inf, difference / np.maximum(limit, SMALLEST))
    clear = wanted.top1_weight - wanted.runner_up > 1e-4 + doubt
    wrong = clear & (got["top1_index"] != wanted.top1_index)
    return found | {"top1_index": np.where(wrong, np.inf, 0.0)}


def norms(v: Any) -> np.ndarray:
    """Euclidean norm of each row."""
    rows = np.asarray(v, np.float64).reshape(len(v), -1)
    size = np.abs(rows).max(axis=1, initial=0)
    safe = np.where((size > 0) & np.isfinite(size), size, 1)
    return size * np.linalg.norm(rows / safe[:, None], axis=1)
