"""The posterior without going through all samples: bounds of scores from an index, then the few that could matter exactly.

Refinement gives nearly all weight to one sample, so late in time almost no sample needs to be read. What is left out is left out with a
certificate: with K survivors, the others weigh less than `N exp(-cut)` of the heaviest, where the cut is chosen so that float32
rounding hides it. Driven by the host, hence not under tracing.

Two ways to the survivors. Bounds of ever fewer samples, ever finer: boxes, columns, bytes (`kernels.posterior.cpu.bounds`). Or a
product with the bytes of all samples, which costs the same however many bounds would leave.
"""

import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

from kernels.posterior.cpu import numba_kernels
from kernels.posterior.cpu.accumulate import Pairs, Pivots, Task, moments
from kernels.posterior.cpu.bounds import LEAF, bounds_of_leaves, multiply, panels_of, raise_floors, survivors_by_bounds, survivors_by_scores
from kernels.posterior.cpu.index import Index
from kernels.posterior.cpu.query_tables import QueryTables
from kernels.posterior.cpu.results import Answer, Queries, by_tiles
from kernels.posterior.cpu.threads import cores, on_every_core, share
from kernels.posterior.cpu.tuning import TUNING


def pruned_posterior(
    index: Index,
    queries: Queries,
    rows: Int[np.ndarray, " m"],
    into: Answer,
    *,
    tolerance: float = 0.0,
    by_products: Bool[np.ndarray, " B"] | bool = False,
    most: Float[np.ndarray, " B"] | float = np.inf,
) -> None:
    """Exact moments of the queries `rows`, all with α > 0 and σ > 0, put into `into`.

    Args:
      tolerance: share of a query's weight that may be left out; no less than rounding hides is, anyway.
      by_products: `[B]`, whether scores are had by a product with the bytes of all samples, and not by bounds.
      most: `[B]` share of the samples that may be scored by their bytes: a query with more survivors of the bounds is left unanswered.
    """
    every, most = np.broadcast_to(by_products, len(queries.x)), np.broadcast_to(most, len(queries.x))
    for one in np.unique(every[rows]):

        def answer(part: slice, tile: Queries, mine: np.ndarray, products: bool = bool(one)) -> Answer:
            return PrunedSearch(index, part, tile, tolerance).answer(products, most[mine])

        by_tiles(index, queries, rows[every[rows] == one], answer, into)


