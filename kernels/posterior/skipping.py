"""The posterior without going through all samples: bounds of all scores from a sketch, then the few that could matter exactly.

Refinement gives nearly all weight to one sample, so late in time almost nothing needs to be looked at. What is left out is left out with
a certificate: with K samples standing, the others weigh less than `N exp(-cut)` of the heaviest, where the cut is chosen so that float32
rounding hides it. Driven by the host, hence not under tracing.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from kernels.posterior import native
from kernels.posterior.cores import cores, on_every_core, share
from kernels.posterior.found import TILES, Found, Queries, by_tiles, log_density_of, tile_width
from kernels.posterior.sketch import PRODUCTS, Direction, Sketch

HIDDEN = 1e-7
"""Share of a query's weight that a float32 result cannot show; less where the data are wide beside the velocity."""
UNIT = 2.0**-24
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
    dense: Float[np.ndarray, " B"] | None = None,
) -> None:
    """Exact moments of the queries `rows`, all with α > 0 and σ > 0, put into `into`.

    Args:
      tolerance: share of a query's weight that may be left out; no less than rounding hides is, anyway.
      dense: what a pass over all samples costs each query, as a share of looking at them all one by one: queries for which that is cheaper
        are left unanswered. None: none are.
    """
    by_tiles(
        sketch,
        queries,
        rows,
        lambda part, tile, mine: Bounds(sketch, part, tile, tolerance).answer(None if dense is None else dense[mine]),
        into,
    )


class Pairs(NamedTuple):
    """Pairs of sample and query, those of a sample together, so that it is read once for all its queries."""

    rows: Int[np.ndarray, " P"]
    queries: Int[np.ndarray, " P"]
    bounds: Float[np.ndarray, " P"]

    def where(self, keep: np.ndarray) -> "Pairs":
        """Some of them."""
        return Pairs(*(v[keep] for v in self))


