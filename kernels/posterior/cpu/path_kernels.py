"""Compiled loops of `path_pass`: scores of many times from two numbers a pair of sample and query. As `numba_kernels`, one thread a call.

Such a pair has e_1 = -½‖y - x_1‖² and e_0 = x_0·(y - x_1), and at the ratio ρ = α/σ the score ρ (ρ e_1 + e_0) + log prior.
"""

from typing import Any, NamedTuple

import numpy as np

from kernels.posterior.cpu import numba_kernels
from kernels.posterior.cpu.numba_kernels import RUN, compiled


@compiled
def pair_numbers(products, half_norms, offsets):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Products `[n, 2, B]` float32 of samples with x_1 and x_0 become e_1 and e_0.

    Args:
      half_norms: `[n]`, ½‖y - c‖².
      offsets: `[2, B]`, what e_1 and e_0 have beside the product and the norm.
    """
    n, _, b = products.shape
    for i in range(n):
        first, second, half, to_first, to_second = products[i, 0], products[i, 1], half_norms[i], offsets[0], offsets[1]
        for q in range(b):
            first[q] += to_first[q] - half
        for q in range(b):
            second[q] += to_second[q]


@compiled
def path_peaks(pairs, prior, ratio, peak):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Raise `peak` `[T, B]` float32 to the highest score of a block of pairs `[n, 2, B]` at each of T ratios."""
    n, _, b = pairs.shape
    for t in range(ratio.shape[0]):
        best, r = peak[t], ratio[t]
        for i in range(n):
            first, second, p = pairs[i, 0], pairs[i, 1], prior[i]
            for q in range(b):
                best[q] = max(best[q], r * (r * first[q] + second[q]) + p)


class PathLimits(NamedTuple):
    """Scores that matter, `[T, B]` float32."""

    peak: Any
    """To which weights are relative."""
    negligible: Any
    """At or below it a sample is left out."""
    candidate: Any
    """A sample above it, at any time, is a candidate, at all times."""


@compiled
def path_candidates(pairs, prior, ratio, limits, room, total, active):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Name the candidates of a block of pairs, and take them out of it: their e_0 becomes -∞.

    Args:
      limits: `PathLimits`.
      room: rows, within the block, and queries of the candidates, the result: room for all pairs.
      total: `[T, B]` float64, Σ w: that of the candidates is added.
      active: `[T, n]` bool, the result: whether a sample of that row is not negligible for some query.

    Returns:
      How many candidates there are.
    """
    peak, negligible, candidate = limits
    rows, queries = room
    n, _, b = pairs.shape
    count = 0
    flags = np.zeros(b, np.int32)
    for i in range(n):
        first, second, p, any_flag = pairs[i, 0], pairs[i, 1], prior[i], False
        for t in range(ratio.shape[0]):
            r, low, high, above, over = ratio[t], negligible[t], candidate[t], np.int32(0), np.int32(0)
            for q in range(b):
                z = r * (r * first[q] + second[q]) + p
                above += np.int32(z > low[q])
                over += np.int32(z > high[q])
            active[t, i] = above > 0
            if over > 0:
                any_flag = True
                for q in range(b):
                    flags[q] |= np.int32(r * (r * first[q] + second[q]) + p > high[q])
        if any_flag:
            for q in range(b):
                if flags[q]:
                    rows[count], queries[count] = i, q
                    count += 1
                    for t in range(ratio.shape[0]):
                        r = ratio[t]
                        total[t, q] += np.exp(np.float64(r * (r * first[q] + second[q]) + p - peak[t, q]))
                    second[q] = -np.inf
                    flags[q] = 0
    return count


@compiled
def path_weights(pairs, prior, ratio, peak, negligible, active, sums, weights):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Sum the weights exp(score - peak) of a block of pairs at one ratio.

    Args:
      peak, negligible: `[B]` float32.
      active: `[n]` bool: other rows are left out.
      sums: `[4, B]` float64, added to: Σ w, Σ w², Σ w (score - peak), Σ w e_1.
      weights: `[n, B]` float32, the result; `[1, B]`: not kept.

    Returns:
      How many weights are not 0.
    """
    n, _, b = pairs.shape
    kept = weights.shape[0] == n
    some, z, bits = np.zeros((4, b), np.float32), np.empty(b, np.float32), np.empty(b, np.int32)
    two_to, least, done, count = bits.view(np.float32), np.empty(b, np.float32), 0, 0
    of_weights, of_squares, of_scores, of_distances = some[0], some[1], some[2], some[3]
    for q in range(b):
        least[q] = max(negligible[q] - peak[q], np.float32(-87))
    for i in range(n):
        weight = weights[i] if kept else weights[0]
        if not active[i]:
            if kept:
                weight[:] = 0
            continue
        first, second, p = pairs[i, 0], pairs[i, 1], prior[i]
        for q in range(b):
            z[q] = ratio * (ratio * first[q] + second[q]) + p - peak[q]
        numba_kernels.exponentials(z, weight, bits)
        several = np.int32(0)
        for q in range(b):
            several += np.int32(z[q] > least[q])
        for q in range(b):
            weight[q] = weight[q] * two_to[q] if z[q] > least[q] else np.float32(0)
        for q in range(b):
            w = weight[q]
            of_weights[q] += w
            of_squares[q] += w * w
            of_scores[q] += w * max(z[q], np.float32(-87))
            of_distances[q] += w * first[q]
        count += int(several)
        done += 1
        if done % RUN == 0:
            for s in range(4):
                for q in range(b):
                    sums[s, q] += some[s, q]
                    some[s, q] = 0
    for s in range(4):
        for q in range(b):
            sums[s, q] += some[s, q]
    return count


