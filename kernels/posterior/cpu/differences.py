"""The mean of the posterior from differences in float64, sample by sample: for the few queries that no other pass of the host answers."""

import numpy as np
from jaxtyping import Float

from kernels.posterior.cpu.host_samples import HostSamples
from kernels.posterior.types import Queries

BLOCK_NUMBERS = 2**20
"""Numbers in a block of differences: 8 MB."""


def mean_from_differences(samples: HostSamples, queries: Queries, row: int) -> Float[np.ndarray, " D"]:
    """E[y | x] of one query with σ > 0, float64. Slow: four passes over its samples, without matrix products.

    With p the sample nearest to x / α, a sample's log weight relative to p's is `α (y - p)·(2x - α y - α p) / 2σ²` and its log prior's
    difference: exact however near to each other samples lie, and however far x.
    """
    part = samples.part(int(queries.label[row]))
    x, alpha, sigma = queries.x[row].astype(np.float64), float(queries.alpha[row]), float(queries.sigma[row])
    size = max(1, BLOCK_NUMBERS // samples.d)
    blocks = [slice(start, min(start + size, part.stop)) for start in range(part.start, part.stop, size)]

    def rows(block: slice) -> np.ndarray:
        return samples.rows[block].astype(np.float64)

    prior = samples.log_prior[part]
    square = np.concatenate([np.sum((x - alpha * rows(block)) ** 2, axis=1) for block in blocks])
    pivot = samples.rows[part.start + int(np.argmax(prior - square / (2 * sigma**2)))].astype(np.float64)
    nearer = np.concatenate([np.einsum("nd,nd->n", y - pivot, 2 * x - alpha * (y + pivot)) for y in map(rows, blocks)])
    scores = prior + alpha * nearer / (2 * sigma**2)
    weights = np.exp(scores - scores.max())
    weights /= weights.sum()
    moved = sum(weights[b.start - part.start : b.stop - part.start] @ (rows(b) - pivot) for b in blocks)
    return pivot + moved
