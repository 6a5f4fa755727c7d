"""The posterior over all samples on the host: scores and weighted sums by matrix products, weights between them while they are in a cache.

Scores are float32 and wrong by some 1e-5 nats early in time. Over many samples of about equal weight these errors average out. Few samples
have a share of the weight so large that their own error would show: the candidates. They are left out of the sums, weighed from
differences, and put back. Late in time scores are wrong by whole nats, and every sample that may carry weight is a candidate.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from kernels.posterior.cpu import numba_kernels
from kernels.posterior.cpu.accumulate import ApproximateSums, Pairs, Pivots, Task, moments
from kernels.posterior.cpu.host_samples import HostSamples
from kernels.posterior.cpu.results import HostMoments, tiles_of
from kernels.posterior.cpu.threads import cores, in_turn
from kernels.posterior.cpu.tuning import TUNING, UNIT
from kernels.posterior.types import Queries


def dense_posterior(samples: HostSamples, queries: Queries, rows: Int[np.ndarray, " m"], into: HostMoments) -> None:
    """Moments of the queries `rows`, all with σ > 0, put into `into`, exact to float32. Where exactness is not certain, nothing is put.

    Queries that a first pass leaves unanswered are repeated, with all samples whose error could show as candidates.
    """
    _passes(samples, queries, rows, into, TUNING.tile_queries, all_candidates=False)
    left = rows[~into.answered[rows]]
    if left.size:
        _passes(samples, queries, left, into, TUNING.repeated_queries, all_candidates=True)


def _passes(samples: HostSamples, queries: Queries, rows: np.ndarray, into: HostMoments, size: int, *, all_candidates: bool) -> None:
    tiles = tiles_of(samples, queries, rows, size)
    work = sum((part.stop - part.start) * samples.d * len(tile) for part, tile in tiles)
    alone = all((part.stop - part.start) * samples.d <= TUNING.small_class for part, _ in tiles)
    if alone and work > TUNING.one_core and len(tiles) < 2 * cores():
        own = -(-len(rows) // cores())
        alone = own >= TUNING.least_own or len(tiles) > 1
        tiles = tiles_of(samples, queries, rows, min(size, own)) if alone else tiles

    def answer(k: int) -> None:
        part, tile = tiles[k]
        with into.at(tile) as own:
            dense_tile(Task(samples, part, queries.at(tile), alone=alone), own, all_candidates=all_candidates)

    if alone and work > TUNING.one_core:
        in_turn(len(tiles), answer)
    else:
        for k in range(len(tiles)):
            answer(k)


class ExpectedScores(NamedTuple):
    """Queries as a dense pass reads them, and the expected size and error of their scores."""

    directions: Float[np.ndarray, "B D"]
    """(α/σ²)(x - α c), float32."""
    length: Float[np.ndarray, " B"]
    """‖directions‖."""
    curvature: Float[np.ndarray, " B"]
    """α²/2σ²."""
    offset: Float[np.ndarray, " B"]
    """directions · (c - shift), to be subtracted from products with the samples as they are read."""
    error: Float[np.ndarray, " B"]
    """Standard deviation of a score's rounding error, nats: `error_of_scores`."""
    equal: Bool[np.ndarray, " B"]
    """Whether all scores are the same, but for the prior."""
    share: Float[np.ndarray, " B"]
    """Share of a query's weight from which on a sample is a candidate."""
    cut: Float[np.ndarray, " B"]
    """Nats below log Σ w at which all samples together weigh less than float32 shows."""

    @classmethod
    def of(cls, samples: HostSamples, queries: Queries, *, all_candidates: bool) -> "ExpectedScores":
        """For queries on the path. Scores of queries off it are larger, which `dense_tile` detects after the pass.

        Args:
          all_candidates: every sample whose error could show is a candidate; else only samples whose errors would not average out: the
            errors of the others add up to `TUNING.score_error`.
        """
        x, alpha, sigma = queries.x, queries.alpha, queries.sigma
        g, (squares, offset) = np.empty(x.shape, np.float32), np.empty((2, len(x)))
        numba_kernels.directions(x, alpha, sigma, samples.center, samples.center - samples.shift, g, squares, offset)
        variance = sigma**2
        rate, curvature = alpha / variance, alpha**2 / (2 * variance)
        size = np.abs(offset) + curvature * samples.mean_square + np.maximum(0, squares / (2 * variance) - samples.d / 2)
        size += 2 * rate * np.sqrt(squares * samples.mean_square / samples.d)  # intermediate sums
        size = np.where(alpha > 0, size, 0)  # at α = 0 all scores are 0
        equal = rate * np.sqrt(squares) * samples.radius + curvature * samples.radius**2 < TUNING.equal_scores
        width = np.maximum(1, 4 * samples.radius**2 / np.maximum(variance * samples.d / 2, 1e-60))  # squared, over the noise's
        error = error_of_scores(samples.d, size)
        share = 0 * error if all_candidates else np.minimum(1, (TUNING.score_error / np.maximum(error, TUNING.score_error)) ** 2)
        return cls(g, rate * np.sqrt(squares), curvature, offset, error, equal, share, np.log(samples.n * width / TUNING.dense_hidden))

    @property
    def margin(self) -> Float[np.ndarray, " B"]:
        """Upper bound of the rounding error of a difference of two scores, nats."""
        return 2 * TUNING.sure_deviations * self.error