@compiled
def exact_pairs(rows, x_1, x_0, of_rows, of_queries, found):  # type: ignore[no-untyped-def]  # pragma: no cover
    """e_1 and e_0 of pairs, from differences in float64, into `found` `[2, P]`."""
    for k in range(of_rows.shape[0]):
        y, middle, noise, square, along = rows[of_rows[k]], x_1[of_queries[k]], x_0[of_queries[k]], 0.0, 0.0
        for i in range(x_1.shape[1]):
            gap = np.float64(y[i]) - np.float64(middle[i])
            square += gap * gap
            along += gap * np.float64(noise[i])
        found[0, k], found[1, k] = -0.5 * square, along


@compiled
def heaviest_pairs(pairs, prior, index, ratio, highest, whose):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Of each query at each ratio the highest exact score of its candidates, and whose it is: of equals, the caller's lowest index.

    Args:
      pairs: rows, queries, and `[2, P]` float64 e_1 and e_0.
      prior, index: of the samples.
      highest, whose: `[T, B]`, raised.
    """
    rows, queries, numbers = pairs
    for k in range(rows.shape[0]):
        q, j, p, first, second = queries[k], rows[k], prior[rows[k]], numbers[0, k], numbers[1, k]
        for t in range(ratio.shape[0]):
            z = ratio[t] * (ratio[t] * first + second) + p
            if z > highest[t, q] or (z == highest[t, q] and index[j] < index[whose[t, q]]):
                highest[t, q], whose[t, q] = z, j


@compiled
def add_exact_pairs(samples, x_1, pairs, prior, ratio, peak, least, result):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Add the candidates to the sums of their queries, by their exact scores.

    Args:
      samples: their rows.
      pairs: as in `heaviest_pairs`.
      peak: `[T, B]` float64, to which weights are relative.
      least: weights below it are left out of `mean`.
      result: `[T, 4, B]` float64 sums as in `path_weights`, and `[T, B, D]` float64 Σ w (y - x_1), or with D = 0 nothing; added to.
    """
    rows, queries, numbers = pairs
    sums, mean = result
    for k in range(rows.shape[0]):
        q, y, p, first, second = queries[k], samples[rows[k]], prior[rows[k]], numbers[0, k], numbers[1, k]
        middle = x_1[q]
        for t in range(ratio.shape[0]):
            z = ratio[t] * (ratio[t] * first + second) + p - peak[t, q]
            w = np.exp(z)
            sums[t, 0, q] += w
            sums[t, 1, q] += w * w
            sums[t, 2, q] += w * z
            sums[t, 3, q] += w * first
            if w > least:
                into = mean[t, q]
                for i in range(into.shape[0]):
                    into[i] += w * (np.float64(y[i]) - np.float64(middle[i]))
