"""Pruned search: bounds of scores from an index prune most samples, and the survivors are weighed exactly.

Refinement gives nearly all weight to one sample, so late in time almost no sample needs to be read. Pruning has a certificate: the pruned
samples together weigh less than `N exp(-cut)` of the heaviest, where the cut is chosen so that float32 rounding hides it. The host drives
the search, which therefore does not run under tracing.

Survivors are found in one of two ways. Bounds become finer for ever fewer samples: boxes, columns, bytes (`kernels.posterior.cpu.bounds`).
Or one product with the bytes of all samples scores every sample, at a cost that does not depend on how many survive.
"""

import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

from kernels.posterior.cpu import numba_kernels
from kernels.posterior.cpu.accumulate import Pairs, Pivots, Task, moments
from kernels.posterior.cpu.bounds import (
    LEAF,
    Search,
    bounds_of_leaves,
    multiply,
    panels_of,
    raise_floors,
    survivors_by_bounds,
    survivors_by_scores,
)
from kernels.posterior.cpu.index import Index
from kernels.posterior.cpu.query_tables import QueryTables
from kernels.posterior.cpu.results import HostMoments, by_tiles
from kernels.posterior.cpu.threads import cores, on_every_core, share
from kernels.posterior.cpu.tuning import TUNING
from kernels.posterior.types import Queries


def pruned_posterior(
    index: Index,
    queries: Queries,
    rows: Int[np.ndarray, " m"],
    into: HostMoments,
    *,
    tolerance: float = 0.0,
    by_products: Bool[np.ndarray, " B"] | bool = False,
    most: Float[np.ndarray, " B"] | float = np.inf,
) -> None:
    """Exact moments of the queries `rows`, all with α > 0 and σ > 0, put into `into`.

    Args:
      tolerance: share of a query's weight that may be left out; what rounding hides is left out in any case.
      by_products: `[B]`, whether survivors are found by a product with the bytes of all samples, and not by bounds.
      most: `[B]` share of the samples that may be scored by their bytes: a query with more survivors of the bounds is left unanswered.
    """
    every, most = np.broadcast_to(by_products, len(queries.x)), np.broadcast_to(most, len(queries.x))
    for one in np.unique(every[rows]):

        def answer(part: slice, tile: Queries, mine: np.ndarray, products: bool = bool(one)) -> HostMoments:
            return PrunedSearch(index, part, tile, tolerance).answer(products, most[mine])

        by_tiles(index, queries, rows[every[rows] == one], answer, into)


