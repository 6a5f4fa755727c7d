"""The two matrix products of a dense pass, each by what is quickest and still exact enough for its size."""

import numpy as np
from jaxtyping import Float

from kernels.posterior.cpu import few_kernels
from kernels.posterior.cpu.tuning import TUNING


def scores_of(rows: Float[np.ndarray, "n D"], directions: Float[np.ndarray, "B D"], scores: Float[np.ndarray, "n B"]) -> None:
    """`scores` = rows directionsᵀ, float32."""
    if len(directions) <= TUNING.few_queries:
        few_kernels.few_scores(rows, directions, scores)
    else:
        np.matmul(rows, directions.T, out=scores)


def weighted_sums(
    weights: Float[np.ndarray, "n B"], rows: Float[np.ndarray, "n D"], begin: int, end: int, sums: Float[np.ndarray, "B D"]
) -> None:
    """Columns `begin` to `end` of `sums` = weightsᵀ rows, float32: right to some units in the last place, however many the rows are.

    A large product of a library's adds up some hundreds of rows at a time. A small one adds up all rows one by one, so that its error grows
    with √n: it is computed in float64.
    """
    n, b = weights.shape
    if b <= TUNING.few_queries:
        few_kernels.few_sums(weights, rows, begin, end, sums)
    elif n * b * (end - begin) <= TUNING.one_by_one:
        sums[:, begin:end] = weights.T.astype(np.float64) @ rows[:, begin:end].astype(np.float64)
    else:
        np.matmul(weights.T, rows[:, begin:end], out=sums[:, begin:end])
