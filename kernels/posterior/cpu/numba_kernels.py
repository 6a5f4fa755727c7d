"""Loops over samples that are no matrix products, compiled by numba for the CPU. Each call runs on one thread, without the GIL.

Inner loops index a slice from 0: numba allows negative indices, and where LLVM cannot exclude them a loop is several times slower.

Scores are arrays `[samples, queries]`, so that inner loops over queries are vectorised.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from kernels.posterior.cpu.tuning import TUNING

FAST = {"reassoc", "contract", "nsz", "nnan"}
RUN, TOGETHER = TUNING.float32_rows, TUNING.rows_together

_WAITING: list[tuple[str, Callable[..., Any]]] = []


def compiled(f: Callable[..., Any]) -> Any:
    """Compiled by numba, which is imported when the first of these is called: it takes a quarter of a second and 60 MB."""
    own = inspect.unwrap(f)  # tests put type checks around every function
    _WAITING.append(("function", own))

    @functools.wraps(f)
    def first(*arguments: Any) -> Any:
        from numba import njit
        from numba.extending import intrinsic

        settings: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": FAST, "error_model": "numpy"}
        kinds = {"function": njit(**settings), "inlined": njit(inline="always", **settings), "intrinsic": intrinsic}
        for kind, each in _WAITING:  # all at once, for they call each other
            each.__globals__[each.__name__] = kinds[kind](each)
        _WAITING.clear()
        return own.__globals__[own.__name__](*arguments)

    return first


def inlined(f: Callable[..., Any]) -> Any:
    """A function whose text is put where compiled functions call it, as `numba_kernels.NAME`: a call costs a dense pass 20 to 40 %.

    numba keeps compiled code by the caller's file alone: where this function changes, a caller in another file must be touched too.
    """
    _WAITING.append(("inlined", inspect.unwrap(f)))
    return f


def intrinsic(f: Callable[..., Any]) -> Any:
    """A function that compiled functions call, written in LLVM instructions and compiled with them."""
    _WAITING.append(("intrinsic", inspect.unwrap(f)))
    return f


@compiled
def to_bytes(rows, origin, step, digits, lengths, left):  # type: ignore[no-untyped-def]  # pragma: no cover
    """`digits` of some rows, y = origin + step ∘ digits + remainder; bounds of the norms of the digits, and of the remainders."""
    for i in range(rows.shape[0]):
        length, lost = 0.0, 0.0
        for j in range(rows.shape[1]):
            away = np.float64(rows[i, j]) - origin[j]
            digit = min(max(np.floor(away / step[j] + 0.5), -128.0), 127.0)
            digits[i, j] = np.int8(digit)
            length += digit * digit
            lost += (away - step[j] * digit) ** 2
        lengths[i] = np.float32(np.sqrt(length) * 1.000001)
        left[i] = np.float32(np.sqrt(lost) * 1.000001)


@compiled
def to_bits(g, unit, most, bits, step, lost, length):  # type: ignore[no-untyped-def]  # pragma: no cover
    """`bits` of a norm of up to `most`, but for rounding: unit ∘ g = step bits + remainder; the norm of the remainder, and ‖g‖."""
    for q in range(g.shape[0]):
        largest, size, all_size, gone = 0.0, 0.0, 0.0, 0.0
        for i in range(g.shape[1]):
            value = g[q, i] * unit[i]
            largest = max(largest, abs(value))
            all_size += value * value
            size += g[q, i] * g[q, i]
        own = max(largest / 32767, np.sqrt(all_size) / most) if largest > 0 else 1.0
        for i in range(g.shape[1]):
            value = g[q, i] * unit[i]
            bit = np.floor(value / own + 0.5)
            bits[q, i] = np.int16(bit)
            gone += (value - own * bit) ** 2
        step[q], lost[q], length[q] = own, np.sqrt(gone) * 1.000001, np.sqrt(size) * 1.000001


@compiled
def square_distances(rows, center, first, last, into):  # type: ignore[no-untyped-def]  # pragma: no cover
    """‖y - c‖² of rows `first` to `last`, float64."""
    for i in range(first, last):
        row, total = rows[i], 0.0
        for k in range(center.shape[0]):
            gap = np.float64(row[k]) - center[k]
            total += gap * gap
        into[i] = total


@compiled
def directions(x, alpha, sigma, center, away, g, squares, offset):  # type: ignore[no-untyped-def]  # pragma: no cover
    """For each query `g` = (α/σ²)(x - α c) in the dtype of g, ‖x - α c‖², and as `offset` g·away."""
    for q in range(x.shape[0]):
        rate, total, along, own, into = alpha[q] / sigma[q] ** 2, 0.0, 0.0, x[q], g[q]
        for i in range(center.shape[0]):
            gap = np.float64(own[i]) - alpha[q] * center[i]
            into[i] = rate * gap
            total += gap * gap
            along += rate * gap * away[i]
        squares[q], offset[q] = total, along


@compiled
def around(first, last, queries, center, samples, rows, found):  # type: ignore[no-untyped-def]  # pragma: no cover
    """For one sample y of each query from `first` to `last`, as `found` `[3, B]`: ‖x - α y‖², ‖y - κ x‖², and the score without the prior,
    (α/σ²)(x - α c)·(y - c) - (α²/2σ²) ‖y - c‖²."""
    x, alpha, sigma, velocity_center = queries.x, queries.alpha, queries.sigma, queries.velocity_center
    for q in range(first, last):
        y, own, away, along, norm, near = samples[rows[q]], x[q], 0.0, 0.0, 0.0, 0.0
        for i in range(center.shape[0]):
            value, point = np.float64(y[i]), np.float64(own[i])
            gap = value - center[i]
            along += (point - alpha[q] * center[i]) * gap
            norm += gap * gap
            away += (value - velocity_center[q] * point) ** 2
            near += (point - alpha[q] * value) ** 2
        rate = alpha[q] / sigma[q] ** 2
        found[0, q], found[1, q], found[2, q] = near, away, rate * along - rate * alpha[q] / 2 * norm


class PairSums(NamedTuple):
    """Sums that `add_pairs` adds to, with weights w = exp(log weight - log weight of the pivot)."""

    mean: Any
    """`[B, D]` float64, Σ w (y - pivot) of pairs whose log weight is not sure; anything where it has not `begun`."""
    begun: Any
    """`[B]`, whether there are such pairs."""
    approximate: Any
    """`[B, D]` float32, Σ w y of pairs whose log weight is sure."""
    sums: Any
    """`[B, 7]` Σ w, Σ w², Σ w log w; of those from differences Σ w ‖y - pivot‖²; of the others Σ w and Σ w ‖y - c‖²; Σ w of those left
    out."""
    highest: Any
    """`[B]`, the highest log weight from differences, relative to the pivot's."""
    whose: Any
    """`[B]`, the sample of the highest log weight: of equals, the caller's lowest index."""


