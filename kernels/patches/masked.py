"""Posteriors over samples for each number of a query, each over numbers of its own: two matrix products for all of them."""

import numpy as np
from jaxtyping import Bool, Float

BLOCK_NUMBERS = 2**22
"""Scores that are held at once: 32 MB in float64, so that the products are large and the softmax stays near a cache."""


def masked_means(
    samples: Float[np.ndarray, "N D"],
    x: Float[np.ndarray, "B D"],
    alpha: float,
    sigma: float,
    mask: Bool[np.ndarray, "D D"],
) -> Float[np.ndarray, "B D"]:
    """For each number i of a query: Σ_n γ_n y_ni, γ = softmax_n(-Σ_j M_ij (x_j - α y_nj)² / 2σ²).

    With the square expanded, the scores of all i are `(α/σ²) (M ∘ x) Yᵀ - (α²/2σ²) M (Y²)ᵀ`, [D, N], in float64.
    """
    size = max(1, BLOCK_NUMBERS // samples.shape[1])
    weights = mask.astype(np.float64)
    center = samples.mean(axis=0, dtype=np.float64)
    highest = np.full(x.shape, -np.inf)
    total, found = np.zeros(x.shape), np.zeros(x.shape)
    for start in range(0, len(samples), size):
        y = samples[start : start + size].astype(np.float64) - center
        norms = (alpha**2 / (2 * sigma**2)) * weights @ (y**2).T
        for b in range(len(x)):
            scores = (weights * ((alpha / sigma**2) * (x[b].astype(np.float64) - alpha * center))) @ y.T
            scores -= norms
            top = np.maximum(highest[b], scores.max(axis=1))
            scale = np.exp(highest[b] - top)
            scores -= top[:, None]
            np.exp(scores, out=scores)
            total[b] = scale * total[b] + scores.sum(axis=1)
            found[b] = scale * found[b] + np.einsum("dn,nd->d", scores, y)
            highest[b] = top
    return center + found / total
