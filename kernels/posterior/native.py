"""What is done sample by sample, and not by matrix products: compiled by numba, for the CPU. Each call runs on one thread, without the GIL.

What lies at `[k]` in an inner loop is taken from a slice, over which k runs from 0: numba lets an index be negative, and where LLVM cannot
tell that it is not, a loop is several times slower.

Scores of the dense pass lie as `[samples, queries]`, so that all that is done for each query is done for sixteen at a time; bounds as
`[queries, samples]`, so that those that stand are found for sixteen samples at a time.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

FAST = {"reassoc", "contract", "nsz", "nnan"}
GROUPS = 8
"""Groups of coordinates that have norms in the columns, at most: so many that one instruction does for all."""
RUN = 128
"""Rows whose weights are summed in float32, before the sums go on in float64."""
TOGETHER = 64
"""Rows that are looked at together."""
MANY = 16
"""Queries that look at them, from which on they are read beforehand."""
LINE = 64
"""Bytes that come from memory together."""

_WAITING: list[tuple[bool, Callable[..., Any]]] = []


def compiled(f: Callable[..., Any]) -> Any:
    """Compiled by numba, which is imported when the first of these is called: it takes a quarter of a second and 60 MB."""
    own = inspect.unwrap(f)  # tests put type checks around every function
    _WAITING.append((False, own))

    @functools.wraps(f)
    def first(*arguments: Any) -> Any:
        from numba import njit
        from numba.extending import intrinsic

        for inside, each in _WAITING:  # all at once, for they call each other
            each.__globals__[each.__name__] = intrinsic(each) if inside else njit(nogil=True, cache=True, fastmath=FAST)(each)
        _WAITING.clear()
        return own.__globals__[own.__name__](*arguments)

    return first


def intrinsic(f: Callable[..., Any]) -> Any:
    """What a compiled function calls, and LLVM is told instruction by instruction."""
    _WAITING.append((True, inspect.unwrap(f)))
    return f


@compiled
def to_bytes(rows, origin, step, digits, lengths, left):  # type: ignore[no-untyped-def]  # pragma: no cover
    """`digits` of some rows, y = origin + step ∘ digits + what is left; at least their norms, and the norms of what is left."""
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
    """`bits` of a norm of up to `most`, but for rounding: unit ∘ g = step bits + what is lost, of which its norm; and ‖g‖."""
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
def directions(x, alpha, sigma, center, away, g, squares, offset):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Of each query `g` = (α/σ²)(x - α c), ‖x - α c‖², and as `offset` g·away."""
    for q in range(x.shape[0]):
        rate, total, along = alpha[q] / sigma[q] ** 2, 0.0, 0.0
        for i in range(x.shape[1]):
            gap = x[q, i] - alpha[q] * center[i]
            g[q, i] = rate * gap
            total += gap * gap
            along += rate * gap * away[i]
        squares[q], offset[q] = total, along


@compiled
def _product(digits, j, bits, q):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Of row j and row q, exact: int32 adds up products of bytes and 16 bits."""
    total = np.int32(0)
    for i in range(digits.shape[1]):
        total += np.int32(digits[j, i]) * np.int32(bits[q, i])
    return np.int32(total)  # so that LLVM sums in 32 bits, by one instruction for sixteen products


@compiled
def _by_bytes(j, q, table, aim):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The score of a pair by all bytes, and its width."""
    digits, lengths, left = table.whole
    bits, step, lost, length = aim.whole
    value = step[q] * _product(digits, j, bits, q) + aim.offset[q] - aim.kappa[q] * table.norms[j] + table.prior[j]
    return value, lost[q] * lengths[j] + length[q] * left[j] + aim.slack_of_bytes[q]


