"""Moments from pairs of sample and query: candidates are weighed exactly, from differences; other pairs by their approximate scores."""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from kernels.posterior.cpu import numba_kernels
from kernels.posterior.cpu.host_samples import HostSamples
from kernels.posterior.cpu.results import HostMoments, log_density_of
from kernels.posterior.cpu.threads import cores, in_turn
from kernels.posterior.cpu.tuning import TUNING
from kernels.posterior.types import Queries


class Pairs(NamedTuple):
    """Pairs of sample and query."""

    rows: Int[np.ndarray, " P"]
    queries: Int[np.ndarray, " P"]
    values: Float[np.ndarray, " P"]
    """Scores, float64."""
    widths: Float[np.ndarray, " P"]
    """Bounds of the scores' errors; infinite where a score has yet to be computed."""

    @classmethod
    def none(cls, room: int = 0) -> "Pairs":
        """Arrays for `room` pairs, not yet filled."""
        return cls(*(np.empty(room, kind) for kind in (np.int32, np.int32, np.float64, np.float64)))

    @classmethod
    def unscored(cls, rows: Int[np.ndarray, " P"], queries: Int[np.ndarray, " P"]) -> "Pairs":
        """Pairs whose scores have yet to be computed."""
        return cls(rows, queries, np.zeros(len(rows)), np.full(len(rows), np.inf))

    @classmethod
    def together(cls, parts: list["Pairs"]) -> "Pairs":
        """The pairs of all parts."""
        if len(parts) <= 1:
            return parts[0] if parts else cls.none()
        return cls(*(np.concatenate(v) for v in zip(*parts, strict=True)))

    def where(self, keep: np.ndarray) -> "Pairs":
        """The pairs that `keep` selects."""
        return Pairs(*(v[keep] for v in self))


class Pivots(NamedTuple):
    """The pivot of each query: a sample among its heaviest, about which its moments are taken."""

    row: Int[np.ndarray, " B"]
    log_weight: Float[np.ndarray, " B"]
    """`-‖x - α y‖² / 2σ² + log prior`, exact."""
    score: Float[np.ndarray, " B"]
    """The score of `CentredQueries`: `log_weight + ‖x - α c‖² / 2σ²`, without the query's own norm."""
    square: Float[np.ndarray, " B"]
    """‖x - α y‖²."""
    moving: Float[np.ndarray, " B"]
    """‖y - κ x‖²."""

    @classmethod
    def at(cls, task: "Task", rows: Int[np.ndarray, " B"]) -> "Pivots":
        """The sample `rows[q]` for query q."""
        samples, queries = task.samples, task.queries
        square, moving, score = found = np.empty((3, len(rows)))
        task.on_cores(
            len(rows),
            lambda a, b: numba_kernels.around(a, b, queries, samples.center, samples.rows, rows, found),
            least=TUNING.queries_of_a_core,
        )
        prior = samples.log_prior[rows]
        return cls(rows, prior - square / (2 * queries.sigma**2), prior + score, square, moving)


class ApproximateSums(NamedTuple):
    """Sums over samples of little weight each, from approximate scores, with weights w relative to the log weight of `Pivots`."""

    sums: Float[np.ndarray, "4 B"]
    """Σ w, Σ w², Σ w log w, Σ w ‖y - c‖²."""
    weighted: Float[np.ndarray, "B D"]
    """Σ w (y - shift) over `scale`, float32 or float64."""
    scale: Float[np.ndarray, " B"]

    def scaled(self, rise: Float[np.ndarray, " B"]) -> "ApproximateSums":
        """The sums relative to a log weight that is lower by `rise`."""
        rise = np.where(self.sums[0] > 0, rise, 0.0)  # sums over no samples stay 0
        scale = np.exp(rise)
        sums = self.sums * np.stack([scale, scale**2, scale, scale])
        sums[2] += rise * sums[0]
        return ApproximateSums(sums, self.weighted, self.scale * scale)


