"""The sums of a dense pass over all samples: scores by one product of matrices, weights from them, weighted sums by another product.

Samples in one of two orders. *At once*: all scores of a tile first, each core those of samples of its own; then all weights; then the
weighted sums, each core those of columns of its own, so that no sums are merged. *Block by block*, where scores of all samples would not
stay in a cache: relative to the highest score so far, each core its own blocks, merged at the end.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from kernels.posterior.cpu import numba_kernels
from kernels.posterior.cpu.accumulate import Pairs, Task
from kernels.posterior.cpu.expected_scores import ExpectedScores
from kernels.posterior.cpu.host_samples import HostSamples
from kernels.posterior.cpu.products import scores_of, weighted_sums
from kernels.posterior.cpu.threads import cores, in_turn
from kernels.posterior.cpu.tuning import TUNING, UNIT


class DenseSums(NamedTuple):
    """Sums over all samples of a tile, with weights relative to the highest score."""

    peak: Float[np.ndarray, " B"]
    """The highest score, as float32 products give it."""
    top: Int[np.ndarray, " B"]
    """The sample with the highest score."""
    sums: Float[np.ndarray, "6 B"]
    """The six sums of `numba_kernels.weigh`."""
    weighted: Float[np.ndarray, "B D"]
    """Σ w (y - shift) of the samples that are no candidates; float64 where they are few, or blocks were added up."""
    counts: Int[np.ndarray, " B"]
    """Number of candidates of each query."""
    pairs: list[Pairs]
    """The candidates."""


def dense_sums(task: Task, groups: list[tuple[slice, slice]], expected: ExpectedScores, most: int) -> DenseSums:
    """The sums of a tile.

    Args:
      groups: rows of samples, and the queries for which they count, as in `dense_tile`.
      most: number of candidates of a query beyond which they are counted, but not kept.
    """
    weighing = [_Weighing.of(task.samples, expected, own, most) for _, own in groups]
    sizes = [part.stop - part.start for part, _ in groups]
    few = min(TUNING.small_class // task.samples.d, TUNING.scores_at_once // len(task.queries.x))
    alone = task.alone or (len(groups) >= 2 * cores() and max(sizes) <= few)

    def of_group(k: int) -> DenseSums:
        return _of_group(weighing[k], groups[k][0], alone=alone)

    every = in_turn(len(groups), of_group) if alone and not task.alone else [of_group(k) for k in range(len(groups))]
    return every[0] if len(every) == 1 else _side_by_side(every, [own.start for _, own in groups])


def _side_by_side(every: list[DenseSums], firsts: list[int]) -> DenseSums:
    """The sums of queries that follow each other, the first of each part at these places."""
    pairs = [one._replace(queries=one.queries + np.int32(first)) for sums, first in zip(every, firsts, strict=True) for one in sums.pairs]

    def of_all(part: Callable[[DenseSums], np.ndarray]) -> np.ndarray:
        return np.concatenate([part(one) for one in every])

    peak, top, counts = of_all(lambda one: one.peak), of_all(lambda one: one.top), of_all(lambda one: one.counts)
    return DenseSums(peak, top, of_all(lambda one: one.sums.T).T, of_all(lambda one: one.weighted), counts, pairs)


def _of_group(weighing: "_Weighing", part: slice, *, alone: bool) -> DenseSums:
    """The sums of queries that see the same samples, the rows `part`.

    Args:
      alone: one thread computes all, because the others have groups of their own.
    """
    n, b = part.stop - part.start, len(weighing.curvature)
    if alone:
        return _merged([_RunningSums(weighing).over(part.start, part.stop, n)])
    if n * b <= TUNING.scores_at_once and (weighing.plain or n * weighing.samples.d <= TUNING.copied_at_once):
        return _at_once(weighing, part)
    count = min(cores() * TUNING.shares_per_core, n)
    cuts = [part.start + n * k // count for k in range(count + 1)]
    return _merged(in_turn(count, lambda k: _RunningSums(weighing).over(cuts[k], cuts[k + 1])))


class _Weighing(NamedTuple):
    """What turns products into scores, weights and candidates."""

    samples: HostSamples
    expected: ExpectedScores
    most: int
    curvature: Float[np.ndarray, " B"]
    """float32."""
    near: Float[np.ndarray, " B"]
    """Nats relative to the highest score from which on a sample is a candidate in any case."""
    by_share: bool
    """Whether a sample's share of the weight decides for some query whether it is a candidate."""

    @classmethod
    def of(cls, samples: HostSamples, expected: ExpectedScores, own: slice, most: int) -> "_Weighing":
        expected = ExpectedScores(*(v[own] for v in expected))
        near = np.where(expected.equal, np.inf, -np.maximum(TUNING.sure_deviations * expected.error, 4 * UNIT))
        by_share = bool(((expected.share > 0) & (expected.share < 1)).any())
        return cls(samples, expected, most, expected.curvature.astype(np.float32), near, by_share)

    @property
    def plain(self) -> bool:
        """Whether products read the samples as they are."""
        return self.samples.rows.dtype == np.float32 and not self.samples.far

    def read(self, start: int, stop: int, memory: np.ndarray | None = None) -> np.ndarray:
        """Rows as products read them; in `memory` where they are not `plain`."""
        rows = self.samples.rows[start:stop]
        return rows if self.plain else np.subtract(rows, self.samples.shift, out=memory, dtype=np.float32)

    def score(self, rows: np.ndarray, start: int, scores: np.ndarray, peak: np.ndarray, top: np.ndarray) -> None:
        """The scores `[n, B]` of rows, the samples from `start` on; `peak` is raised to their highest and `top` set to its sample."""
        scores_of(rows, self.expected.directions, scores)
        numba_kernels.highest(scores, start, self.curvature, self.samples.square_norms, self.samples.log_prior, peak, top)

    def limits(self, peak: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The limits of `numba_kernels.weigh`, from the highest score and the sum of all weights, as far as it is known, relative to it."""
        whole = np.log(np.maximum(total, 1))  # the highest score stands for all weight that is unknown
        negligible = whole - self.expected.cut - self.expected.margin
        with np.errstate(divide="ignore"):
            limit = np.maximum(np.minimum(np.log(self.expected.share) + whole, self.near), negligible)
        return peak.astype(np.float32), negligible.astype(np.float32), limit.astype(np.float32)

    def weigh(self, scores: np.ndarray, start: int, limits: tuple[np.ndarray, ...], sums: np.ndarray, counts: np.ndarray) -> "_Weights":
        """Turn scores into weights, add to the sums and counts, and list the candidates."""
        first, some, pairs, room = 0, 0, list[Pairs](), max(TUNING.dense_room, scores.shape[1])
        while first < len(scores):
            rows, queries = np.empty((2, room), np.int32)
            candidates = rows, queries, counts
            first, at, more = numba_kernels.weigh(scores, first, start, self.samples.square_norms, limits, sums, candidates, self.most)
            some += more
            if at:
                pairs.append(Pairs.unscored(rows[:at], queries[:at]))
        return _Weights(some, pairs)


class _Weights(NamedTuple):
    some: int
    """How many weights of samples that are no candidates are not 0."""
    pairs: list[Pairs]
    """The candidates."""


def _at_once(weighing: _Weighing, part: slice) -> DenseSums:
    """The sums over samples whose scores stay in a cache; see this file's head."""
    b, d = weighing.expected.directions.shape
    n, count = part.stop - part.start, cores()
    rows = weighing.read(part.start, part.stop) if weighing.plain else np.empty((n, d), np.float32)
    scores, peaks, tops = np.empty((n, b), np.float32), np.full((count, b), -np.inf, np.float32), np.zeros((count, b), np.int32)
    totals, sums, counts = np.zeros((count, b)), np.zeros((count, 6, b)), np.zeros((count, b), np.int64)
    cuts = [n * k // count for k in range(count + 1)]

    def score(k: int) -> None:
        own = slice(cuts[k], cuts[k + 1])
        if not weighing.plain:
            weighing.read(part.start + own.start, part.start + own.stop, rows[own])
        weighing.score(rows[own], part.start + own.start, scores[own], peaks[k], tops[k])
        if weighing.by_share:
            numba_kernels.add_weights(scores[own], peaks[k], totals[k])

    in_turn(count, score)
    highest = peaks.argmax(axis=0)
    peak, top = peaks.max(axis=0), tops[highest, np.arange(b)]
    limits = weighing.limits(peak, np.sum(totals * np.exp(np.maximum(peaks - peak, -600)), axis=0))
    every = in_turn(count, lambda k: weighing.weigh(scores[cuts[k] : cuts[k + 1]], part.start + cuts[k], limits, sums[k], counts[k]))
    some = sum(one.some for one in every)
    if some > TUNING.sparse_weights * scores.size:
        product = np.empty((b, d), np.float32)
        edges = [d * k // count // TUNING.columns_together * TUNING.columns_together for k in range(count)] + [d]
        in_turn(count, lambda k: weighted_sums(scores, rows, edges[k], edges[k + 1], product))
    else:
        product = np.zeros((b, d), np.float64 if some else np.float32)
        in_turn(count if some else 0, lambda k: numba_kernels.add_rows(scores, rows, b * k // count, b * (k + 1) // count, product))
    pairs = [pairs for one in every for pairs in one.pairs]
    return DenseSums(peak.astype(np.float64), top, sums.sum(axis=0), product, counts.sum(axis=0), pairs)


class _RunningSums:
    """Sums over a range of the samples, block by block, with weights relative to the highest score so far."""

    def __init__(self, weighing: _Weighing):
        b = len(weighing.curvature)
        self._weighing, self._highest = weighing, np.full(b, -np.inf, np.float32)
        self.peak = self._highest.astype(np.float64)
        self.top = np.zeros(b, np.int32)
        self.sums = np.zeros((6, b))
        self.weighted: np.ndarray | None = None
        """As in `DenseSums`; None as long as every weight is 0."""
        self.counts = np.zeros(b, np.int64)
        self.pairs: list[Pairs] = []

    def over(self, start: int, stop: int, size: int | None = None) -> "_RunningSums":
        """Add the rows from `start` to `stop`, `size` at a time."""
        samples, b = self._weighing.samples, len(self.top)
        size = size or max(1, min(TUNING.core_rows, TUNING.block_numbers // samples.d, stop - start))
        scores, memory = np.empty((size, b), np.float32), None if self._weighing.plain else np.empty((size, samples.d), np.float32)
        for first in range(start, stop, size):
            n = min(size, stop - first)
            self._add(first, self._weighing.read(first, first + n, None if memory is None else memory[:n]), scores[:n])
        return self

    def _add(self, start: int, rows: np.ndarray, scores: np.ndarray) -> None:
        """Add one block."""
        self._weighing.score(rows, start, scores, self._highest, self.top)
        scale = self.lower_to(self._highest)
        total = self.sums[4]
        if self._weighing.by_share and not total.any():  # no weight is summed yet, so that a sample's share is unknown
            numba_kernels.add_weights(scores, self._highest, total := np.zeros(len(scale)))
        found = self._weighing.weigh(scores, start, self._weighing.limits(self._highest, total), self.sums, self.counts)
        self.pairs += found.pairs
        product: np.ndarray | None = None
        if found.some > TUNING.sparse_weights * scores.size:
            product = np.empty((scores.shape[1], rows.shape[1]), np.float32)
            weighted_sums(scores, rows, 0, rows.shape[1], product)
        elif found.some:
            product = np.zeros((scores.shape[1], rows.shape[1]))
            numba_kernels.add_rows(scores, rows, 0, len(product), product)
        if self.weighted is None:
            self.weighted = product
            return
        self.weighted = self.weighted.astype(np.float64, copy=False)
        if product is not None:
            numba_kernels.add_scaled(self.weighted, scale, product)
        elif (scale != 1).any():
            self.weighted *= scale[:, None]

    def lower_to(self, peak: np.ndarray) -> Float[np.ndarray, " B"]:
        """Make the sums relative to another peak. Returns the factor by which `weighted` is still to be scaled."""
        fall = np.where(np.isneginf(self.peak), 0, self.peak - peak)
        scale: np.ndarray = np.exp(fall)
        self.sums[2] += fall * self.sums[0]
        self.sums *= np.stack([scale, scale**2, scale, scale, scale, scale])
        self.peak = np.asarray(peak, np.float64).copy()
        return scale


def _merged(every: list[_RunningSums]) -> DenseSums:
    """The sums of ranges that follow each other."""
    peaks = np.stack([one.peak for one in every])
    peak, top = peaks.max(axis=0), np.stack([one.top for one in every])[peaks.argmax(axis=0), np.arange(peaks.shape[1])]
    scales = [one.lower_to(peak) for one in every]
    b, d = every[0]._weighing.expected.directions.shape
    if len(every) == 1:
        weighted = every[0].weighted
        weighted = np.zeros((b, d), np.float32) if weighted is None else weighted
    else:
        weighted = np.zeros((b, d))
        parts = [(one.weighted, scale) for one, scale in zip(every, scales, strict=True) if one.weighted is not None]

        def add(first: int, last: int) -> None:
            for part, scale in parts:
                numba_kernels.add_to(weighted[first:last], scale[first:last], part[first:last])

        in_turn(cores(), lambda k: add(b * k // cores(), b * (k + 1) // cores()))
    sums, counts = sum(one.sums for one in every), sum(one.counts for one in every)
    return DenseSums(peak, top, np.asarray(sums), weighted, np.asarray(counts), [pairs for one in every for pairs in one.pairs])
