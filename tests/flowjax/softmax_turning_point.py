"""The turning point by its definition, in float64 NumPy: what predictions and measurements are held to."""

import numpy as np

from flowjax.path import Cosine, Path, RectifiedFlow, VariancePreserving

PATHS = [RectifiedFlow(), Cosine(), VariancePreserving()]


def softmax_turning_point(data: np.ndarray, labels: np.ndarray | None = None, path: Path | None = None, num_queries: int = 512) -> float:
    """The definition, in float64: mean of max softmax over explicit differences of distinct rows, bisected in t."""
    path = path or RectifiedFlow()
    rows = np.asarray(data, np.float64).reshape(len(data), -1)
    rng = np.random.default_rng(77)
    cases = []
    for _ in range(num_queries):
        own = rng.integers(len(rows))
        group = rows if labels is None else rows[labels == labels[own]]
        difference = group - rows[own]
        cases.append((difference @ rng.standard_normal(rows.shape[1]), (difference**2).sum(1)))

    def weight(t: float) -> float:
        ratio = float(path.alpha(t)) / float(path.sigma(t))
        tops = []
        for along, gap in cases:
            logits = ratio * along - ratio**2 * gap / 2
            tops.append(1 / np.exp(logits - logits.max()).sum())
        return float(np.mean(tops))

    low, high = 0.0, 0.9999
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if weight(middle) < 0.5 else (low, middle)
    return (low + high) / 2


def gaussians(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