class Task(NamedTuple):
    """One tile of queries, the samples, and the threads that compute it."""

    samples: HostSamples
    queries: Queries
    alone: bool
    """Whether one thread computes the whole tile, which is so small that to wake another takes longer."""

    def on_cores(self, count: int, work, least: int = 1):  # type: ignore[no-untyped-def]
        """`work(first, last)` over `count` things, divided over the cores if there are `least` for each."""
        parts = 1 if self.alone or count < least * cores() else cores()
        return in_turn(parts, lambda k: work(count * k // parts, count * (k + 1) // parts)) if parts > 1 else [work(0, count)]


class Weighed(NamedTuple):
    """The sizes that the errors of a tile's moments are compared with."""

    total: Float[np.ndarray, " B"]
    """Σ of all weights, relative to the pivot's."""
    moving: Float[np.ndarray, " B"]
    """‖E[y | x] - κ x‖."""
    size: Float[np.ndarray, " B"]
    """‖E[y | x]‖."""


def moments(
    task: Task,
    pivots: Pivots,
    cut: Float[np.ndarray, " B"],
    pairs: Pairs,
    logs: Float[np.ndarray, " P"],
    sure: Bool[np.ndarray, " P"],
    into: HostMoments,
    others: ApproximateSums | None = None,
) -> Weighed:
    """Moments of the queries over these pairs and the other samples, put into all of `into`; whether they are `answered` is not.

    Args:
      cut: nats below the pivot beyond which a pair is left out of the mean. `error_bound` is set to the weight of all such pairs, as a
        share of the heaviest sample's.
      logs: log weights of the pairs relative to the pivot; those that are not `sure` are computed anew, from differences.
      others: sums over samples that no pair names; then no pair is sure.
    """
    order, ranges = _divided(task, pairs.queries)
    pairs, logs, sure = pairs.where(order), logs[order], sure[order]
    pivots, heaviest, found, others = _weighed(task, pivots, cut, pairs, ranges, logs, sure, others)
    samples, queries = task.samples, task.queries
    shift = samples.shift if others is not None else np.zeros(samples.d, np.float32)
    weighted, scale = (found.approximate, np.ones(len(heaviest.rise))) if others is None else (others.weighted, others.scale)
    sizes = np.empty((2, len(heaviest.rise)))
    frame, sums = (samples.rows, pivots.row, samples.center, shift), (found.mean, found.begun, weighted, scale, found.sums)
    weights = log_density_of(samples, queries, pivots.log_weight), heaviest.rise
    result = into.denoised, into.velocity, into.log_density, into.top1_weight, into.entropy, into.effective_samples, into.variance

    def finish(first: int, last: int) -> None:
        numba_kernels.finish(first, last, queries, frame, weights, sums, (*result, into.error_bound, sizes))

    task.on_cores(len(heaviest.rise), finish, TUNING.queries_of_a_core)
    into.top1_index[:] = samples.original[heaviest.row]
    return Weighed(found.sums[:, 0], *sizes)


def _divided(task: Task, queries: Int[np.ndarray, " P"]) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """An order of the pairs of these queries, and from where to where in it each core goes, whose queries are its own.

    Query by query, so that its sums stay in a core's first caches; some pairs at a time, so that samples stay in the last one.
    """
    few = task.alone or len(queries) < TUNING.pairs_of_a_core * cores()
    ends = np.cumsum(np.bincount(queries, minlength=len(task.queries.x)))
    edges = [0] if few else [int(np.searchsorted(ends, len(queries) * k / cores())) for k in range(cores())]
    order: list[np.ndarray] = []
    counts: list[int] = []
    for first, last in zip(edges, [*edges[1:], len(ends)], strict=True):
        own = np.arange(len(queries)) if few else np.flatnonzero((queries >= first) & (queries < last))
        pieces = np.array_split(own, max(1, len(own) // TUNING.pairs_together))
        order += [piece[np.argsort(queries[piece].astype(np.int16), kind="stable")] for piece in pieces]
        counts.append(len(own))
    starts = np.cumsum([0, *counts]).tolist()
    return np.concatenate(order), list(itertools.pairwise(starts))


class _Heaviest(NamedTuple):
    """The heaviest sample of each query."""

    rise: Float[np.ndarray, " B"]
    """Its log weight relative to the pivot's."""
    row: Int[np.ndarray, " B"]


def _weighed(
    task: Task,
    pivots: Pivots,
    cut: np.ndarray,
    pairs: Pairs,
    ranges: list[tuple[int, int]],
    logs: np.ndarray,
    sure: np.ndarray,
    others: ApproximateSums | None,
) -> tuple[Pivots, _Heaviest, numba_kernels.PairSums, ApproximateSums | None]:
    """The pivots, the heaviest samples, the sums of `add_pairs` with those of the others, and the others relative to these pivots."""
    samples, x = task.samples, task.queries.x
    of_samples = samples.rows, samples.square_norms, samples.log_prior, samples.original
    approximate = np.zeros(x.shape, np.float32) if others is None else np.empty((len(x), 0), np.float32)
    highest, whose = np.full(len(x), -np.inf), pivots.row.copy()  # the pivot's own log weight is computed too, so that ties stay ties
    found = numba_kernels.PairSums(np.empty(x.shape), np.zeros(len(x), bool), approximate, np.zeros((len(x), 7)), highest, whose)
    of_queries, of_pairs = (x, task.queries.alpha, task.queries.sigma), (pairs.rows, pairs.queries, logs, sure)
    in_turn(len(ranges), lambda k: numba_kernels.add_pairs(of_queries, of_samples, (pivots.row, cut), of_pairs, *ranges[k], found))
    rise = np.where(np.isneginf(highest), 0, highest)
    if (rise > TUNING.new_pivot).any():  # then the weights may overflow
        others = None if others is None else others.scaled(-rise)
        return _weighed(task, Pivots.at(task, whose), cut, pairs, ranges, logs - rise[pairs.queries], sure, others)
    if others is not None:
        found.sums[:, :3] += others.sums[:3].T
        found.sums[:, 4:6] += others.sums[::3].T
    return pivots, _Heaviest(rise, whose), found, others