@compiled
def add_pairs(queries, samples, pivots, pairs, first, last, result):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Weigh pairs `first` to `last`, and add them to the moments of their queries.

    Args:
      queries: x, α and σ.
      samples: the rows, their ‖y - c‖², log prior and the caller's index.
      pivots: to whose log weights all are relative: their rows, and how far below them a sample is left out.
      pairs: row and query of each, its log weight relative to the pivot's, and whether that is sure: if not, it is computed from
        differences.
      result: `PairSums`, added to.
    """
    (x, alpha, sigma), (rows_of, norms, prior, index) = queries, samples
    (pivot, cut), (rows, asked, logs, sure) = pivots, pairs
    mean, begun, approximate, sums, highest, whose = result
    for pair in range(first, last):
        q, j = asked[pair], rows[pair]
        y, z, middle = rows_of[j], logs[pair], rows_of[pivot[q]]
        if not sure[pair]:
            z = prior[j] - prior[pivot[q]] + alpha[q] * _nearer(x[q], alpha[q], middle, y) / (2 * sigma[q] ** 2)
            if z > highest[q] or (z == highest[q] and index[j] < index[whose[q]]):
                highest[q], whose[q] = z, j
        w = np.exp(min(z, 600.0))
        sums[q, 0] += w
        sums[q, 1] += w * w
        sums[q, 2] += w * z
        if z < -cut[q]:
            sums[q, 6] += w
        elif sure[pair]:
            small, into = np.float32(w), approximate[q]
            for i in range(y.shape[0]):
                into[i] += small * np.float32(y[i])
            sums[q, 4] += w
            sums[q, 5] += w * norms[j]
        else:
            total, away = mean[q], 0.0
            if not begun[q]:
                begun[q] = True
                total[:] = 0
            for i in range(y.shape[0]):
                gap = np.float64(y[i]) - np.float64(middle[i])
                total[i] += w * gap
                away += gap * gap
            sums[q, 3] += w * away


@compiled
def _nearer(x, alpha, pivot, y):  # type: ignore[no-untyped-def]  # pragma: no cover
    """(‖x - α pivot‖² - ‖x - α y‖²) / α, as (y - pivot)·((x - α pivot) + (x - α y)): exact however far x lies, 0 for equal samples."""
    total = alpha - alpha
    for i in range(y.shape[0]):
        value, base = np.float64(y[i]), np.float64(pivot[i])
        total += (value - base) * (2 * np.float64(x[i]) - alpha * (base + value))
    return total


@compiled
def highest(scores, start, k, norms, prior, best, where):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Products `[n, B]` float32 of the samples from `start` on become scores, `- k norm + prior`; `best` of each query is raised to its
    highest, and `where` is that sample."""
    for i in range(scores.shape[0]):
        j = np.int32(start + i)
        norm, p, row = np.float32(norms[j]), np.float32(prior[j]), scores[i]
        for q in range(k.shape[0]):
            value = row[q] - k[q] * norm + p
            row[q] = value
            where[q] = j if value > best[q] else where[q]
            best[q] = max(best[q], value)


