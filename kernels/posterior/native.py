"""What is done sample by sample, and not by matrix products: compiled by numba, for the CPU. Each call runs on one thread, without the GIL.

Scores lie as `[samples, queries]`, so that all that is done for each query is done for sixteen at a time.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

FAST = {"reassoc", "contract", "nsz", "nnan"}
RUN = 128
"""Rows whose weights are summed in float32, before the sums go on in float64."""


_WAITING: list[Callable[..., Any]] = []


def _compiled(f: Callable[..., Any]) -> Any:
    """Compiled by numba, which is imported when the first of these is called: it takes a quarter of a second and 60 MB."""
    _WAITING.append(inspect.unwrap(f))  # unwrapped: tests put type checks around every function

    @functools.wraps(f)
    def first(*arguments: Any) -> Any:
        from numba import njit

        for each in _WAITING:  # all at once, for they call each other
            globals()[each.__name__] = njit(nogil=True, cache=True, fastmath=FAST)(each)
        return globals()[f.__name__](*arguments)

    return first


@_compiled
def highest(scores, first, last, offset, a, e, g, k, lengths, hidden, norms, prior, best, where):  # type: ignore[no-untyped-def]  # pragma: no cover
    """For each query the highest bound among rows `first` to `last` of a block, and its row; `best` and `where` hold those so far.

    Args:
      scores: `[L, B]` int32, products of bytes; row i is sample `offset + i`.
      a, e, g, k: `[B]` float32: a bound is `a score + e length + g hidden - k norm + prior`.
    """
    for i in range(first, last):
        j = offset + i
        m, h, n, p = lengths[j], hidden[j], norms[j], prior[j]
        for q in range(a.shape[0]):
            bound = a[q] * np.float32(scores[i, q]) + (e[q] * m + g[q] * h - k[q] * n + p)
            where[q] = j if bound > best[q] else where[q]
            best[q] = bound if bound > best[q] else best[q]


@_compiled
def sift(  # type: ignore[no-untyped-def]  # pragma: no cover
    scores, first, last, offset, a, e, g, k, lengths, hidden, norms, prior, margin, floor, best, standing, rows, queries, bounds, at
):
    """Pairs of sample and query, among rows `first` to `last`, that may lie within `margin` of the query's highest score: written from `at`
    on as long as there is room; where the next goes.

    Bounds hold from both sides: no score is below its upper bound less twice what the bytes may hide. The highest of these lower bounds so
    far is the floor, and what is below it by more than the margin is left out.

    Args:
      floor, best: `[B]`, the floor so far and whose it is; raised.
      standing: `[B]`, to which the numbers of pairs are added, room or not.
      bounds: float32, the upper bound of each pair.
    """
    least = floor - margin
    for i in range(first, last):
        j = offset + i
        m, h, n, p = lengths[j], hidden[j], norms[j], prior[j]
        some = np.int32(0)
        for q in range(a.shape[0]):
            bound = a[q] * np.float32(scores[i, q]) + (e[q] * m + g[q] * h - k[q] * n + p)
            some += np.int32(bound >= least[q])
        if some:
            for q in range(a.shape[0]):
                hides = e[q] * m + g[q] * h
                bound = a[q] * np.float32(scores[i, q]) + (hides - k[q] * n + p)
                if bound >= least[q]:
                    standing[q] += 1
                    if at < rows.shape[0]:
                        rows[at], queries[at], bounds[at] = j, q, bound
                    at += 1
                    if bound - 2 * hides > floor[q]:
                        floor[q], best[q] = bound - 2 * hides, j
                        least[q] = floor[q] - margin[q]
    return at


@_compiled
def around(x, alpha, still, samples, rows, base, squares, moving):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Of one sample for each query: itself, as float64, ‖x - α y‖² and ‖y - κ x‖²."""
    for q in range(x.shape[0]):
        y, own, into, total, away = samples[rows[q]], x[q], base[q], 0.0, 0.0
        for i in range(own.shape[0]):
            value = np.float64(y[i])
            into[i] = value
            total += (own[i] - alpha[q] * value) ** 2
            away += (value - still[q] * own[i]) ** 2
        squares[q], moving[q] = total, away


