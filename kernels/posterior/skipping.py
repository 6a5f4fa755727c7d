"""The posterior without going through all samples: bounds of all scores from a sketch, then the few that could matter exactly.

Refinement gives nearly all weight to one sample, so late in time almost nothing needs to be looked at. What is left out is left out with
a certificate: with K samples standing, the others weigh less than `N exp(-cut)` of the heaviest, where the cut is chosen so that float32
rounding hides it. Driven by the host, hence not under tracing.
"""

import math

import numpy as np
from jaxtyping import Float, Int

from kernels.posterior.cores import cores, on_every_core, share
from kernels.posterior.found import Found, Queries, by_tiles, log_density_of, pieces, tile_width
from kernels.posterior.sketch import PRODUCTS, Direction, Sketch

HIDDEN = 1e-7
"""Share of a query's weight that a float32 result cannot show; less where the data are wide beside the velocity."""
UNIT = 2.0**-24
LEAST_DENSE = 32
"""A dense pass for fewer queries costs as much: it waits for memory."""
SURPRISE = 30.0
"""Nats by which a sample may outweigh all those with the highest bounds before weights are made anew, relative to its own."""
ROOM = 0.08
"""Share of all pairs of query and sample that there is room for at first; where more stand, they are collected again."""


def posterior_by_sketch(
    sketch: Sketch,
    queries: Queries,
    rows: Int[np.ndarray, " m"],
    into: Found,
    *,
    tolerance: float = 0.0,
    dense: float = math.inf,
) -> None:
    """Exact moments of the queries `rows`, all with α > 0 and σ > 0, put into `into`.

    Args:
      tolerance: share of a query's weight that may be left out; no less than rounding hides is, anyway.
      dense: what a pass over all samples costs a query, as a share of looking at them all one by one: queries for which that is cheaper are
        left unanswered.
    """
    by_tiles(sketch, queries, rows, lambda part, tile: Bounds(sketch, part, tile, tolerance).answer(dense), into)