@inlined
def exponentials(z, part, bits):  # type: ignore[no-untyped-def]  # pragma: no cover
    """exp(z) = `part` times the float32 of these `bits`, for a row of float32 z from -87 to 60; others are taken for the nearer end.

    exp(z) = 2^whole 2^part, the latter by its Taylor polynomial: within 2e-7 of itself on [-1/2, 1/2].
    """
    for q in range(z.shape[0]):
        y = min(max(z[q], np.float32(-87)), np.float32(60)) * np.float32(1.4426950408889634)
        whole = np.floor(y + np.float32(0.5))
        x = (y - whole) * np.float32(0.6931471805599453)
        poly = np.float32(1 / 5040)
        poly = poly * x + np.float32(1 / 720)
        poly = poly * x + np.float32(1 / 120)
        poly = poly * x + np.float32(1 / 24)
        poly = poly * x + np.float32(1 / 6)
        poly = poly * x + np.float32(0.5)
        poly = poly * x + np.float32(1)
        part[q] = poly * x + np.float32(1)
        bits[q] = (np.int32(whole) + np.int32(127)) << np.int32(23)


# Long: numba makes one loop of it, whose weights stay in a first cache.
@compiled
def weigh(scores, first, start, norms, limits, sums, room, most):  # type: ignore[no-untyped-def]  # pragma: no cover  # one loop
    """Scores become weights, exp(score - peak), and are summed; those of candidates become 0, and the pairs are named.

    Args:
      scores: `[n, B]` float32, of the samples from `start` on; from row `first` on.
      limits: `[B]` float32 peak, and relative to it negligible and limit: a sample whose score is no more than negligible becomes 0, one
        above the limit is a candidate.
      sums: `[6, B]`, added to: Σ w, Σ w², Σ w (score - peak), Σ w norm of those that are neither, Σ w of all, Σ w of the negligible.
      room: rows and queries of the candidates, the result; and `[B]`, how many candidates each query has, added to: of those beyond `most`
        nothing is kept.

    Returns:
      Where to go on (short of n where there is no more room), how many candidates there are, and how many weights are not 0.
    """
    peak, negligible, limit = limits
    rows, queries, counts = room
    n, b = scores.shape
    count, at = 0, 0
    some, z, bits = np.zeros((6, b), np.float32), np.empty(b, np.float32), np.empty(b, np.int32)
    two_to = bits.view(np.float32)
    done = n
    for i in range(first, n):
        if at + b > rows.shape[0]:
            done = i
            break
        weight = scores[i]
        candidates = np.int32(0)
        for q in range(b):
            z[q] = weight[q] - peak[q]
        exponentials(z, weight, bits)
        for q in range(b):
            weight[q] = weight[q] * two_to[q] if z[q] > np.float32(-87) else np.float32(0)
            candidates += np.int32(z[q] > limit[q])
            some[4, q] += weight[q]
        if candidates:
            for q in range(b):
                if z[q] > limit[q]:
                    counts[q] += 1
                    weight[q] = 0
                    if counts[q] <= most:
                        rows[at], queries[at] = start + i, q
                        at += 1
        small, left = np.float32(norms[start + i]), np.int32(0)
        for q in range(b):
            left += np.int32(z[q] > negligible[q] and z[q] <= limit[q])
        count += int(left)
        for q in range(b):
            some[5, q] += weight[q] if z[q] <= negligible[q] else np.float32(0)
            weight[q] = weight[q] if z[q] > negligible[q] else np.float32(0)
            w = weight[q]
            some[0, q] += w
            some[1, q] += w * w
            some[2, q] += w * max(z[q], np.float32(-87))
            some[3, q] += w * small
        if (i - first) % RUN == RUN - 1 or i == n - 1:
            for s in range(6):
                for q in range(b):
                    sums[s, q] += some[s, q]
                    some[s, q] = 0
    for s in range(6):
        for q in range(b):
            sums[s, q] += some[s, q]
    return done, at, count