class PrunedSearch:
    """A tile of queries, and the samples that survive for them."""

    def __init__(self, index: Index, part: slice, queries: Queries, tolerance: float):
        self.index, self.part, self.queries, self._tolerance = index, part, queries, tolerance
        self._leaves = index.leaves_of(part)
        self._query_tables = QueryTables.at(index, queries.x, queries.alpha, queries.sigma)
        self.scored = np.zeros(len(queries.x), np.int64)
        """How many samples have been scored by their bytes."""
        self.counts = np.zeros(3, np.int64)
        """How many leaves have been bounded, for one query each, by the first columns, more of them, and bytes of other coordinates."""

    @property
    def _n(self) -> int:
        return self.part.stop - self.part.start

    def answer(self, by_products: bool, most: Float[np.ndarray, " B"]) -> Answer:
        """Moments of the queries but those that are given up: see `pruned_posterior`."""
        pivots, cut, pairs = self.survivors(by_products, most * self._n)
        logs = pairs.values - pivots.score[pairs.queries]
        narrow = np.maximum(1, self._width(np.minimum(pivots.moving, pivots.square)) / TUNING.narrow)[pairs.queries]
        highest = logs + pairs.widths
        sure = (highest < -TUNING.by_bytes - np.log(narrow)) & (pairs.widths * np.exp(np.minimum(highest, 0)) < TUNING.bytes_error / narrow)
        found = moments(Task(self.index, self.part, self.queries, alone=False), pivots, cut, pairs, logs, sure).answer
        found.survivors[:] = np.bincount(pairs.queries, minlength=len(cut))
        found.error_bound[:] = (found.error_bound + self._n * np.exp(-cut)) * found.top1_weight * 2 * self.index.radius
        found.answered[:] = (self.scored <= most * self._n) & (self._query_tables.slack < TUNING.largest_slack)
        return found

    def survivors(
        self, by_products: bool, most: Float[np.ndarray, " B"], *, everywhere: bool = False
    ) -> tuple[Pivots, Float[np.ndarray, " B"], Pairs]:
        """A pivots sample of each query, how far below it a sample does not matter, and the pairs that may lie above that.

        Args:
          most: queries of which more samples are scored are given up.
          everywhere: bound the samples of all leaves, though they are known not to matter: to measure what that costs.
        """
        bounds = self._bounds_of_leaves()
        floor = self._floor(bounds)
        cut = self._cut(self.queries.sigma**2 * self.index.d / 2)  # a guess: how much may be left out depends on the nearest sample
        while True:
            pairs = (
                self._pairs_by_products(cut, floor, most) if by_products else self._pairs_by_bounds(bounds, everywhere, cut, floor, most)
            )
            lower, given_up = np.full(len(cut), -np.inf), self.scored > most
            np.maximum.at(lower, pairs.queries, pairs.values - pairs.widths)
            # The lowest row among equals, so that what is found does not depend on how the work was divided.
            at_best = np.flatnonzero(pairs.values - pairs.widths == lower[pairs.queries])
            at_best = at_best[np.argsort(-pairs.rows[at_best], kind="stable")]
            best = np.full(len(cut), self.part.start, np.int32)
            best[pairs.queries[at_best]] = pairs.rows[at_best]
            pivots = Pivots.at(self.index, self.queries, best)
            wanted = self._cut(np.minimum(pivots.moving, pivots.square))
            if (wanted > cut)[~given_up].any():
                cut, floor = np.maximum(cut, wanted), np.where(given_up, floor, lower)
                continue
            least = np.maximum(lower, pivots.score) - wanted
            keep = (pairs.values + pairs.widths >= least[pairs.queries]) & ~given_up[pairs.queries]
            return pivots, wanted, pairs.where(keep)

    def _cut(self, square: np.ndarray) -> Float[np.ndarray, " B"]:
        """How far below the peak a sample does not matter, where the velocity's scale is the root of `square`: the wider the data are
        beside it, the farther."""
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
        """Some score of each query, so that its highest does not lie below it: of samples of the leaves whose bounds are highest."""
        b, floor = len(self.queries.x), np.full(len(self.queries.x), -np.inf)
        on_every_core(lambda core: raise_floors(bounds, self._leaves.start, *share(b, core), self.index.table, self._query_tables, floor))
        return floor

    def _pairs_by_bounds(self, bounds: np.ndarray, everywhere: bool, cut: np.ndarray, floor: np.ndarray, most: np.ndarray) -> Pairs:
        """The pairs that survive the bounds, and some that do not; `floor` is raised."""
        below = (cut + self._query_tables.slack) * (1 + 1e-6)
        counts = [np.zeros(3, np.int64) for _ in range(cores())]
        infinite, sampled = np.full(len(cut), np.inf, np.float32), bounds[self._leaves.start :: TUNING.every_leaf]
        rounds = [(-infinite, infinite)]
        if (sampled >= floor - below).mean() > TUNING.many_leaves:
            # The best leaves of each query first, for what they have raises its floor, and spares bounds of the others.
            k = int((1 - TUNING.best_leaves) * len(sampled))
            best = np.partition(sampled, k, axis=0)[k]
            rounds = [(best, infinite), (-infinite, best)]

        def some(lowest: np.ndarray, highest: np.ndarray, core: int, start: int, stop: int) -> Step:
            fixed = everywhere, self.index.table, self._query_tables, below, cut, floor, counts[core]
            return lambda first, *more: survivors_by_bounds(bounds, first, stop, lowest, highest, *fixed, *more)

        self.scored[:] = 0
        pairs = [self._through(TUNING.core_rows // LEAF, self._leaves, functools.partial(some, *between), most) for between in rounds]
        self.counts = np.sum(counts, axis=0)
        return Pairs.together(pairs)

    def _pairs_by_products(self, cut: np.ndarray, floor: np.ndarray, most: np.ndarray) -> Pairs:
        """The same by what the bytes of all samples say."""
        table, query_tables = self.index.table, self._query_tables
        panels, step, kappa = panels_of(query_tables.whole.bits), query_tables.whole.step.astype(np.float32), query_tables.kappa32
        hidden = query_tables.widest(self.index) + query_tables.slack_of_products
        self.scored[:] = 0
        memory = [np.empty((TUNING.core_rows, len(cut)), np.float32) for _ in range(cores())]

        def some(core: int, start: int, stop: int) -> Step:
            scores, best, whose = memory[core][: stop - start], np.full(len(cut), -np.inf, np.float32), np.empty(len(cut), np.int32)
            multiply(scores, table.whole.digits[start:stop], panels, step)
            numba_kernels.highest(scores, start, kappa, table.norms, table.prior, best, whose)
            np.maximum(floor, best + query_tables.offset - hidden, out=floor)
            least = np.nextafter((floor - cut - hidden - query_tables.offset).astype(np.float32), np.float32(-np.inf))
            return lambda first, *more: survivors_by_scores(scores, first, start, table, query_tables, least, cut, floor, *more)

        return self._through(TUNING.core_rows, slice(self._leaves.start * LEAF, self._leaves.stop * LEAF), some, most)

    def _through(self, size: int, every: slice, some: Callable[[int, int, int], "Step"], most: np.ndarray) -> Pairs:
        """All pairs that `some(core, start, stop)` finds, `size` things at a time, with their rows; `scored` is counted."""
        found: dict[int, list[Pairs]] = {}
        rooms = [Pairs.none(TUNING.pruned_room) for _ in range(cores())]
        scored = [np.zeros(len(most), np.int64) for _ in range(cores())]
        parts = iter(range(every.start, every.stop, size))  # whoever is done takes the next: another's threads may be at work

        def work(core: int) -> None:
            for start in parts:
                stop, first, found[start] = min(start + size, every.stop), start, []
                step = some(core, start, stop)
                while first < stop:
                    first, at = step(first, scored[core], most, *rooms[core], 0)
                    found[start].append(Pairs(*(v[:at].copy() for v in rooms[core])))

        on_every_core(work)
        self.scored += np.sum(scored, axis=0)
        pairs = Pairs.together([one for start in sorted(found) for one in found[start]])
        pairs = pairs._replace(rows=self.index.row[pairs.rows])
        return pairs.where(pairs.rows >= 0)


Step = Callable[..., tuple[int, int]]
"""From a place on, as far as there is room for pairs: where to go on, and how many there are."""
