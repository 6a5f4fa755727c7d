"""The spectrum of a data set's covariance, computed so that neither N nor D needs to be small."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Num
from numpy.typing import ArrayLike

BLOCK_BYTES = 2**26  # of float64 per block: large enough for BLAS, small beside the data
FLOAT32_FROM = 2**11
"""The smallest min(N, D) at which the products of a block are float32, at half the time, where eigenvalues alone are asked for. What
rounding adds to an eigenvalue is then below 1e-5 of their mean: it moves the sum of log(1 + ρ²λ) by less than a thousandth of a nat."""


def as_rows(data: ArrayLike) -> np.ndarray:
    """Data `[N, *shape]` as `[N, D]`: floating data in float32, as the oracle sees it; integers as they are."""
    samples = np.asarray(data)
    if samples.ndim < 2 or not samples.size:
        raise ValueError(f"data has shape {samples.shape}: expected [N, *shape] with at least one sample and one dimension")
    if not np.can_cast(samples.dtype, np.float32, casting="same_kind"):
        raise ValueError(f"data has dtype {samples.dtype}: expected real numbers")
    rows = samples.reshape(len(samples), -1)
    if np.issubdtype(rows.dtype, np.integer) or rows.dtype == bool:
        return rows
    rows = rows.astype(np.float32, copy=False)
    if not np.isfinite(rows.sum(dtype=np.float64)):  # one pass and no mask; a float64 sum of finite float32 cannot overflow
        raise ValueError(f"data has a value that is not finite, first in sample {int(np.argmin(np.isfinite(rows).all(1)))}")
    return rows


def covariance_spectrum(data: ArrayLike, *, max_exact: int = 8192, seed: int = 0) -> Float[np.ndarray, " K"]:
    """Eigenvalues of the sample covariance `Σ_i (y_i - ȳ)(y_i - ȳ)ᵀ / (N - 1)`.

    From the D x D covariance where D < N, from the N x N Gram matrix otherwise (the same eigenvalues but for zeros), accumulated in
    float64 by blocks, whose products are float32 from min(N, D) = 2,048 on. Where both N and D exceed `max_exact`, from the Gram matrix
    of `max_exact // 2` samples drawn at random.

    That is enough for the use made of it: at condensation `½ Σ log(1 + ρ²λ) = log N`, so that few directions have ρ²λ > 1, and
    the others enter by the trace, which n samples estimate without bias; their spread of the eigenvalues (Σλ² grows by
    (Σλ)²/n) moves the criterion by about (log N)²/n of its log N nats: 0.05 of 14 at n = 4,096, N = 1,000,000.

    Args:
      data: `[N, *shape]`, real.
      max_exact: the largest matrix that is diagonalised for an exact answer.
      seed: of the draw of samples.

    Returns:
      `[K]` float64, in descending order, each >= 0, in the data's unit squared; K = D or one less than the samples used, whichever is
      smaller. N = 1: empty.

    Raises:
      ValueError: data is not `[N, *shape]`, not real or not finite; max_exact is below 4.

    Examples:
      >>> covariance_spectrum(np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0], [2.0, 4.0]])).round(3).tolist()
      [5.333, 1.333]
    """
    if max_exact < 4:
        raise ValueError(f"max_exact = {max_exact}: expected at least 4")
    rows = as_rows(data)
    if min(rows.shape) > max_exact:
        rows = rows[np.random.default_rng(seed).choice(len(rows), max_exact // 2, replace=False)]
    n, dim = rows.shape
    if n == 1:
        return np.zeros(0)
    _, product = centred_product(rows, np.float32 if min(rows.shape) >= FLOAT32_FROM else np.float64)
    eigenvalues = np.linalg.eigvalsh(product)[::-1] / (n - 1)
    return np.maximum(eigenvalues[: min(dim, n - 1)], 0)


def centred_product(
    rows: Num[np.ndarray, "N D"], dtype: type[np.floating[Any]] = np.float64
) -> tuple[Float[np.ndarray, " D"], Float[np.ndarray, "M M"]]:
    """The mean ȳ, and with Z = Y - ȳ the smaller of ZᵀZ `[D, D]` and ZZᵀ `[N, N]` (the latter where N <= D), float64, by blocks.

    Args:
      dtype: of the product of each block.
    """
    n, dim = rows.shape
    mean = rows.mean(0, dtype=np.float64)
    size = min(n, dim)
    product = np.zeros((size, size))
    step = max(1, BLOCK_BYTES // (8 * size))
    for start in range(0, max(n, dim), step):
        if dim < n:
            block = (rows[start : start + step] - mean).astype(dtype, copy=False)
            product += block.T @ block
        else:
            block = (rows[:, start : start + step] - mean[start : start + step]).astype(dtype, copy=False)
            product += block @ block.T
    return mean, product


class PrincipalComponents(NamedTuple):
    """Mean, directions and variances of a data set."""

    mean: Float[np.ndarray, " D"]
    vectors: Float[np.ndarray, "D K"]
    """Orthonormal eigenvectors of the sample covariance, as columns."""
    values: Float[np.ndarray, " K"]
    """Its eigenvalues, in descending order; those of all other directions are 0."""


LARGEST_EIGENPROBLEM = 8192
"""The largest min(N, D) of which eigenvectors are made: a minute on two cores, and half a gigabyte."""


def principal_components(data: ArrayLike) -> PrincipalComponents:
    """Eigenvectors and eigenvalues of the sample covariance `Σ_i (y_i - ȳ)(y_i - ȳ)ᵀ / (N - 1)`, in float64.

    From the D x D covariance where D < N; else from the N x N Gram matrix, whose eigenvectors u give Zᵀu / ‖Zᵀu‖; then directions with less
    than 1e-10 of the largest variance are dropped, because rounding would have turned them.

    Args:
      data: `[N, *shape]`, real.

    Raises:
      ValueError: data is not `[N, *shape]`, not real or not finite; min(N, D) above 8,192.
    """
    rows = as_rows(data)
    n, dim = rows.shape
    if min(n, dim) > LARGEST_EIGENPROBLEM:
        raise ValueError(
            f"data has N = {n}, D = {dim}: eigenvectors need min(N, D) <= {LARGEST_EIGENPROBLEM}; give fewer samples, or latents"
        )
    mean, product = centred_product(rows)
    if n == 1:
        return PrincipalComponents(mean, np.zeros((dim, 0)), np.zeros(0))
    values, vectors = (part[..., ::-1] for part in np.linalg.eigh(product))
    values = np.maximum(values, 0) / (n - 1)
    if n <= dim:
        kept = int(np.sum(values > 1e-10 * values[0]))
        values, vectors = values[:kept], (rows - mean).T @ vectors[:, :kept] / np.sqrt((n - 1) * values[:kept])
    return PrincipalComponents(mean, np.ascontiguousarray(vectors), values)


def checked_eigenvalues(eigenvalues: ArrayLike) -> Float[np.ndarray, " K"]:
    """Eigenvalues as `[K]` float64; those below the rounding of the largest, negative ones included, are dropped."""
    values = np.asarray(eigenvalues, np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"eigenvalues has shape {values.shape}: expected one axis of finite numbers")
    largest = values.max(initial=0.0)
    if values.min(initial=0.0) < -1e-5 * largest:
        raise ValueError(f"eigenvalues has a minimum of {values.min():.3g}: expected a covariance's, all >= 0")
    return values[values > 1e-10 * largest]
