"""Compiled loops of `small_pass`. As `numba_kernels`, one thread a call.

Arrays of scores are `[queries, samples]`, float64. Rows are samples less the centre, norms their squared lengths.
"""

from typing import Any, NamedTuple

import numpy as np

from kernels.posterior.cpu import numba_kernels
from kernels.posterior.cpu.numba_kernels import compiled

LANES = 32
"""Numbers of a row that `largest` compares side by side."""


class SmallSums(NamedTuple):
    """What `small_weigh` finds of each query, `[B]`, with weights w = exp(score - peak)."""

    peak: Any
    """The highest score."""
    total: Any
    """Σ w."""
    square: Any
    """Σ w²."""
    score: Any
    """Σ w (score - peak)."""
    norm: Any
    """Σ w ‖y - c‖²."""
    top: Any
    """The caller's index of the heaviest sample; of equals the lowest."""


# Long: the scores of a query stay in a first cache from one of its loops to the next.
@compiled
def small_weigh(products, queries, samples, weights, found):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Products of directions and rows become weights.

    Args:
      products: `[B, n]`, float32 or float64.
      queries: their directions (α/σ²)(x - α c), α, σ, and the rounding error of their scores.
      samples: rows, norms, log prior and the caller's index of each.
      weights: `[B, n]` float32, the result; those below 1e-17 of the peak's are 0.
      found: `SmallSums`, the result.

    Returns:
      How many weights are not 0.
    """
    direction, alpha, sigma, rounding = queries
    rows, norms, prior, index = samples
    b, n = products.shape
    count, score, z, bits, lanes = 0, np.empty(n), np.empty(n, np.float32), np.empty(n, np.int32), np.empty(LANES)
    two_to = bits.view(np.float32)
    for q in range(b):
        product, weight, curvature = products[q], weights[q], alpha[q] ** 2 / (2 * sigma[q] ** 2)
        for i in range(n):
            score[i] = product[i] - curvature * norms[i] + prior[i]
        peak = largest(score, lanes)
        near, close, lowest = peak - 2 * rounding[q], np.int64(0), np.int32(2147483647)
        for i in range(n):
            close += np.int64(score[i] >= near)
            lowest = min(lowest, index[i]) if score[i] >= near else lowest
        if close > 1 and alpha[q] > 0:
            # Equal samples must have equal scores: by differences, each sample by itself.
            back, best = sigma[q] ** 2 / alpha[q], -np.inf
            for i in range(n):
                if score[i] >= near:
                    away, row = 0.0, rows[i]
                    for k in range(row.shape[0]):
                        gap = direction[q, k] * back - alpha[q] * row[k]
                        away += gap * gap
                    value = prior[i] - away / (2 * sigma[q] ** 2)
                    if value > best or (value == best and index[i] < lowest):
                        best, lowest = value, index[i]
        for i in range(n):
            z[i] = np.float32(max(score[i] - peak, -87.0))
        numba_kernels.exponentials(z, weight, bits)
        kept = np.int32(0)
        for i in range(n):
            weight[i] = weight[i] * two_to[i] if z[i] > np.float32(-39) else np.float32(0)
            kept += np.int32(weight[i] > 0)
        total, square, logs, norm = 0.0, 0.0, 0.0, 0.0
        for i in range(n):
            w = np.float64(weight[i])
            total += w
            square += w * w
            logs += w * z[i]
            norm += w * norms[i]
        found.peak[q], found.total[q], found.square[q], found.score[q], found.norm[q] = peak, total, square, logs, norm
        found.top[q] = lowest
        count += int(kept)
    return count


@compiled
def largest(values, lanes):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The largest of a row, by `LANES` of them: LLVM makes one comparison at a time of a maximum alone, eight times as slow."""
    n, k = values.shape[0], lanes.shape[0]
    lanes[:] = -np.inf
    for first in range(0, n - k + 1, k):
        some = values[first : first + k]
        for i in range(k):
            lanes[i] = some[i] if some[i] > lanes[i] else lanes[i]
    top = -np.inf
    for i in range(k):
        top = max(top, lanes[i])
    for i in range(n - n % k, n):
        top = max(top, values[i])
    return top


@compiled
def small_means(weights, rows, into):  # type: ignore[no-untyped-def]  # pragma: no cover
    """`into` `[B, D]` becomes weights times rows, where most weights are 0."""
    n = rows.shape[0]
    for q in range(weights.shape[0]):
        weight, mean = weights[q], into[q]
        mean[:] = 0
        for first in range(0, n, 32):
            last, some = min(first + 32, n), np.float32(0)
            for i in range(first, last):
                some += weight[i]
            if some > 0:
                for i in range(first, last):
                    if weight[i] > 0:
                        w, row = np.float64(weight[i]), rows[i]
                        for k in range(row.shape[0]):
                            mean[k] += w * row[k]


@compiled
def small_finish(queries, center, mean, found, limits, result):  # type: ignore[no-untyped-def]  # pragma: no cover
    """From the sums to the moments.

    Args:
      queries: x, σ, κ, A, ‖x - α c‖², and the rounding error of their scores.
      center: c.
      mean: `[B, D]`, Σ w (y - c), float32 or float64.
      found: `SmallSums`.
      limits: what the log-density has beside the weights and σ; the largest error of a score; the relative error allowed to a velocity;
        the error of the mean; the least variance, and its float64 rounding error, as shares of the mean square distance from the centre.
      result: means, velocities, log-density, top-1 weight, entropy, effective samples, variance, and which queries are answered.
    """
    x, sigma, kappa, rate, squares, rounding = queries
    constant, most, allowed, lost, least, cancelled = limits
    denoised, velocity, density, top1, entropy, effective, variance, answered = result
    d = center.shape[0]
    for q in range(x.shape[0]):
        total, apart, moving = found.total[q], 0.0, 0.0
        inverse, point, to_mean, to_velocity, own = 1 / total, x[q], denoised[q], velocity[q], mean[q]
        for k in range(d):
            step = own[k] * inverse
            value = center[k] + step
            toward = value - kappa[q] * np.float64(point[k])
            apart += step * step
            moving += toward * toward
            to_mean[k] = value
            to_velocity[k] = rate[q] * toward
        spread = max(found.norm[q] * inverse - apart, 0.0)
        half = 2 * sigma[q] ** 2
        density[q] = np.log(total) + found.peak[q] - squares[q] / half - d / 2 * np.log(np.pi * half) + constant
        top1[q] = inverse
        entropy[q] = max(np.log(total) - found.score[q] * inverse, 0.0)
        effective[q] = total * total / found.square[q]
        variance[q] = spread
        slip = (rounding[q] + 2e-7) * np.sqrt(spread) + lost  # 2e-7: of the weights
        wide = spread >= least * found.norm[q] * inverse and cancelled * found.norm[q] * inverse <= 1e-6 * (moving + spread)
        answered[q] = rounding[q] <= most and slip <= allowed * np.sqrt(moving) and wide