@compiled
def add_weights(scores, peak, total):  # type: ignore[no-untyped-def]  # pragma: no cover
    """`total` `[B]` += Σ exp(score - peak) over scores `[n, B]` float32."""
    n, b = scores.shape
    some, z, part, bits = np.zeros(b, np.float32), np.empty(b, np.float32), np.empty(b, np.float32), np.empty(b, np.int32)
    two_to = bits.view(np.float32)
    for i in range(n):
        row = scores[i]
        for q in range(b):
            z[q] = row[q] - peak[q]
        exponentials(z, part, bits)
        for q in range(b):
            some[q] += part[q] * two_to[q]
        if i % RUN == RUN - 1 or i == n - 1:
            for q in range(b):
                total[q] += some[q]
                some[q] = 0


@compiled
def add_rows(weights, rows, begin, end, into):  # type: ignore[no-untyped-def]  # pragma: no cover
    """`into` `[B, D]` float64 += weightsᵀ rows for queries `begin` to `end`, where most weights `[n, B]` are 0.

    In float32 a sum would lose the many samples that weigh less than its last place.
    """
    n, b = weights.shape
    chosen, count = np.empty((b, TOGETHER + 1), np.int32), np.empty(b, np.int64)
    for first in range(0, n, TOGETHER):
        # Some rows together, query by query, so that a core's first caches hold them.
        count[:] = 0
        for i in range(first, min(first + TOGETHER, n)):
            for q in range(begin, end):
                chosen[q, count[q]] = i
                count[q] += np.int64(weights[i, q] != 0)
        for q in range(begin, end):
            total, own = into[q], chosen[q]
            fours = count[q] // 4 * 4
            for p in range(0, fours, 4):
                w0, w1, w2, w3 = weights[own[p], q], weights[own[p + 1], q], weights[own[p + 2], q], weights[own[p + 3], q]
                y0, y1, y2, y3 = rows[own[p]], rows[own[p + 1]], rows[own[p + 2]], rows[own[p + 3]]
                for k in range(y0.shape[0]):
                    total[k] += (w0 * y0[k] + w1 * y1[k]) + (w2 * y2[k] + w3 * y3[k])
            for p in range(fours, count[q]):
                w, row = weights[own[p], q], rows[own[p]]
                for k in range(row.shape[0]):
                    total[k] += w * row[k]


