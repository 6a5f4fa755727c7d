"""What is done sample by sample, and not by matrix products: compiled by numba, for the CPU. Each call does some queries, on one thread."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

FAST = {"reassoc", "contract", "nsz", "nnan"}
RUN = 256
FIRST = 8
"""So many promising samples, each the best of a run, are weighed first: what the others are measured by."""


def _compiled(f: Callable[..., Any]) -> Any:
    return njit(nogil=True, cache=True, fastmath=FAST)(inspect.unwrap(f))  # unwrapped: tests put type checks around every function


@_compiled
def _square_distance(x, alpha, y):  # type: ignore[no-untyped-def]  # pragma: no cover
    total = 0.0
    for i in range(x.shape[0]):
        gap = x[i] - alpha * np.float64(y[i])
        total += gap * gap
    return total


@_compiled
def _run_maxima(scores, lanes, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The maximum of each run. In lanes: that is what becomes vector instructions."""
    n, wide = scores.shape[0], lanes.shape[0]
    for r in range(out.shape[0]):
        run = scores[r * RUN : min(n, (r + 1) * RUN)]
        whole = run.shape[0] // wide * wide
        best = run[0]
        if whole:
            for k in range(wide):
                lanes[k] = run[k]
            for i in range(wide, whole, wide):
                for k in range(wide):
                    lanes[k] = run[i + k] if run[i + k] > lanes[k] else lanes[k]
            for k in range(wide):
                best = max(best, lanes[k])
        for i in range(whole, run.shape[0]):
            best = max(best, run[i])
        out[r] = best


@_compiled
def _add_away(mean, weight, y, base):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Add weight (y - base) to mean; ‖y - base‖²."""
    away = 0.0
    for i in range(y.shape[0]):
        gap = np.float64(y[i]) - base[i]
        mean[i] += weight * gap
        away += gap * gap
    return away


@_compiled
def _count(run, least):  # type: ignore[no-untyped-def]  # pragma: no cover
    """How many are at least that."""
    total = np.int32(0)
    for i in range(run.shape[0]):
        total += np.int32(run[i] >= least)
    return total


@_compiled
def moments(  # type: ignore[no-untyped-def]  # pragma: no cover
    scores, rows, prior, index, offset, x, alpha, sigma, still, half_norm, slack, radius, share, limit, first, last,
    mean, out, top, stood,
):  # fmt: skip
    """Moments of queries `first` to `last`, float64, from upper bounds of the scores.

    Args:
      scores: `[B, n]`, bounds in units of x·y, of the samples `offset` to `offset + n`.
      rows, prior, index: of all samples; `prior` is empty for none.
      half_norm, slack: `[B]`, ‖x/α - center‖²/2, and what rounding may have taken from a score.
      share: of a query's weight that may be left out; at least what rounding hides is, anyway.
      limit: samples of a query beyond which it is given up, for a dense pass.
      mean, out, top, stood: results: `[B, D]`; `[B, 6]` log Σ w, top-1 weight, variance, effective samples, entropy, share left out;
        `[B]` the heaviest sample; `[B]` how many samples were weighed, or minus how many would have to be.
    """
    n, d = scores.shape[1], x.shape[1]
    maxima, lanes = np.empty((n + RUN - 1) // RUN, np.float32), np.empty(32, np.float32)
    for q in range(first, last):
        rate = alpha[q] ** 2 / sigma[q] ** 2
        two_variances = 2 * sigma[q] ** 2
        _run_maxima(scores[q], lanes, maxima)
        order = np.argsort(-maxima)
        peak, nearest = -np.inf, offset
        for r in order[:FIRST]:
            at = r * RUN
            while scores[q, at] < maxima[r]:
                at += 1
            value = -_square_distance(x[q], alpha[q], rows[offset + at]) / two_variances
            if prior.shape[0]:
                value += prior[offset + at]
            if value > peak:
                peak, nearest = value, offset + at
        square, moving = 0.0, 0.0
        for i in range(d):
            y = np.float64(rows[nearest, i])
            square += (x[q, i] - alpha[q] * y) ** 2
            moving += (y - still[q] * x[q, i]) ** 2
        width = 4 * radius**2 / max(min(moving, square), 1e-60)
        cut = math.log(n / max(1e-7 / max(1.0, width), share))
        least = _least(peak, cut, rate, half_norm[q], slack[q])
        standing = 0
        for r in order:
            if maxima[r] < least:
                break
            standing += _count(scores[q, r * RUN : min(n, (r + 1) * RUN)], least)
        if standing > limit:
            stood[q] = -standing
            continue
        # One pass over those that stand, as the weights come: what has been summed is scaled down when a heavier one is found.
        base = rows[nearest].astype(np.float64)
        total, square_sum, score_sum, second, missing = 0.0, 0.0, 0.0, 0.0, 0.0
        heaviest, count = -1, 0
        mean[q] = 0.0
        for r in order:
            if maxima[r] < least:
                break
            for i in range(r * RUN, min(n, (r + 1) * RUN)):
                if scores[q, i] < least:
                    continue
                j = offset + i
                value = -_square_distance(x[q], alpha[q], rows[j]) / two_variances
                if prior.shape[0]:
                    value += prior[j]
                count += 1
                if value > peak:
                    fall = peak - value
                    scale = math.exp(fall)
                    score_sum = scale * (score_sum + fall * total)
                    total, second, missing, square_sum = scale * total, scale * second, scale * missing, scale * scale * square_sum
                    mean[q] *= scale
                    peak, heaviest = value, j
                    least = _least(peak, cut, rate, half_norm[q], slack[q])
                elif value == peak and (heaviest < 0 or index[j] < index[heaviest]):
                    heaviest = j
                z = value - peak
                w = math.exp(z)
                total += w
                square_sum += w * w
                score_sum += w * z
                if z < -cut:
                    missing += w
                else:
                    second += w * _add_away(mean[q], w, rows[j], base)
        missing += (n - count) * math.exp(-cut)
        off = 0.0
        for i in range(d):
            mean[q, i] /= total
            off += mean[q, i] ** 2
            mean[q, i] += base[i]
        out[q, 0] = peak + math.log(total)
        out[q, 1] = 1 / total
        out[q, 2] = max(second / total - off, 0.0)
        out[q, 3] = total * total / square_sum
        out[q, 4] = max(math.log(total) - score_sum / total, 0.0)
        out[q, 5] = missing / total
        top[q] = index[heaviest]
        stood[q] = count


@_compiled
def _least(peak, cut, rate, half_norm, slack):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The bound below which a sample weighs less than exp(-cut) of the peak, rounded down."""
    least = (peak - cut) / rate + half_norm - slack
    return np.float32(least - 1.2e-7 * abs(least))