@compiled
def lead(scores, n, start, run, table, aim, floor):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Raise the `floor` of each query, below which its highest score does not lie: by the one that is best by estimate in each run of rows.

    Args:
      scores: `[B, n and more]` float32 estimates of n samples from `start` on.
      table, aim: `Table` and `Aim` of `kernels.posterior.sketch`.
    """
    for q in range(scores.shape[0]):
        for first in range(0, n, run):
            some = scores[q, first : min(first + run, n)]
            best = some[0]
            for i in range(some.shape[0]):
                best = max(best, some[i])
            i = 0
            while some[i] < best:
                i += 1
            value, width = _by_bytes(start + first + i, q, table, aim)
            floor[q] = max(floor[q], value - width)


@compiled
def look(  # type: ignore[no-untyped-def]  # pragma: no cover
    bounds, n, first, start, fine, table, aim, below, cut, floor, seen, most, rows, queries, values, widths, at
):
    """Pairs of sample and query that may lie within the cut of the query's highest score: by columns first, of those that stand by columns
    and the bytes of coordinates, and of those by all bytes.

    Args:
      bounds: `[B, n and more]` float32, of n samples from `start` on; from row `first` on.
      fine: whether they are by all columns.
      table, aim: `Table` and `Aim` of `kernels.posterior.sketch`.
      below: `[B]`, how far below its bound by columns a score's floor may lie for it to be looked at: the cut, and what float32 hides.
      cut, floor: `[B]`: the floor is raised to what the bytes say a score is at least.
      seen, most: `[B]`: how many have been looked at by bytes, added to; queries that exceed `most` are given up.
      rows, queries, values, widths: result, written from `at` on: a score is within its width of its value.

    Returns:
      Where to go on (short of n where there is no more room), and how many pairs there are.
    """
    b = bounds.shape[0]
    columns, middle, whole, norms, prior = table
    of_columns, of_groups, of_middle, of_whole = aim.columns, aim.groups, aim.middle, aim.whole
    kappa, offset, slack = aim.kappa, aim.offset, aim.slack_of_bytes
    some_digits, some_lengths, some_left = middle
    some_bits, some_step, some_lost, some_length = of_middle
    digits, lengths, left = whole
    bits, step, lost, length = of_whole
    others = of_columns.shape[1]
    least = np.empty(b, np.float32)
    parts = -(-(n - first) // TOGETHER)
    stands = np.empty((parts, b), np.bool_)
    standing, chosen, bound = np.empty(TOGETHER + 1, np.int32), np.empty(TOGETHER + 1, np.int32), np.zeros(TOGETHER)
    for q in range(b):
        least[q] = np.float32(floor[q] - below[q]) if seen[q] <= most[q] else np.float32(np.inf)
        for part in range(parts):
            some, low, any_of_them = bounds[q, first + part * TOGETHER : min(first + (part + 1) * TOGETHER, n)], least[q], np.int32(0)
            for k in range(some.shape[0]):
                any_of_them += np.int32(some[k] >= low)
            stands[part, q] = any_of_them > 0
    for part in range(parts):
        i = first + part * TOGETHER
        if at + b * TOGETHER > rows.shape[0]:
            return i, at
        # Some rows together, so that they stay in a core's first caches, or the bits of a query do; read once from end to end if many queries
        # look at them, for here and there it takes longer. What has no branch is in loops of its own: what a processor would guess wrong
        # costs more than what is computed.
        many = 0
        for q in range(b):
            many += int(stands[part, q])
        if many > MANY:
            for k in range(i, min(i + TOGETHER, n)):
                own, digits_of_it = columns[start + k], some_digits[start + k]
                for g in range(0, own.shape[0], LINE // 4):
                    bound[0] += own[g]
                for g in range(0, digits_of_it.shape[0], LINE):
                    bound[0] += digits_of_it[g]
        for q in range(b):
            if not stands[part, q]:
                continue
            some, low = bounds[q, i : min(i + TOGETHER, n)], least[q]
            count, left_over = 0, 0
            for k in range(some.shape[0]):
                standing[count] = k
                count += int(some[k] >= low)
            for p in range(count):
                k = standing[p]
                j = start + i + k
                if fine:  # then the bounds have all but what follows, in place of which they have the groups
                    by_columns, own, of_query = some[k], columns[j, others:], of_groups[q]
                    for g in range(GROUPS):
                        by_columns -= own[g] * of_query[g]
                else:
                    by_columns, own, of_query = np.float32(0), columns[j], of_columns[q]
                    for g in range(others):
                        by_columns += own[g] * of_query[g]
                width = some_lost[q] * some_lengths[j] + some_length[q] * some_left[j]
                bound[p] = by_columns + some_step[q] * _product(some_digits, j, some_bits, q) + width
            for p in range(count):
                chosen[left_over] = start + i + standing[p]
                left_over += int(bound[p] >= floor[q] - below[q])
            for p in range(left_over):
                j = chosen[p]
                bound[p] = step[q] * _product(digits, j, bits, q) + offset[q] - kappa[q] * norms[j] + prior[j]
            for p in range(left_over):
                j, value = chosen[p], bound[p]
                width = lost[q] * lengths[j] + length[q] * left[j] + slack[q]
                floor[q] = max(floor[q], value - width)
                if value + width >= floor[q] - cut[q]:
                    rows[at], queries[at], values[at], widths[at] = j, q, value, width
                    at += 1
            seen[q] += count
            least[q] = np.float32(floor[q] - below[q]) if seen[q] <= most[q] else np.float32(np.inf)
    return n, at


@compiled
def sift(  # type: ignore[no-untyped-def]  # pragma: no cover
    scores, first, start, table, aim, least, cut, floor, seen, most, rows, queries, values, widths, at
):
    """Pairs of sample and query that may lie within the cut of the query's highest score, as `look` finds them, by scores of all.

    Args:
      scores: `[n, B]` float32, of the samples from `start` on; from row `first` on.
      least: `[B]` float32: pairs of a lower score do not matter.
    """
    n, b = scores.shape
    for i in range(first, n):
        if at + b > rows.shape[0]:
            return i, at
        some = np.int32(0)
        for q in range(b):
            some += np.int32(scores[i, q] >= least[q])
        if not some:
            continue
        for q in range(b):
            if scores[i, q] >= least[q] and seen[q] <= most[q]:
                value, width = _by_bytes(start + i, q, table, aim)
                seen[q] += 1
                floor[q] = max(floor[q], value - width)
                if value + width >= floor[q] - cut[q]:
                    rows[at], queries[at], values[at], widths[at] = start + i, q, value, width
                    at += 1
    return n, at


@compiled
def around(x, alpha, still, samples, rows, base, squares, moving):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Of one sample for each query: itself, as float64, ‖x - α y‖² and ‖y - κ x‖²."""
    for q in range(x.shape[0]):
        y, own, into, away = samples[rows[q]], x[q], base[q], 0.0
        for i in range(own.shape[0]):
            value = np.float64(y[i])
            into[i] = value
            away += (value - still[q] * own[i]) ** 2
        squares[q], moving[q] = _square_distance(own, alpha[q], y), away


