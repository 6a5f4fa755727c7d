"""The posterior without going through all samples: bounds of all scores from a sketch, then the few that could matter exactly.

Refinement gives nearly all weight to one sample, so late in time almost nothing needs to be looked at. What is left out is left out with
a certificate: with K samples standing, the others weigh less than `N exp(-cut)` of the heaviest, where the cut is chosen so that float32
rounding hides it. Driven by the host, hence not under tracing.

Three looks, each at what the one before has left: at some columns of all samples, by a matrix product; at bytes of a sample; at itself.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from kernels.posterior import native
from kernels.posterior.byte_products import multiply, panels_of
from kernels.posterior.cores import cores, on_every_core
from kernels.posterior.found import Found, Queries, by_tiles
from kernels.posterior.sketch import BYTES, FINE, LEVELS, ROWS, Aim, Sketch
from kernels.posterior.weighing import HIDDEN, Heavy, Pairs, moments

LIGHT, WRONG = 10.0, 1e-8
"""Nats below the peak from which a sample may be weighed by its bytes, where what they get wrong weighs less than this."""
ROOM = 2**16
"""Pairs that each core has room for at first."""
RUN = 128
"""Samples of which the best by estimate is looked at, for a floor of the scores."""
APART = 16
"""Numbers between the scores of two queries, so that they do not share the same places of a cache."""
TYPICAL = 5.0
"""Standard deviations by which the noise of a query of the path may exceed its mean, in a first guess of the highest score."""


def posterior_by_sketch(
    sketch: Sketch,
    queries: Queries,
    rows: Int[np.ndarray, " m"],
    into: Found,
    *,
    tolerance: float = 0.0,
    level: Int[np.ndarray, " B"] | int = FINE,
    most: Float[np.ndarray, " B"] | float = np.inf,
) -> None:
    """Exact moments of the queries `rows`, all with α > 0 and σ > 0, put into `into`.

    Args:
      tolerance: share of a query's weight that may be left out; no less than rounding hides is, anyway.
      level: `[B]`, of `LEVELS`: how many coordinates stand by themselves in the first bounds; or `BYTES`.
      most: `[B]` share of the samples whose bytes may be looked at: queries of which more stand are left unanswered.
    """
    every, most = np.broadcast_to(level, len(queries.x)), np.broadcast_to(most, len(queries.x))
    for one in np.unique(every[rows]):
        some = rows[every[rows] == one]
        by_tiles(sketch, queries, some, lambda part, tile, mine: Look(sketch, part, tile, tolerance).answer(int(one), most[mine]), into)  # noqa: B023


class Look:
    """A tile of queries, and the samples that stand for them."""

    def __init__(self, sketch: Sketch, part: slice, queries: Queries, tolerance: float):
        self.sketch, self.part, self.queries, self._tolerance = sketch, part, queries, tolerance
        x, alpha, sigma, _, _ = queries
        self._aim = Aim.at(sketch, x, alpha, sigma)
        self.seen = np.zeros(len(x), np.int64)
        """How many samples' bytes have been looked at."""

    @property
    def _n(self) -> int:
        return self.part.stop - self.part.start

    def answer(self, level: int, most: Float[np.ndarray, " B"]) -> Found:
        """Moments of the queries but those that are given up: see `posterior_by_sketch`."""
        heavy, cut, pairs = self.standing(level, most * self._n)
        logs = pairs.values + (self._aim.constant - heavy.peak)[pairs.queries]
        highest = logs + pairs.widths
        sure = (highest < -LIGHT) & (pairs.widths * np.exp(np.minimum(highest, 0)) < WRONG)
        found, _ = moments(self.sketch, self.part, self.queries, heavy, cut, pairs, logs, sure)
        found.standing[:] = np.bincount(pairs.queries, minlength=len(cut))
        found.error_bound[:] = (found.error_bound + self._n * np.exp(-cut)) * found.top1_weight * 2 * self.sketch.radius
        found.answered[:] = self.seen <= most * self._n
        return found

    def standing(self, level: int, most: Float[np.ndarray, " B"]) -> tuple[Heavy, Float[np.ndarray, " B"], Pairs]:
        """A heavy sample of each query, how far below it a sample does not matter, and the pairs that may lie above that."""
        x, _, sigma, _, _ = self.queries
        # Guesses first, as if the noise were that of the path: how much may be left out depends on the nearest sample, and what stands on
        # the highest score.
        cut = self._cut(sigma**2 * self.sketch.d / 2)
        spread = self.sketch.d / 2 + TYPICAL * np.sqrt(self.sketch.d / 2)
        guess = -spread - self._aim.constant - 2 * self._aim.widest(self.sketch)
        floor = np.maximum(guess, self._floor()) if level == FINE else guess.copy()
        while True:
            pairs = self._looked(level, cut, floor, most)
            lower = np.full(len(x), -np.inf)
            np.maximum.at(lower, pairs.queries, pairs.values - pairs.widths)
            given_up = self.seen > most
            too_high = (lower < guess) & ~given_up
            if too_high.any():
                guess, floor = np.full(len(x), -np.inf), np.where(too_high, self._floor(), lower)
                continue
            # By the caller's order among equals, so that what is found does not depend on how the work was divided.
            best = np.full(len(x), self.part.start, np.int32)
            at_best = np.flatnonzero(pairs.values - pairs.widths == lower[pairs.queries])[::-1]
            best[pairs.queries[at_best]] = pairs.rows[at_best]
            heavy = Heavy.at(self.sketch, self.queries, best)
            wanted = self._cut(np.minimum(heavy.moving, heavy.square))
            if (wanted > cut)[~given_up].any():
                cut, floor = np.maximum(cut, wanted), np.where(given_up, floor, lower)
                continue
            least = np.maximum(lower, heavy.peak - self._aim.constant) - wanted
            keep = (pairs.values + pairs.widths >= least[pairs.queries]) & ~given_up[pairs.queries]
            return heavy, wanted, pairs.where(keep)

    def _cut(self, square: np.ndarray) -> Float[np.ndarray, " B"]:
        """How far below the peak a sample does not matter, where the velocity's scale is the root of `square`: the wider the data are
        beside it, the farther."""
        width = 4 * self.sketch.radius**2 / np.maximum(square, 1e-60)
        return np.log(self._n / np.maximum(HIDDEN / np.maximum(1, width), self._tolerance))

    def _floor(self) -> Float[np.ndarray, " B"]:
        """Some score of each query, so that the highest does not lie below it: of those that are best by estimate."""
        floors = [np.full(len(self.queries.x), -np.inf) for _ in range(cores())]

        def work(core: int, start: int, n: int, scores: np.ndarray) -> None:
            native.lead(scores, n, start, RUN, self.sketch.table, self._aim, floors[core])

        self._through_columns(LEVELS[0], False, work)
        return np.max(floors, axis=0)

    def _looked(self, level: int, cut: np.ndarray, floor: np.ndarray, most: np.ndarray) -> Pairs:
        """The pairs that stand, and some that do not; `floor` is raised."""
        found: dict[int, list[Pairs]] = {}
        rooms = [Pairs.none(ROOM) for _ in range(cores())]
        seen = [np.zeros(len(cut), np.int64) for _ in range(cores())]
        table, aim = self.sketch.table, self._aim
        below = (cut + aim.slack) * (1 + 1e-6)
        hidden = aim.widest(self.sketch) + aim.slack_of_products
        kappa = aim.kappa.astype(np.float32)

        def until_done(core: int, start: int, n: int, some: Callable[..., tuple[int, int]]) -> None:
            first, found[start] = 0, []
            while first < n:
                first, at = some(first, cut, floor, seen[core], most, *rooms[core], 0)
                found[start].append(Pairs(*(v[:at].copy() for v in rooms[core])))

        def by_columns(core: int, start: int, n: int, bounds: np.ndarray) -> None:
            until_done(core, start, n, lambda first, *rest: native.look(bounds, n, first, start, level == FINE, table, aim, below, *rest))

        def by_products(core: int, start: int, n: int, products: np.ndarray) -> None:
            scores, best, whose = products[:n], np.full(len(cut), -np.inf, np.float32), np.empty(len(cut), np.int32)
            native.highest(scores, start, kappa, table.norms, table.prior, best, whose)
            np.maximum(floor, best + aim.offset - hidden, out=floor)
            least = np.nextafter((floor - cut - hidden - aim.offset).astype(np.float32), np.float32(-np.inf))
            until_done(core, start, n, lambda first, *rest: native.sift(scores, first, start, table, aim, least, *rest))

        if level == BYTES:
            self._through_products(by_products)
        else:
            self._through_columns(level, True, by_columns)
        self.seen = np.sum(seen, axis=0)
        return Pairs.together([one for start in sorted(found) for one in found[start]])

    def _through_columns(self, coordinates: int, bound: bool, work: Callable[[int, int, int, np.ndarray], None]) -> None:
        """`work(core, start, n, scores)` for n rows at a time, with their bounds or estimates in the first n columns."""
        coefficients = self._aim.coefficients(self.sketch, coordinates, bound=bound)
        columns = self.sketch.table.columns[:, -coefficients.shape[1] :]

        def scored(start: int, stop: int, scores: np.ndarray) -> None:
            np.matmul(coefficients, columns[start:stop].T, out=scores[:, : stop - start])

        self._through((len(coefficients), ROWS + APART), scored, work)

    def _through_products(self, work: Callable[[int, int, int, np.ndarray], None]) -> None:
        """The same with what their bytes say of all products, in the first n rows."""
        digits, bits = self.sketch.table.whole.digits, self._aim.whole
        panels, step = panels_of(bits.bits), bits.step.astype(np.float32)

        def scored(start: int, stop: int, products: np.ndarray) -> None:
            multiply(products, digits[start:stop], panels, step)

        self._through((ROWS, len(step)), scored, work)

    def _through(
        self, shape: tuple[int, int], scored: Callable[[int, int, np.ndarray], None], work: Callable[[int, int, int, np.ndarray], None]
    ) -> None:
        parts = iter(range(self.part.start, self.part.stop, ROWS))  # whoever is done takes the next: another's threads may be at work

        def through(core: int) -> None:
            scores = np.empty(shape, np.float32)
            for start in parts:
                stop = min(start + ROWS, self.part.stop)
                scored(start, stop, scores)
                work(core, start, stop - start, scores)

        on_every_core(through)
