"""The posterior over all samples on the host: scores and weighted sums by matrix products, weights between them while they are in a cache.

Scores are float32, and so is what they get wrong: some 1e-5 nats. Of many samples of about equal weight that averages out. Those that have
a share of their own, by which it would show, are few; they are left out of the sums, weighed from differences, and put back.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from kernels.posterior.cpu import numba_kernels
from kernels.posterior.cpu.accumulate import HIDDEN, Heavy, Light, Pairs, moments
from kernels.posterior.cpu.index import ROWS, UNIT, Index
from kernels.posterior.cpu.query_tables import QueryTables
from kernels.posterior.cpu.results import Found, Queries, by_tiles
from kernels.posterior.cpu.threads import cores, in_turn

SCORE_ERROR = 1e-5
"""Nats: what the scores may get wrong of all moments together, one standard deviation."""
LEAST_SHARE = 2.0**-12
"""Where samples of a lesser share would have to be weighed one by one, the query is left unanswered."""
NEAR = 10.0
"""Standard deviations of a score's error within which the highest is looked for."""
EQUAL = 1e-6
"""Nats within which all scores of a query are taken for equal: then all is noise."""
SURPRISE = 3.0
"""How many times as large as expected, or as `SCORE_ERROR`, the errors of the heavy samples' scores may turn out."""
LEAST_SPREAD = 0.002
"""Of the mean square distance from the data's centre: below it float32 would show in the variance of the light samples,
and a query is left unanswered."""
FAR = 4
"""Samples are moved to the centre before the products where ‖centre‖² exceeds so many times their mean square distance from it."""
BLOCK = 2**21
"""Numbers of the samples that a core takes at once, unless their scores are too many."""
SLIP = 5e-6
"""Of the velocity's scale: what may be wrong of the mean by what is not summed, and by float32's sums of the rest."""
FEW = 0.2
"""Share of the weights of a block up to which samples are summed one by one, at three times what a matrix product takes for each."""
SHARES = 4
"""Parts of a pass for each core."""
ROOM = 2**14
"""Heavy pairs that each core has room for at a time."""


def dense_posterior(index: Index, queries: Queries, rows: Int[np.ndarray, " m"], into: Found) -> None:
    """Moments of the queries `rows`, all with σ > 0, put into `into`, exact to float32; those for which that cannot be said, not."""
    by_tiles(index, queries, rows, lambda part, tile, _: dense_tile(index, part, tile), into)


class Scores(NamedTuple):
    """What is known of the scores of some queries before they are computed."""

    error: Float[np.ndarray, " B"]
    """`error_of_scores`."""
    equal: Bool[np.ndarray, " B"]
    """Whether they are all the same, but for the prior."""

    @classmethod
    def of(cls, index: Index, queries: Queries) -> "Scores":
        """Of queries of the path; others are found out later."""
        x, alpha, sigma, _, _ = queries
        rate, kappa = alpha / sigma**2, alpha**2 / (2 * sigma**2)
        along, center = x @ index.center, float(index.center @ index.center)
        squares = np.maximum(np.einsum("qi,qi->q", x, x) - 2 * alpha * along + alpha**2 * center, 0)  # ‖x - α c‖²
        size = 0.0 if _far(index) else np.abs(rate * (along - alpha * center))
        size += kappa * index.mean_square + np.maximum(0, squares / (2 * sigma**2) - index.d / 2)
        size += 2 * rate * np.sqrt(squares * index.mean_square / index.d)  # of sums on the way
        equal = rate * np.sqrt(squares) * index.radius + kappa * index.radius**2 < EQUAL
        return cls(error_of_scores(index.d, size), equal)

    @property
    def share(self) -> Float[np.ndarray, " B"]:
        """Which share of a query's weight a sample must have to be weighed by itself: others make errors that add up to `SCORE_ERROR`."""
        return np.minimum(1, (SCORE_ERROR / np.maximum(self.error, SCORE_ERROR)) ** 2)


def error_of_scores(d: int, size: Float[np.ndarray, " B"]) -> Float[np.ndarray, " B"]:
    """Standard deviation of what float32 gets wrong of a score of some size, nats: D sums, rounded at about that size."""
    return UNIT / 3 * d**0.5 * size


def exact_enough(index: Index, queries: Queries) -> Bool[np.ndarray, " B"]:
    """Which queries this pass gets right, as far as that can be told beforehand; σ > 0."""
    return Scores.of(index, queries).share >= LEAST_SHARE


def _far(index: Index) -> bool:
    return bool(np.sum(index.center**2) > FAR * index.mean_square)


def dense_tile(index: Index, part: slice, queries: Queries) -> Found:
    """`dense_posterior` for one tile of queries, over a part of the samples."""
    b = len(queries.x)
    aim = QueryTables.at(index, queries.x, queries.alpha, queries.sigma)
    expected = Scores.of(index, queries)
    light, left_out, peak, top, pairs = _pass(index, part, aim, expected)
    heavy = Heavy.at(index, queries, top)
    rise = peak - heavy.score  # float32's word on the same sample
    scale = np.exp(rise)
    sums = light.sums * np.stack([scale, scale**2, scale, scale])
    sums[2] += rise * sums[0]
    every, unknown = np.full(b, np.inf), np.zeros(len(pairs.rows))
    light = Light(sums, light.weighted * scale[:, None])
    found, total = moments(index, part, queries, heavy, every, pairs, unknown, unknown > 0, light)
    found.standing[:] = np.bincount(pairs.queries, minlength=b)
    found.error_bound[:] = scale * left_out / total * 2 * index.radius
    size = np.abs(heavy.score) + aim.kappa * index.square_norms[top]
    as_expected = error_of_scores(index.d, size) <= SURPRISE * np.maximum(expected.error, SCORE_ERROR)
    slip = found.error_bound + 4 * UNIT * sums[0] / total * index.radius
    moving = np.linalg.norm(found.denoised - queries.velocity_center[:, None] * queries.x, axis=1)
    found.answered[:] = as_expected & (expected.share >= LEAST_SHARE) & (found.variance >= LEAST_SPREAD * sums[3] / total)
    found.answered[:] &= slip <= SLIP * moving
    return found