def error_of_scores(d: int, size: Float[np.ndarray, "*B"]) -> Float[np.ndarray, "*B"]:
    """Standard deviation of the float32 rounding error of a score of this size, nats: D sums, each rounded at about that size."""
    return UNIT / 3 * d**0.5 * size


def dense_tile(task: Task, into: HostMoments, *, all_candidates: bool = False) -> None:
    """`dense_posterior` for one tile of queries, over the samples that count for them; `into` has their rows alone."""
    samples, queries, most = task.samples, task.queries, TUNING.most_candidates_of_all if all_candidates else TUNING.most_candidates
    expected = ExpectedScores.of(samples, queries, all_candidates=all_candidates)
    sums = _all_of(task, expected, most)
    top = sums.top
    if expected.equal.any():
        first = task.part.start + np.flatnonzero(samples.log_prior[task.part] == samples.log_prior[task.part].max())
        top = np.where(expected.equal, first[samples.original[first].argmin()], top).astype(np.int32)
    pivots = Pivots.at(samples, queries, top)
    # The sums are relative to the float32 score of the peak, the pivot's weight to its exact score.
    others = ApproximateSums(sums.sums[:4], sums.weighted_sum).scaled(sums.peak - expected.offset - pivots.score)
    pairs = Pairs.together(sums.pairs)
    unknown = np.zeros(len(pairs.rows))
    weighed, approximate = moments(task, pivots, np.full(len(top), np.inf), pairs, unknown, unknown > 0, into, others), others.sums
    with np.errstate(over="ignore", invalid="ignore"):
        left_out = sums.sums[5] * np.exp(np.minimum(sums.peak - expected.offset - pivots.score, 600)) / weighed.total
        left_out = np.where(
            expected.margin > TUNING.left_out_rounding, samples.n * np.exp(-expected.cut), left_out * np.exp(TUNING.left_out_rounding)
        )
        left_out = left_out * 2 * samples.radius
        into.error_bound[:] = np.where(left_out <= UNIT * weighed.size, 0, left_out)  # no more than the mean's own rounding
        size = np.abs(pivots.score) + expected.curvature * samples.square_norms[top]
        as_expected = error_of_scores(samples.d, size) <= TUNING.unexpected_error * np.maximum(expected.error, TUNING.score_error)
        approximate_share = approximate[0] / weighed.total
        slip = left_out + 4 * UNIT * approximate_share * samples.radius
        into.answered[:] = as_expected & (sums.counts <= most) & (slip <= TUNING.velocity_error * weighed.moving)
        into.answered[:] &= into.variance >= TUNING.least_spread * approximate[3] / weighed.total
        into.answered[:] &= _steady(samples, expected, into.variance, weighed.moving) | (approximate_share == 0)
    into.survivors[:] = sums.counts


def _steady(
    samples: HostSamples, expected: ExpectedScores, variance: Float[np.ndarray, " B"], moving: Float[np.ndarray, " B"]
) -> Bool[np.ndarray, " B"]:
    """Whether the part of the scores' rounding that does not average out is too small to show.

    Directions are rounded to float32 once for all samples: by δ, ‖δ‖ ≤ 2⁻²⁴ ‖g‖. That moves scores by δ·(y - mean), and the mean by
    Cov δ. Rounding prefers no direction, so that δ has a component of about ‖δ‖ / √D along any one. Near-copies share all their rounding.
    """
    spread, turn = np.sqrt(variance), 2 * UNIT * expected.length / samples.d**0.5
    steady: Bool[np.ndarray, " B"] = (turn * variance <= TUNING.velocity_error * moving) & (turn * spread <= TUNING.common_rounding)
    if samples.has_near_copies:  # products round their sums alike too
        steady &= (expected.error * spread + 256 * UNIT * samples.radius) <= TUNING.velocity_error * moving
    return steady