class PrunedSearch:
    """The pruned search for one tile of queries."""

    def __init__(self, index: Index, part: slice, queries: Queries, tolerance: float):
        self.index, self.part, self.queries, self._tolerance = index, part, queries, tolerance
        self._leaves = index.leaves_of(part)
        self._query_tables = QueryTables.at(index, queries.x, queries.alpha, queries.sigma)
        self._task = Task(index, queries, alone=False)
        self.scored = np.zeros(len(queries.x), np.int64)
        """Number of samples scored by their bytes, for each query."""
        self.counts = np.zeros(3, np.int64)
        """How many leaves have been bounded, for one query each, by the first columns, more of them, and bytes of other coordinates."""

    @property
    def _n(self) -> int:
        return self.part.stop - self.part.start

    def answer(self, by_products: bool, most: Float[np.ndarray, " B"]) -> HostMoments:
        """Moments of the queries; those with too many survivors are not answered: see `pruned_posterior`."""
        pivots, cut, pairs = self.survivors(by_products, most * self._n)
        logs = pairs.values - pivots.score[pairs.queries]
        narrow = np.maximum(1, self._width(np.minimum(pivots.moving, pivots.square)) / TUNING.narrow)[pairs.queries]
        highest = logs + pairs.widths
        sure = (highest < -TUNING.by_bytes - np.log(narrow)) & (pairs.widths * np.exp(np.minimum(highest, 0)) < TUNING.bytes_error / narrow)
        out = HostMoments.none(*self.queries.x.shape)
        moments(self._task, pivots, cut, pairs, logs, sure, out)
        out.survivors[:] = np.bincount(pairs.queries, minlength=len(cut))
        out.error_bound[:] = (out.error_bound + self._n * np.exp(-cut)) * out.top1_weight * 2 * self.index.radius
        out.answered[:] = (self.scored <= most * self._n) & (self._query_tables.slack < TUNING.largest_slack)
        return out

    def survivors(
        self, by_products: bool, most: Float[np.ndarray, " B"], *, everywhere: bool = False
    ) -> tuple[Pivots, Float[np.ndarray, " B"], Pairs]:
        """The pivot of each query, the cut in nats below it beyond which samples are pruned, and the pairs that survive.

        Args:
          most: a query for which more samples are scored is given up.
          everywhere: bound the samples of all leaves, even of pruned ones, to measure what a bound costs.
        """
        bounds = self._bounds_of_leaves()
        floor = self._floor(bounds)
        cut = self._cut(self.queries.sigma**2 * self.index.d / 2)  # a first guess: the cut depends on the nearest sample
        while True:
            pairs = (
                self._pairs_by_products(cut, floor, most) if by_products else self._pairs_by_bounds(bounds, everywhere, cut, floor, most)
            )
            lower, given_up = np.full(len(cut), -np.inf), self.scored > most
            np.maximum.at(lower, pairs.queries, pairs.values - pairs.widths)
            # The lowest row among equals, so that the result does not depend on how the work was divided.
            at_best = np.flatnonzero(pairs.values - pairs.widths == lower[pairs.queries])
            at_best = at_best[np.argsort(-pairs.rows[at_best], kind="stable")]
            best = np.full(len(cut), self.part.start, np.int32)
            best[pairs.queries[at_best]] = pairs.rows[at_best]
            pivots = Pivots.at(self._task, best)
            needed = self._cut(np.minimum(pivots.moving, pivots.square))
            if (needed > cut)[~given_up].any():
                cut, floor = np.maximum(cut, needed), np.where(given_up, floor, lower)
                continue
            least = np.maximum(lower, pivots.score) - needed
            keep = (pairs.values + pairs.widths >= least[pairs.queries]) & ~given_up[pairs.queries]
            return pivots, needed, pairs.where(keep)

    def _cut(self, square: np.ndarray) -> Float[np.ndarray, " B"]:
        """Nats below the peak beyond which samples are pruned: more, the wider the data beside the velocity, whose square is `square`."""
        return np.log(self._n / np.maximum(TUNING.hidden / self._width(square), self._tolerance))

    def _width(self, square: np.ndarray) -> np.ndarray:
        """The data's squared diameter, as a multiple of `square`; at least 1."""
        return np.maximum(1, 4 * self.index.radius**2 / np.maximum(square, 1e-60))

    def _bounds_of_leaves(self) -> Float[np.ndarray, "leaves B"]:
        """At least the highest score in each leaf."""
        first, count = self._leaves.start, self._leaves.stop - self._leaves.start
        bounds = np.empty((self._leaves.stop, len(self.queries.x)), np.float32)

        def work(core: int) -> None:
            a, b = share(count, core)
            bounds_of_leaves(first + a, first + b, self.index.table, self._query_tables, bounds)

        on_every_core(work)
        return bounds

    def _floor(self, bounds: Float[np.ndarray, "leaves B"]) -> Float[np.ndarray, " B"]:
        """A lower bound of each query's highest score: the score of a good sample of the leaves whose bounds are highest."""
        b, floor = len(self.queries.x), np.full(len(self.queries.x), -np.inf)
        on_every_core(lambda core: raise_floors(bounds, self._leaves.start, *share(b, core), self.index.table, self._query_tables, floor))
        return floor

    def _pairs_by_bounds(self, bounds: np.ndarray, everywhere: bool, cut: np.ndarray, floor: np.ndarray, most: np.ndarray) -> Pairs:
        """The pairs that survive the bounds, and some that the final cut prunes; `floor` is raised."""
        below = (cut + self._query_tables.slack) * (1 + 1e-6)
        counts = [np.zeros(3, np.int64) for _ in range(cores())]
        infinite, sampled = np.full(len(cut), np.inf, np.float32), bounds[self._leaves.start :: TUNING.every_leaf]
        rounds = [(-infinite, infinite)]
        if (sampled >= floor - below).mean() > TUNING.many_leaves:
            # The best leaves of each query first: their scores raise its floor, which prunes other leaves.
            k = int((1 - TUNING.best_leaves) * len(sampled))
            best = np.partition(sampled, k, axis=0)[k]
            rounds = [(best, infinite), (-infinite, best)]

        def some(lowest: np.ndarray, highest: np.ndarray, core: int, start: int, stop: int, scored: np.ndarray) -> Step:
            search = Search(self.index.table, self._query_tables, below, cut, floor, scored, most, counts[core])
            return lambda first, room: survivors_by_bounds(bounds, lowest, highest, everywhere, search, first, stop, room)

        self.scored[:] = 0
        pairs = [self._through(TUNING.core_rows // LEAF, self._leaves, functools.partial(some, *between), most) for between in rounds]
        self.counts = np.sum(counts, axis=0)
        return Pairs.together(pairs)

    def _pairs_by_products(self, cut: np.ndarray, floor: np.ndarray, most: np.ndarray) -> Pairs:
        """The pairs that survive scores by the bytes of all samples; `floor` is raised."""
        table, query_tables = self.index.table, self._query_tables
        panels, step, kappa = panels_of(query_tables.whole.bits), query_tables.whole.step.astype(np.float32), query_tables.kappa32
        hidden = query_tables.widest(self.index) + query_tables.slack_of_products
        self.scored[:] = 0
        unused = np.zeros(3, np.int64)
        memory = [np.empty((TUNING.core_rows, len(cut)), np.float32) for _ in range(cores())]

        def some(core: int, start: int, stop: int, scored: np.ndarray) -> Step:
            scores, best, whose = memory[core][: stop - start], np.full(len(cut), -np.inf, np.float32), np.empty(len(cut), np.int32)
            multiply(scores, table.whole.digits[start:stop], panels, step)
            numba_kernels.highest(scores, start, kappa, table.norms, table.prior, best, whose)
            np.maximum(floor, best + query_tables.offset - hidden, out=floor)
            least = np.nextafter((floor - cut - hidden - query_tables.offset).astype(np.float32), np.float32(-np.inf))
            search = Search(table, query_tables, cut, cut, floor, scored, most, unused)
            return lambda first, room: survivors_by_scores(scores, least, search, start, first, room)

        return self._through(TUNING.core_rows, slice(self._leaves.start * LEAF, self._leaves.stop * LEAF), some, most)

    def _through(self, size: int, every: slice, some: Callable[[int, int, int, np.ndarray], "Step"], most: np.ndarray) -> Pairs:
        """All pairs that the steps of `some(core, start, stop, scored)` return, for `size` leaves or places at a time."""
        by_part: dict[int, list[Pairs]] = {}
        rooms = [Pairs.none(TUNING.pruned_room) for _ in range(cores())]
        scored = [np.zeros(len(most), np.int64) for _ in range(cores())]
        parts = iter(range(every.start, every.stop, size))  # a core that is done takes the next part: other programs may hold one up

        def work(core: int) -> None:
            for start in parts:
                stop, first, by_part[start] = min(start + size, every.stop), start, []
                step = some(core, start, stop, scored[core])
                while first < stop:
                    first, at = step(first, rooms[core])
                    by_part[start].append(Pairs(*(v[:at].copy() for v in rooms[core])))

        on_every_core(work)
        self.scored += np.sum(scored, axis=0)
        pairs = Pairs.together([one for start in sorted(by_part) for one in by_part[start]])
        pairs = pairs._replace(rows=self.index.row[pairs.rows])
        return pairs.where(pairs.rows >= 0)


Step = Callable[..., tuple[int, int]]
"""A step of a search: `(first, room)` to the place where the next step begins and the number of pairs that were put into `room`."""