def _pass(index: Index, part: slice, aim: QueryTables, expected: Scores) -> tuple[Light, np.ndarray, np.ndarray, np.ndarray, Pairs]:
    """The sums of the light, relative to the highest score; the weight of what is not summed; that score, about the centre; whose it
    is; the heavy by name."""
    b, n = len(aim.kappa), part.stop - part.start
    count = min(SHARES * cores(), n)
    cuts = [part.start + n * k // count for k in range(count + 1)]
    every = in_turn(count, lambda k: _Share(index, aim, expected).over(cuts[k], cuts[k + 1]))
    peak = np.max([one.peak for one in every], axis=0)
    sums, weighted = np.zeros((6, b)), np.zeros((b, index.d))
    top = np.full(b, part.start, np.int32)
    for one in every:
        one.lower_to(peak)
        sums += one.sums
        weighted += one.weighted
        top = np.where(one.own == peak, one.top, top)
    first = part.start + np.flatnonzero(index.log_prior[part] == index.log_prior[part].max())
    top = np.where(expected.equal, first[index.original[first].argmin()], top).astype(np.int32)
    about = index.center.astype(np.float32) if _far(index) else np.zeros(index.d, np.float32)
    weighted += sums[0][:, None] * about
    return (
        Light(sums[:4], weighted),
        sums[5],
        peak - aim.g @ (index.center - about),
        top,
        Pairs.together([pairs for one in every for pairs in one.heavy]),
    )


class _Share:
    """A pass over some of the samples."""

    def __init__(self, index: Index, aim: QueryTables, expected: Scores):
        b = len(aim.kappa)
        self._index, self._kappa, self._expected = index, aim.kappa.astype(np.float32), expected
        self._directions = np.ascontiguousarray(aim.g.T, np.float32)
        self._shift = index.center.astype(np.float32) if _far(index) else None
        self._near = np.where(expected.equal, np.inf, np.minimum(np.exp(-NEAR * expected.error), 1 - 4 * UNIT))
        self.own = np.full(b, -np.inf, np.float32)
        self.peak, self.top = self.own.astype(np.float64), np.zeros(b, np.int32)
        self.sums, self.weighted = np.zeros((6, b)), np.zeros((b, index.d))
        self.heavy = [Pairs.none()]

    def over(self, start: int, stop: int) -> "_Share":
        """These rows."""
        b, d = self.weighted.shape
        size = max(1, min(ROWS, BLOCK // d, stop - start))
        scores, product = np.empty((size, b), np.float32), np.empty((b, d), np.float32)
        memory = None if self._shift is None and self._index.rows.dtype == np.float32 else np.empty((size, d), np.float32)
        for first in range(start, stop, size):
            rows = self._index.rows[first : min(first + size, stop)]
            if memory is not None:
                own = memory[: len(rows)]
                rows = np.subtract(rows, 0 if self._shift is None else self._shift, out=own, dtype=np.float32)
            self._add(first, rows, np.matmul(rows, self._directions, out=scores[: len(rows)]), product)
        return self

    def _add(self, start: int, rows: np.ndarray, scores: np.ndarray, product: np.ndarray) -> None:
        """One block."""
        index = self._index
        numba_kernels.highest(scores, start, self._kappa, index.square_norms, index.log_prior, self.own, self.top)
        scale = np.exp(self.peak - self.own)
        self.lower_to(self.own, weighted=False)
        total = self.sums[4]
        if not total.any():  # nothing is known yet of what a sample's share will be
            first = np.zeros_like(self.sums)
            self._weigh(scores.copy(), start, 0 * total, np.full(len(total), np.inf), first)
            total = first[4]
        limit = np.minimum(self._expected.share * total, self._near)
        count = self._weigh(scores, start, HIDDEN / index.n * total, limit, self.sums)
        if count <= FEW * scores.size:
            product[:] = 0
            numba_kernels.add_rows(scores, rows, product)
        else:
            np.matmul(scores.T, rows, out=product)
        numba_kernels.add_scaled(self.weighted, scale, product)

    def _weigh(self, scores: np.ndarray, start: int, negligible: np.ndarray, limit: np.ndarray, sums: np.ndarray) -> int:
        """Scores to weights; what is heavy, to the list. How many are not 0."""
        first, count = 0, 0
        bounds = negligible.astype(np.float32), limit.astype(np.float32)
        while first < len(scores):
            rows, queries = np.empty(ROOM, np.int32), np.empty(ROOM, np.int32)
            of_rows = scores, first, start, self._index.square_norms
            first, at, more = numba_kernels.weigh(*of_rows, self.own, *bounds, sums, rows, queries, 0)
            count += more
            if at:
                self.heavy.append(Pairs(rows[:at], queries[:at], np.zeros(at), np.full(at, np.inf)))
        return count

    def lower_to(self, peak: np.ndarray, *, weighted: bool = True) -> None:
        """Weights relative to another peak."""
        with np.errstate(invalid="ignore"):
            fall = np.where(np.isneginf(self.peak), 0, self.peak - peak)
        scale = np.exp(fall)
        self.sums[2] += fall * self.sums[0]
        self.sums *= np.stack([scale, scale**2, scale, scale, scale, scale])
        if weighted:
            self.weighted *= scale[:, None]
        self.peak = np.asarray(peak, np.float64)