class Bounds:
    """A tile of queries, an upper and a lower bound of each of their scores on a part of the samples, and the samples that stand."""

    def __init__(self, sketch: Sketch, part: slice, queries: Queries, tolerance: float):
        self.sketch, self.part, self.queries = sketch, part, queries
        x, alpha, sigma, still, _ = queries
        b, d, wide = *x.shape, tile_width(len(x))
        direction = Direction.of(sketch, x, alpha, sigma, 1)
        self._bytes = np.zeros((d, wide), np.int8)
        self._bytes[:, :b] = direction.digits[:, 0].T
        length, lost, kappa = direction.length, direction.lost, direction.curvature
        factors = direction.unit * sketch.unit, lost * (1 + 1e-6), length * (1 + 1e-6), kappa
        self._factors = tuple(_wide(v, wide, 0.0).astype(np.float32) for v in factors)
        self._of_rows = sketch.lengths, sketch.hidden, sketch.norms32, sketch.prior32
        # Float32 may round a bound by `_slack`.
        size = (length + lost) * (sketch.reach + sketch.radius) + kappa * sketch.radius**2 + sketch.largest_prior
        self._shift, self._slack = direction.shift, 12 * UNIT * size

        # How much may be left out depends on the nearest sample. A guess first, as if the noise were half that of the path.
        self.cut = self._cut(sigma**2 * d / 2, tolerance)
        self._pairs, self._count, best = self._sifted(np.full(wide, -np.inf, np.float32), int(ROOM * b * self._n / cores()) + 64)
        self.peak, self.nearest = self._heaviest(best)
        self.base, square, moving = np.empty((b, d)), np.empty(b), np.empty(b)
        native.around(x, alpha, still, sketch.rows, self.nearest, self.base, square, moving)
        self._enough = self.cut
        self.cut = self._cut(np.minimum(moving, square), tolerance)

    @property
    def _n(self) -> int:
        return self.part.stop - self.part.start

    def _cut(self, square: np.ndarray, tolerance: float) -> Float[np.ndarray, " B"]:
        """How far below the peak a sample does not matter, where the velocity's scale is the root of `square`."""
        width = 4 * self.sketch.radius**2 / np.maximum(square, 1e-60)
        return np.log(self._n / np.maximum(HIDDEN / np.maximum(1, width), tolerance))

    def _heaviest(self, candidates: Int[np.ndarray, "m B"]) -> tuple[np.ndarray, np.ndarray]:
        """Of a few samples of each query the highest log weight, exact, and whose it is."""
        x, alpha, sigma, _, _ = self.queries
        peak, whose = np.full(len(x), -np.inf), candidates[0].copy()
        every = np.tile(np.arange(len(x), dtype=np.int32), len(candidates))
        of_rows = self.sketch.rows, self.sketch.log_prior, self.sketch.index
        native.heaviest(x, alpha, sigma, *of_rows, candidates.reshape(-1), every, 0, len(every), peak, whose)
        return peak, whose

    def _least(self) -> Float[np.ndarray, " B"]:
        """Bounds below these belong to samples below the cut."""
        least = (self.peak - self.cut - self._shift - self._slack).astype(np.float32)
        return np.nextafter(least, np.float32(-np.inf))

    def _sifted(self, floor: Float[np.ndarray, " W"], room: int) -> tuple[Pairs, Int[np.ndarray, " B"], Int[np.ndarray, "cores B"]]:
        """The pairs within the cut of what is known of the peak, as many as there is room for on each core; how many there are of each
        query, room or not; and the samples with the highest lower bounds."""
        wide, b = len(floor), len(self.queries.x)
        margin = _wide((self.cut + 2 * self._slack).astype(np.float32) * np.float32(1 + 1e-6), wide, 0.0)
        cores_ = [_Sieve(floor, self.part.start, room) for _ in range(cores())]
        for block in self.sketch.blocks_of(self.part):  # its scores are used up while they are in a cache
            product = PRODUCTS.of(block.digits[0], self._bytes)
            scores, n = np.asarray(product), block.stop - block.start

            def work(core: int) -> None:
                own = cores_[core]
                some = scores, *share(n, core), block.start  # noqa: B023
                into = own.floor, own.best, own.standing, own.rows, own.queries, own.bounds
                own.at = native.sift(*some, *self._factors, *self._of_rows, margin, *into, own.at)

            on_every_core(work)
            PRODUCTS.give_back([product])
        pairs = Pairs(*(np.concatenate([getattr(one, name)[: one.at] for one in cores_]) for name in Pairs._fields))
        standing = np.stack([one.standing[:b] for one in cores_]).astype(np.int64).sum(axis=0)
        return pairs, standing, np.stack([one.best[:b] for one in cores_])

    def _again(self, answered: np.ndarray, room: int) -> None:
        """Sift once more, now that the peak is known, for some of the queries."""
        self.cut = np.maximum(self.cut, self._enough)
        floor = _wide(np.where(answered, self._least() + (self.cut + 2 * self._slack), np.inf).astype(np.float32), self._width, np.inf)
        self._pairs, self._count, _ = self._sifted(floor, room)

    @property
    def _width(self) -> int:
        return len(self._factors[0])

    def standing(self) -> Int[np.ndarray, " B"]:
        """How many samples of each query are not left out by their bounds."""
        self._again(np.full(len(self.queries.x), True), 0)
        return self._count

    def answer(self, dense: Float[np.ndarray, " B"] | None = None) -> Found:
        """Weigh those that stand, of the queries for which that is cheaper than a dense pass: see `posterior_by_sketch`."""
        b, n = len(self.queries.x), self._n
        whole = self._count.sum() == len(self._pairs.rows) and (self.cut <= self._enough).all()
        if not whole:
            self._again(np.full(b, True), 0)
        answered = np.full(b, True)
        if dense is not None:
            answered = self._count <= dense * n
            many = (~answered).sum() + TILES[-1]  # of few queries a dense pass costs nearly what it does of many
            answered |= self._count[~answered].sum() <= dense[~answered].max(initial=0) * n * many / 1.5
        standing = self._count
        if not whole and answered.any():
            self._again(answered, int(standing[answered].sum()))
        found = Found.none(b, self.sketch.d)
        found.standing[:] = standing
        if answered.any():
            pairs = self._pairs
            self._moments(pairs.where((pairs.bounds >= self._least()[pairs.queries]) & answered[pairs.queries]), found)
            found.error_bound[:] = (found.error_bound + n * np.exp(-self.cut)) * found.top1_weight * 2 * self.sketch.radius
        found.answered[:] = answered
        return found

    def _moments(self, pairs: Pairs, found: Found) -> None:
        """Those of the pairs, into `found`; as `error_bound` the weight of those below the cut, of the heaviest's."""
        peak, heaviest, mean, sums = self._weighed(pairs)
        with np.errstate(invalid="ignore", divide="ignore"):  # of those that have no pairs
            total, square, score, away, _, _, below = sums.T
            mean /= total[:, None]
            top1 = np.exp(peak - self.peak) / total
            found.denoised[:] = self.base + mean
            found.log_density[:] = log_density_of(self.sketch, self.part, self.peak + np.log(total), self.queries.sigma)
            found.top1_weight[:] = top1
            found.entropy[:] = np.maximum(np.log(total) - score / total, 0)
            found.effective_samples[:] = total**2 / square
            found.variance[:] = np.maximum(away / total - np.einsum("qi,qi->q", mean, mean), 0)
            found.error_bound[:] = below / total / top1
        found.top1_index[:] = self.sketch.index[heaviest]

    def _exact_down_to(self, peak: np.ndarray) -> Float[np.ndarray, " B"]:
        """How far below the peak a log weight may lie for float32 to do: what it gets wrong there weighs less than 1e-8."""
        error = 2e-6 * (np.abs(peak) + self.cut)
        return np.where(error < 1, np.maximum(10.0, np.log(1e8 * error + 1e-300)), np.inf)

    def _weighed(self, pairs: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of pairs: the highest log weight of each query, whose it is, and with weights relative to `peak` Σ w (y - base) and the sums of
        `native.add_pairs`, with all of Σ w ‖y - base‖² in the fourth."""
        x, alpha, sigma, _, _ = self.queries
        sketch, exact = self.sketch, self._exact_down_to(self.peak)
        x32, alpha32 = x.astype(np.float32), alpha.astype(np.float32)
        of_rows = sketch.rows, sketch.square_norms, sketch.log_prior, sketch.index

        def work(core: int) -> tuple[np.ndarray, ...]:
            mean, light, sums = np.zeros(x.shape), np.zeros(x.shape, np.float32), np.zeros((len(x), 7))
            highest, whose = self.peak.copy(), self.nearest.copy()
            some = pairs.rows, pairs.queries, *share(len(pairs.rows), core)
            result = mean, light, sums, highest, whose
            native.add_pairs(x, alpha, sigma, x32, alpha32, *of_rows, self.base, self.peak, self.cut, exact, *some, *result)
            return result

        every = on_every_core(work)
        peak, heaviest = self._highest([one[3:] for one in every])
        if (peak - self.peak > SURPRISE).any():  # then the weights may overflow
            self.peak, self.nearest, self.base = peak, heaviest, sketch.rows[heaviest].astype(np.float64)
            return self._weighed(pairs)
        mean, light, sums = (sum(v[1:], start=v[0]) for v in zip(*(one[:3] for one in every), strict=True))
        if sums[:, 4].any():
            moved = light - sums[:, 4, None] * self.base
            # Σ w ‖y - base‖² = Σ w ‖y - c‖² - 2 Σ w (y - base)·(base - c) - Σ w ‖base - c‖²
            away = self.base - sketch.center
            sums[:, 3] += np.maximum(sums[:, 5] - 2 * np.sum(moved * away, axis=1) - sums[:, 4] * np.sum(away**2, axis=1), 0)
            mean += moved
        return peak, heaviest, mean, sums

    def _highest(self, every: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, np.ndarray]:
        """Of what each core found as highest log weight, and whose: the caller's lowest index among equals."""
        peaks, whose = (np.stack(v) for v in zip(*every, strict=True))
        lowest = np.where(peaks == peaks.max(axis=0), self.sketch.index[whose], np.iinfo(np.int32).max).argmin(axis=0)
        own = np.arange(peaks.shape[1])
        return peaks[lowest, own], whose[lowest, own]


class _Sieve:
    """What one core finds."""

    def __init__(self, floor: Float[np.ndarray, " W"], start: int, room: int):
        self.floor, self.best = floor.copy(), np.full(len(floor), start, np.int32)
        self.standing = np.zeros(len(floor), np.int32)
        self.rows, self.queries, self.bounds, self.at = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.float32), 0


def _wide(v: np.ndarray, wide: int, fill: float) -> np.ndarray:
    return np.concatenate([v, np.full(wide - len(v), fill, v.dtype)])