@compiled
def heaviest(x, alpha, sigma, samples, prior, index, rows, queries, first, last, peak, whose):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Raise `peak` of each query to the highest log weight among pairs `first` to `last`, exact, and `whose` to that sample."""
    for pair in range(first, last):
        q, j = queries[pair], rows[pair]
        value = prior[j] - _square_distance(x[q], alpha[q], samples[j]) / (2 * sigma[q] ** 2)
        if value > peak[q] or (value == peak[q] and index[j] < index[whose[q]]):
            peak[q], whose[q] = value, j


@compiled
def add_pairs(  # type: ignore[no-untyped-def]  # pragma: no cover
    x, alpha, sigma, samples, norms, prior, index, base, peak, cut, rows, queries, logs, sure, first, last,
    mean, light, sums, highest, whose,
):  # fmt: skip
    """Weigh pairs `first` to `last`, and add them to the moments of their queries.

    Args:
      norms: of the samples, ‖y - c‖².
      base: `[B, D]`, a heavy sample of each query; `peak`, its log weight.
      cut: `[B]`, how far below the peak a sample is left out.
      logs, sure: of each pair its log weight relative to the peak, where that is sure; where not, it is computed from differences.
      mean: `[B, D]` float64, Σ w (y - base) of those that are not, w = exp(log weight - peak).
      light: `[B, D]` float32, Σ w y of those that are.
      sums: `[B, 7]` Σ w, Σ w², Σ w log w; of those from differences Σ w ‖y - base‖²; of the others Σ w and Σ w ‖y - c‖²; Σ w of those
        left out.
      highest, whose: `[B]`, the highest log weight from differences and its sample: of equals, the caller's lowest index.
    """
    for pair in range(first, last):
        q, j = queries[pair], rows[pair]
        y, z = samples[j], logs[pair]
        if not sure[pair]:
            value = prior[j] - _square_distance(x[q], alpha[q], y) / (2 * sigma[q] ** 2)
            if value > highest[q] or (value == highest[q] and index[j] < index[whose[q]]):
                highest[q], whose[q] = value, j
            z = value - peak[q]
        w = np.exp(min(z, 600.0))
        sums[q, 0] += w
        sums[q, 1] += w * w
        sums[q, 2] += w * z
        if z < -cut[q]:
            sums[q, 6] += w
        elif sure[pair]:
            small, into = np.float32(w), light[q]
            for i in range(y.shape[0]):
                into[i] += small * np.float32(y[i])
            sums[q, 4] += w
            sums[q, 5] += w * norms[j]
        else:
            middle, total, away = base[q], mean[q], 0.0
            for i in range(y.shape[0]):
                gap = np.float64(y[i]) - middle[i]
                total[i] += w * gap
                away += gap * gap
            sums[q, 3] += w * away


@compiled
def _square_distance(x, alpha, y):  # type: ignore[no-untyped-def]  # pragma: no cover
    """‖x - α y‖², in the dtype of x and α."""
    total = alpha - alpha
    for i in range(x.shape[0]):
        gap = x[i] - alpha * y[i]
        total += gap * gap
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


@compiled
def weigh(  # type: ignore[no-untyped-def]  # pragma: no cover
    scores, first, start, norms, peak, negligible, limit, sums, rows, queries, at
):
    """Scores become weights, exp(score - peak), and are summed; the heavy ones become 0, and are named.

    Args:
      scores: `[n, B]` float32, of the samples from `start` on; from row `first` on.
      negligible, limit: `[B]` float32: what weighs less becomes 0, and what weighs more is heavy.
      sums: `[6, B]`, added to: Σ w, Σ w², Σ w (score - peak), Σ w norm of those that are neither, Σ w of all, Σ w of the negligible.
      rows, queries: result, written from `at` on: the heavy pairs.

    Returns:
      Where to go on (short of n where there is no more room), how many heavy pairs there are, and how many weights are not 0.
    """
    n, b = scores.shape
    count = 0
    some, z, bits = np.zeros((6, b), np.float32), np.empty(b, np.float32), np.empty(b, np.int32)
    two_to = bits.view(np.float32)
    done = n
    for i in range(first, n):
        if at + b > rows.shape[0]:
            done = i
            break
        weight = scores[i]
        heavy = np.int32(0)
        for q in range(b):
            z[q] = weight[q] - peak[q]
        for q in range(b):
            # exp(z) = 2^whole 2^part, the latter by its Taylor polynomial: within 2e-7 of itself on [-1/2, 1/2].
            y = min(max(z[q], np.float32(-87)), np.float32(60)) * np.float32(1.4426950408889634)
            whole = np.floor(y + np.float32(0.5))
            part = (y - whole) * np.float32(0.6931471805599453)
            poly = np.float32(1 / 5040)
            poly = poly * part + np.float32(1 / 720)
            poly = poly * part + np.float32(1 / 120)
            poly = poly * part + np.float32(1 / 24)
            poly = poly * part + np.float32(1 / 6)
            poly = poly * part + np.float32(0.5)
            poly = poly * part + np.float32(1)
            poly = poly * part + np.float32(1)
            bits[q] = (np.int32(whole) + np.int32(127)) << np.int32(23)
            weight[q] = poly
        for q in range(b):
            weight[q] = weight[q] * two_to[q] if z[q] > np.float32(-87) else np.float32(0)
            heavy += np.int32(weight[q] > limit[q])
            some[4, q] += weight[q]
        if heavy:
            for q in range(b):
                if weight[q] > limit[q]:
                    rows[at], queries[at], weight[q] = start + i, q, 0
                    at += 1
        small, left = np.float32(norms[start + i]), np.int32(0)
        for q in range(b):
            left += np.int32(weight[q] >= negligible[q])
        count += int(left)
        for q in range(b):
            some[5, q] += weight[q] if weight[q] < negligible[q] else np.float32(0)
            weight[q] = weight[q] if weight[q] >= negligible[q] else np.float32(0)
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
def add_rows(weights, rows, into):  # type: ignore[no-untyped-def]  # pragma: no cover
    """`into` `[B, D]` += weightsᵀ rows, where most weights `[n, B]` are 0."""
    n, b = weights.shape
    chosen, count = np.empty((b, TOGETHER + 1), np.int32), np.empty(b, np.int64)
    for first in range(0, n, TOGETHER):
        # Some rows together, query by query, so that a core's first caches hold them.
        count[:] = 0
        for i in range(first, min(first + TOGETHER, n)):
            for q in range(b):
                chosen[q, count[q]] = i
                count[q] += np.int64(weights[i, q] != 0)
        for q in range(b):
            total = into[q]
            for p in range(count[q]):
                w, row = weights[chosen[q, p], q], rows[chosen[q, p]]
                for k in range(row.shape[0]):
                    total[k] += w * row[k]


@compiled
def add_scaled(total, scale, more):  # type: ignore[no-untyped-def]  # pragma: no cover
    """`total` `[B, D]` float64 times `scale` of each row, plus `more`."""
    for q in range(total.shape[0]):
        for i in range(total.shape[1]):
            total[q, i] = total[q, i] * scale[q] + more[q, i]