@_compiled
def heaviest(x, alpha, sigma, samples, prior, index, rows, queries, first, last, peak, whose):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Raise `peak` of each query to the highest log weight among pairs `first` to `last`, exact, and `whose` to that sample."""
    for pair in range(first, last):
        q, j = queries[pair], rows[pair]
        value = prior[j] - _square_distance(x[q], alpha[q], samples[j]) / (2 * sigma[q] ** 2)
        if value > peak[q] or (value == peak[q] and index[j] < index[whose[q]]):
            peak[q], whose[q] = value, j


@_compiled
def add_pairs(  # type: ignore[no-untyped-def]  # pragma: no cover
    x, alpha, sigma, x32, alpha32, samples, norms, prior, index, base, peak, cut, exact, rows, queries, first, last,
    mean, light, sums, highest, whose,
):  # fmt: skip
    """Weigh pairs `first` to `last`, -‖x - α y‖² / 2σ² + log prior from differences, and add them to the moments of their queries.

    Args:
      x32, alpha32: x and α in float32, by which light samples are weighed.
      norms: of the samples, ‖y - c‖².
      base: `[B, D]`, a heavy sample of each query; `peak`, its log weight.
      cut, exact: `[B]`, how far below the peak a sample is left out, and how far below it is weighed and summed in float32.
      mean: `[B, D]` float64, Σ w (y - base) of the heavy ones, w = exp(log weight - peak).
      light: `[B, D]` float32, Σ w y of the light ones.
      sums: `[B, 7]` Σ w, Σ w², Σ w log w; of the heavy Σ w ‖y - base‖²; of the light Σ w and Σ w ‖y - c‖²; Σ w of those left out.
      highest, whose: `[B]`, the highest log weight and its sample: of equals, the caller's lowest index.
    """
    for pair in range(first, last):
        q, j = queries[pair], rows[pair]
        y, variance = samples[j], 2 * sigma[q] ** 2
        z = prior[j] - _square_distance(x32[q], alpha32[q], y) / variance - peak[q]
        heavy = z > -1 - exact[q]
        if heavy:
            value = prior[j] - _square_distance(x[q], alpha[q], y) / variance
            if value > highest[q] or (value == highest[q] and index[j] < index[whose[q]]):
                highest[q], whose[q] = value, j
            z = value - peak[q]
        w = np.exp(min(z, 600.0))
        sums[q, 0] += w
        sums[q, 1] += w * w
        sums[q, 2] += w * z
        if z < -cut[q]:
            sums[q, 6] += w
        elif heavy:
            middle, total, away = base[q], mean[q], 0.0
            for i in range(y.shape[0]):
                gap = np.float64(y[i]) - middle[i]
                total[i] += w * gap
                away += gap * gap
            sums[q, 3] += w * away
        else:
            small, into = np.float32(w), light[q]
            for i in range(y.shape[0]):
                into[i] += small * y[i]
            sums[q, 4] += w
            sums[q, 5] += w * norms[j]


@_compiled
def _square_distance(x, alpha, y):  # type: ignore[no-untyped-def]  # pragma: no cover
    """‖x - α y‖², in the dtype of x and α."""
    total = alpha - alpha
    for i in range(x.shape[0]):
        gap = x[i] - alpha * y[i]
        total += gap * gap
    return total


@_compiled
def directions(x, alpha, sigma, center, g, largest):  # type: ignore[no-untyped-def]  # pragma: no cover
    """`g` = (α/σ²)(x - α c), and its largest entry; Σ (x - α c)²."""
    squares = np.zeros(x.shape[0])
    for q in range(x.shape[0]):
        rate, most, total = alpha[q] / sigma[q] ** 2, 0.0, 0.0
        for i in range(x.shape[1]):
            gap = x[q, i] - alpha[q] * center[i]
            g[q, i] = rate * gap
            most = max(most, abs(rate * gap))
            total += gap * gap
        largest[q], squares[q] = most, total
    return squares


@_compiled
def to_bytes(g, unit, base, into):  # type: ignore[no-untyped-def]  # pragma: no cover
    """`into[q, k, i]`, the k-th byte of `g[q, i] / unit[q]`; `g` is left with what they lack."""
    for q in range(g.shape[0]):
        scale = 1 / unit[q]
        for k in range(into.shape[1]):
            step = 1 / scale
            for i in range(g.shape[1]):
                digit = np.floor(g[q, i] * scale + 0.5)
                into[q, k, i] = np.int8(digit)
                g[q, i] -= digit * step
            scale *= base


@_compiled
def weigh(  # type: ignore[no-untyped-def]  # pragma: no cover
    products, first, last, offset, units, order, k, norms, prior, index, peak, halves, weights, z, bits, sums, highest, top
):
    """Weights of rows `first` to `last` of a block, and their sums.

    Args:
      products: tuple of `[L, m B]` int32, of one byte of the samples each with the first m bytes of the queries.
      units: `[3, B]`: what products of order 0, 1 and 2 count; a score is their sum `- k norm + prior`.
      order: of the first byte of each of the products.
      peak: `[B]`: weights are exp(score - peak); any number near the highest score.
      halves: round weights to 16 bits.
      weights: `[last - first, B]` float32, result.
      z, bits: `[B]` float64 and int32, scratch.
      sums: `[4, B]`, added to: Σ w, Σ w², Σ w (score - peak), Σ w norm.
      highest, top: `[B]`, the highest score so far, and the lowest index among those that have it.
    """
    b = k.shape[0]
    some = np.zeros((4, b), np.float32)
    two_to = bits.view(np.float32)
    for i in range(first, last):
        j = offset + i
        n, p, own = norms[j], prior[j], index[j]
        for q in range(b):
            z[q] = p - k[q] * n
        for one in range(len(products)):
            row = products[one][i]
            for part in range(row.shape[0] // b):
                unit = units[order[one] + part]
                for q in range(b):
                    z[q] += unit[q] * row[part * b + q]
        for q in range(b):
            top[q] = own if z[q] > highest[q] or (z[q] == highest[q] and own < top[q]) else top[q]
            highest[q] = max(highest[q], z[q])
        weight = weights[i - first]
        for q in range(b):
            # exp(z) = 2^whole 2^part, the latter by its Taylor polynomial: within 2e-7 of itself on [-1/2, 1/2].
            y = min(max(np.float32(z[q] - peak[q]), np.float32(-87)), np.float32(60)) * np.float32(1.4426950408889634)
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
        small = np.float32(n)
        for q in range(b):
            below = max(np.float32(z[q] - peak[q]), np.float32(-87))
            weight[q] = weight[q] * two_to[q] if below > np.float32(-87) else np.float32(0)
        if halves:  # what two bfloat16 hold: so are they summed, too
            of_weight = weight.view(np.int32)
            for q in range(b):
                of_weight[q] = (of_weight[q] + np.int32(0x80)) & np.int32(-256)
        for q in range(b):
            below = max(np.float32(z[q] - peak[q]), np.float32(-87))
            w = weight[q]
            some[0, q] += w
            some[1, q] += w * w
            some[2, q] += w * below
            some[3, q] += w * small
        if (i - first) % RUN == RUN - 1 or i == last - 1:
            for s in range(4):
                for q in range(b):
                    sums[s, q] += some[s, q]
                    some[s, q] = 0


@_compiled
def in_halves(weights, n, into):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The first `n` rows of `weights` `[R, B]`, float32 rounded to 16 bits, as sums of two bfloat16: `into` `[R, 2 B]`, as uint16."""
    b = weights.shape[1]
    high = np.empty(b, np.int32)
    as_float = high.view(np.float32)
    low = np.empty(b, np.float32)
    as_int = low.view(np.int32)
    for i in range(n):
        row, out = weights[i], into[i]
        bits = row.view(np.int32)
        for q in range(b):
            high[q] = (bits[q] + np.int32(0x8000)) & np.int32(-65536)
        for q in range(b):
            low[q] = row[q] - as_float[q]
        for q in range(b):
            out[q] = np.uint16(high[q] >> np.int32(16))
            out[b + q] = np.uint16(as_int[q] >> np.int32(16))