class Bounds:
    """A tile of queries, and an upper bound of each of their scores on a part of the samples."""

    def __init__(self, sketch: Sketch, part: slice, queries: Queries, tolerance: float):
        self.sketch, self.part, self.queries = sketch, part, queries
        x, alpha, sigma, still, _ = queries
        self._blocks = sketch.blocks_of(part)
        b, wide = len(x), tile_width(len(x))
        direction = Direction.of(sketch, x, alpha, sigma, 1)
        bytes_ = np.zeros((sketch.d, wide), np.int8)
        bytes_[:, :b] = direction.digits[:, 0].T
        self._products = [PRODUCTS.of(block.digits[0], bytes_) for block in self._blocks]
        length, lost, kappa = direction.length, direction.lost, direction.curvature
        factors = direction.unit * sketch.unit, lost * (1 + 1e-6), length * (1 + 1e-6), kappa
        self._factors = tuple(_wide(v, wide, 0.0).astype(np.float32) for v in factors)
        self._of_rows = sketch.lengths, sketch.hidden, sketch.norms32, sketch.prior32
        # Float32 may round a bound by `_slack`.
        size = (length + lost) * (sketch.reach + sketch.radius) + kappa * sketch.radius**2 + sketch.largest_prior
        self._shift, self._slack = direction.shift, 12 * UNIT * size
        self._scores = [np.asarray(scores) for scores in self._products]
        self._promising()
        heavy = sketch.rows[self.nearest].astype(np.float64)
        square = np.sum((x - alpha[:, None] * heavy) ** 2, axis=1)
        moving = np.sum((heavy - still[:, None] * x) ** 2, axis=1)
        width = 4 * sketch.radius**2 / np.maximum(np.minimum(moving, square), 1e-60)
        self.cut = np.log((part.stop - part.start) / np.maximum(HIDDEN / np.maximum(1, width), tolerance))

    def _promising(self) -> None:
        """The heaviest of the samples with the highest bounds, by their exact weights: `peak` and `nearest`."""
        wide = len(self._factors[0])

        def work(core: int) -> list[np.ndarray]:
            from kernels.posterior import native

            some = []
            for block, a, b in self._share(core):
                best, where = np.full(wide, -np.inf, np.float32), np.full(wide, self.part.start, np.int32)
                native.highest(self._scores[block], a, b, self._blocks[block].start, *self._factors, *self._of_rows, best, where)
                some.append(where[: len(self.queries.x)])
            return some

        rows = np.concatenate([np.stack(some) for some in on_every_core(work) if some])
        queries = np.tile(np.arange(rows.shape[1], dtype=np.int32), len(rows))
        rows = rows.reshape(-1)

        def weigh(core: int) -> tuple[np.ndarray, np.ndarray]:
            from kernels.posterior import native

            x, alpha, sigma, _, _ = self.queries
            peak, whose = np.full(len(x), -np.inf), np.full(len(x), self.part.start, np.int32)
            sketch = self.sketch
            native.heaviest(
                x, alpha, sigma, sketch.rows, sketch.log_prior, sketch.index, rows, queries, *share(len(rows), core), peak, whose
            )
            return peak, whose

        self.peak, self.nearest = self._highest(on_every_core(weigh))

    def _least(self) -> Float[np.ndarray, " W"]:
        """Bounds below these belong to samples below the cut."""
        least = (self.peak - self.cut - self._shift - self._slack).astype(np.float32)
        return _wide(np.nextafter(least, np.float32(-np.inf)), len(self._factors[0]), np.inf)

    def _share(self, core: int) -> list[tuple[int, int, int]]:
        first, last = share(self.part.stop - self.part.start, core)
        return list(pieces([block.stop - block.start for block in self._blocks], first, last))

    def standing(self) -> Int[np.ndarray, " B"]:
        """How many samples of each query are not left out by their bounds."""
        return self._collected(self._least(), 0)[2]

    def answer(self, dense: float) -> Found:
        """Weigh those that stand, of the queries for which that is cheaper than a dense pass: see `posterior_by_sketch`."""
        b, n = len(self.queries.x), self.part.stop - self.part.start
        least = self._least()
        room = ROOM * b * n // cores() + 64
        rows, queries, standing = self._collected(least, int(room))
        answered = standing <= dense * n
        if standing[~answered].sum() <= dense * n * max((~answered).sum(), LEAST_DENSE):
            answered[:] = True
        if not answered.all() or standing.sum() > len(rows):
            least[:b][~answered] = np.inf
            rows, queries, _ = self._collected(least, int(standing[answered].sum()))
        PRODUCTS.give_back(self._products)
        found = Found.none(b, self.sketch.d)
        found.standing[:] = standing
        if answered.any():
            self._moments(rows, queries, found)
            found.error_bound[:] = (found.error_bound + (n - standing) * np.exp(-self.cut)) * found.top1_weight * 2 * self.sketch.radius
        found.answered[:] = answered
        return found

    def _moments(self, rows: np.ndarray, queries: np.ndarray, found: Found) -> None:
        """Those of the pairs, into `found`; as `error_bound` the weight of those below the cut, of the heaviest's."""
        peak, heaviest, mean, sums = self.weighed(rows, queries)
        with np.errstate(invalid="ignore", divide="ignore"):  # of those that have no pairs
            total, square, score, away, _, _, below = sums.T
            mean /= total[:, None]
            top1 = np.exp(peak - self.peak) / total
            found.denoised[:] = self.sketch.rows[self.nearest] + mean
            found.log_density[:] = log_density_of(self.sketch, self.part, self.peak + np.log(total), self.queries.sigma)
            found.top1_weight[:] = top1
            found.entropy[:] = np.maximum(np.log(total) - score / total, 0)
            found.effective_samples[:] = total**2 / square
            found.variance[:] = np.maximum(away / total - np.sum(mean**2, axis=1), 0)
            found.error_bound[:] = below / total / top1
        found.top1_index[:] = self.sketch.index[heaviest]

    def _collected(self, least: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pairs of sample and query that stand, as many as there is room for on each core, those of a sample together, so that it is read
        once for all its queries; and how many there are of each query, room or not."""
        b = len(self.queries.x)

        def work(core: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            from kernels.posterior import native

            rows, queries, standing, at = np.empty(room, np.int32), np.empty(room, np.int32), np.zeros(len(least), np.int32), 0
            for block, a, e in self._share(core):
                scores, start = self._scores[block], self._blocks[block].start
                at = native.collect(scores, a, e, start, *self._factors, *self._of_rows, least, standing, rows, queries, at)
            return rows[:at], queries[:at], standing[:b]

        rows, queries, standing = zip(*on_every_core(work), strict=True)
        return np.concatenate(rows), np.concatenate(queries), np.sum(standing, axis=0, dtype=np.int64)

    def _exact_down_to(self, peak: np.ndarray) -> Float[np.ndarray, " B"]:
        """How far below the peak a log weight may lie for float32 to do: what it gets wrong there weighs less than 1e-8."""
        error = 2e-6 * (np.abs(peak) + self.cut)
        return np.where(error < 1, np.maximum(10.0, np.log(1e8 * error + 1e-300)), np.inf)

    def weighed(self, rows: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of pairs: the highest log weight of each query, whose it is, and with weights relative to `peak` Σ w (y - base) and the sums of
        `native.add_pairs`, with all of Σ w ‖y - base‖² in the fourth."""
        x, alpha, sigma, _, _ = self.queries
        sketch, exact = self.sketch, self._exact_down_to(self.peak)
        base, x32, alpha32 = sketch.rows[self.nearest].astype(np.float64), x.astype(np.float32), alpha.astype(np.float32)
        of_rows = sketch.rows, sketch.square_norms, sketch.log_prior, sketch.index

        def work(core: int) -> tuple[np.ndarray, ...]:
            from kernels.posterior import native

            mean, light, sums = np.zeros(base.shape), np.zeros(base.shape, np.float32), np.zeros((len(base), 7))
            highest, whose = self.peak.copy(), self.nearest.copy()
            pairs = rows, queries, *share(len(rows), core)
            result = mean, light, sums, highest, whose
            native.add_pairs(x, alpha, sigma, x32, alpha32, *of_rows, base, self.peak, self.cut, exact, *pairs, *result)
            return result

        every = on_every_core(work)
        peak, heaviest = self._highest([one[3:] for one in every])
        if (peak - self.peak > SURPRISE).any():  # then the weights may overflow
            self.peak, self.nearest = peak, heaviest
            return self.weighed(rows, queries)
        mean, light, sums = (np.sum(v, axis=0) for v in zip(*(one[:3] for one in every), strict=True))
        moved = light - sums[:, 4, None] * base
        # Σ w ‖y - base‖² = Σ w ‖y - c‖² - 2 Σ w (y - base)·(base - c) - Σ w ‖base - c‖²
        away = base - sketch.center
        sums[:, 3] += np.maximum(sums[:, 5] - 2 * np.sum(moved * away, axis=1) - sums[:, 4] * np.sum(away**2, axis=1), 0)
        return peak, heaviest, mean + moved, sums

    def _highest(self, every: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, np.ndarray]:
        """Of what each core found as highest log weight, and whose: the caller's lowest index among equals."""
        peaks, whose = (np.stack(v) for v in zip(*every, strict=True))
        lowest = np.where(peaks == peaks.max(axis=0), self.sketch.index[whose], np.iinfo(np.int32).max).argmin(axis=0)
        own = np.arange(peaks.shape[1])
        return peaks[lowest, own], whose[lowest, own]


def _wide(v: np.ndarray, wide: int, fill: float) -> np.ndarray:
    return np.concatenate([v, np.full(wide - len(v), fill, v.dtype)])