@compiled
def add_scaled(total, scale, more):  # type: ignore[no-untyped-def]  # pragma: no cover
    """`total` `[B, D]` float64 times `scale` of each row, plus `more`."""
    for q in range(total.shape[0]):
        for i in range(total.shape[1]):
            total[q, i] = total[q, i] * scale[q] + more[q, i]


@compiled
def add_to(total, scale, part):  # type: ignore[no-untyped-def]  # pragma: no cover
    """`total` `[B, D]` float64 += `scale` of each row times `part`."""
    for q in range(total.shape[0]):
        into, more, by = total[q], part[q], scale[q]
        for i in range(into.shape[0]):
            into[i] += by * more[i]


@compiled
def finish(first, last, queries, frame, weights, sums, result):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The moments of queries `first` to `last`.

    Args:
      frame: the samples, the rows of the pivots p among them, the centre c and the shift.
      weights: log density but for log Σ w, and log weight of the heaviest sample relative to the pivot.
      sums: `[B, D]` Σ w (y - p) of the samples weighed from differences, and where there are any; `[B, D]` the others' Σ w (y - shift)
        but for a factor, and that factor; the sums of `PairSums`, with those of the others.
      result: `[B, D]` float32 means, and velocities; log density, top-1 weight, entropy, effective samples, variance, and weight left out
        as a share of the heaviest; `[2, B]` ‖mean - κ x‖ and ‖mean‖.
    """
    x, velocity_center, rate = queries.x, queries.velocity_center, queries.velocity_rate
    rows, pivot, center, shift = frame
    (mean, begun, weighted, scale, of_all), (of_density, rise) = sums, weights
    denoised, velocity, log_density, top1_weight, entropy, effective, variance, left_out, found = result
    nothing = np.zeros(center.shape[0])
    for q in range(first, last):
        own = mean[q] if begun[q] else nothing
        base, moved, others, point, to_mean, to_velocity = rows[pivot[q]], 0.0, weighted[q], x[q], denoised[q], velocity[q]
        total, square, score, from_pivot, approximate, from_center, below = of_all[q]
        cross, away, apart, moving, size, inverse = 0.0, 0.0, 0.0, 0.0, 0.0, 1 / total
        for i in range(center.shape[0]):
            middle = np.float64(base[i])
            moved = scale[q] * np.float64(others[i]) - approximate * (middle - shift[i])
            gap = middle - center[i]
            step = (own[i] + moved) * inverse
            value = middle + step
            toward = value - velocity_center[q] * np.float64(point[i])
            cross += moved * gap
            away += gap * gap
            apart += step * step
            moving += toward * toward
            size += value * value
            to_mean[i] = value
            to_velocity[i] = rate[q] * toward
        # Σ w ‖y - p‖² of the others = Σ w ‖y - c‖² - 2 Σ w (y - p)·(p - c) - Σ w ‖p - c‖²
        from_pivot += max(from_center - 2 * cross - approximate * away, 0.0)
        top1_weight[q] = np.exp(rise[q]) * inverse
        log_density[q], entropy[q] = of_density[q] + np.log(total), max(np.log(total) - score * inverse, 0.0)
        effective[q], variance[q] = total * total / square, max(from_pivot * inverse - apart, 0.0)
        left_out[q], found[0, q], found[1, q] = below * inverse / top1_weight[q], np.sqrt(moving), np.sqrt(size)