def _all_of(task: Task, expected: ExpectedScores, most: int) -> "RunningSums":
    """The sums over all samples of a task."""
    part = task.part
    if task.alone:
        return RunningSums(task.samples, expected, most).over(part.start, part.stop, part.stop - part.start)
    small = (part.stop - part.start) * task.samples.d <= TUNING.small_class
    count = min(cores() * (1 if small else TUNING.shares_per_core), part.stop - part.start)
    cuts = [part.start + (part.stop - part.start) * k // count for k in range(count + 1)]

    def share(k: int) -> RunningSums:
        return RunningSums(task.samples, expected, most).over(cuts[k], cuts[k + 1], cuts[k + 1] - cuts[k] if small else None)

    every = in_turn(count, share)
    for one in every[1:]:
        every[0].merge(one)
    return every[0]


class RunningSums:
    """Sums over a range of the samples, block by block, with weights relative to the highest score so far."""

    def __init__(self, samples: HostSamples, expected: ExpectedScores, most: int):
        b, self._most = len(expected.curvature), most
        self._samples, self._expected, self._curvature = samples, expected, expected.curvature.astype(np.float32)
        self._near = np.where(expected.equal, np.inf, -np.maximum(TUNING.sure_deviations * expected.error, 4 * UNIT))
        self._own = np.full(b, -np.inf, np.float32)
        self.peak = self._own.astype(np.float64)
        """The highest score."""
        self.top = np.zeros(b, np.int32)
        """The sample with the highest score."""
        self.sums = np.zeros((6, b))
        """The six sums of `numba_kernels.weigh`."""
        self.weighted: np.ndarray | None = None
        """Σ w (y - shift) of the samples that are no candidates; float64 where blocks were added up."""
        self.counts = np.zeros(b, np.int64)
        """Number of candidates of each query."""
        self.pairs = [Pairs.none()]
        """The candidates."""

    @property
    def weighted_sum(self) -> np.ndarray:
        """`weighted`, once a block is summed."""
        assert self.weighted is not None
        return self.weighted

    def over(self, start: int, stop: int, size: int | None = None) -> "RunningSums":
        """Add the rows from `start` to `stop`, `size` at a time."""
        samples, b = self._samples, len(self.top)
        size = size or max(1, min(TUNING.core_rows, TUNING.block_numbers // samples.d, stop - start))
        plain = samples.rows.dtype == np.float32 and not samples.far
        scores, memory = np.empty((size, b), np.float32), None if plain else np.empty((size, samples.d), np.float32)
        for first in range(start, stop, size):
            rows = samples.rows[first : min(first + size, stop)]
            if memory is not None:
                rows = np.subtract(rows, samples.shift, out=memory[: len(rows)], dtype=np.float32)
            self._add(first, rows, np.matmul(rows, self._expected.directions.T, out=scores[: len(rows)]))
        return self

    def merge(self, other: "RunningSums") -> None:
        """Add the sums over rows that come after these."""
        self.top = np.where(other.peak > self.peak, other.top, self.top)
        peak = np.maximum(self.peak, other.peak)
        own, scale = self._lower_to(peak), other._lower_to(peak)
        self.sums += other.sums
        self.weighted = own[:, None] * self.weighted_sum + scale[:, None] * other.weighted_sum
        self.counts += other.counts
        self.pairs += other.pairs

    def _add(self, start: int, rows: np.ndarray, scores: np.ndarray) -> None:
        """Add one block."""
        samples = self._samples
        numba_kernels.highest(scores, start, self._curvature, samples.square_norms, samples.log_prior, self._own, self.top)
        scale = self._lower_to(self._own)
        total = self.sums[4]
        averaged = (self._expected.share > 0) & (self._expected.share < 1)
        if averaged.any() and not total.any():  # no weight is summed yet, so that a sample's share is unknown
            total = np.exp(scores - self._own).sum(axis=0)
        whole = np.log(np.maximum(total, 1))  # until then the highest score of this block stands for all weight
        negligible = whole - self._expected.cut - self._expected.margin
        with np.errstate(divide="ignore"):
            limit = np.maximum(np.minimum(np.log(self._expected.share) + whole, self._near), negligible)
        count = self._weigh(scores, start, negligible, limit, self.sums)
        if count <= TUNING.sparse_weights * scores.size:
            product = np.zeros((scores.shape[1], samples.d), np.float32)
            if count:
                numba_kernels.add_rows(scores, rows, product)
        else:
            product = np.matmul(scores.T, rows)
        if self.weighted is None:
            self.weighted = product
            return
        self.weighted = self.weighted.astype(np.float64, copy=False)
        numba_kernels.add_scaled(self.weighted, scale, product)

    def _weigh(self, scores: np.ndarray, start: int, negligible: np.ndarray, limit: np.ndarray, sums: np.ndarray) -> int:
        """Turn scores into weights and list the candidates. Returns how many weights are not 0."""
        first, count = 0, 0
        limits, room = (self._own, negligible.astype(np.float32), limit.astype(np.float32)), max(TUNING.dense_room, scores.shape[1])
        while first < len(scores):
            rows, queries = np.empty((2, room), np.int32)
            candidates = rows, queries, self.counts
            first, at, more = numba_kernels.weigh(scores, first, start, self._samples.square_norms, limits, sums, candidates, self._most)
            count += more
            if at:
                self.pairs.append(Pairs.unscored(rows[:at], queries[:at]))
        return count

    def _lower_to(self, peak: np.ndarray) -> Float[np.ndarray, " B"]:
        """Make the sums relative to another peak. Returns the factor by which `weighted` is still to be scaled."""
        fall = np.where(np.isneginf(self.peak), 0, self.peak - peak)
        scale = np.exp(fall)
        self.sums[2] += fall * self.sums[0]
        self.sums *= np.stack([scale, scale**2, scale, scale, scale, scale])
        self.peak = np.asarray(peak, np.float64).copy()
        return scale
