"""The posterior over all samples on the host: scores from products of bytes, weights and sums in float32.

Where many samples count, every score is wanted, and all of them to float32's exactness. The sketch's bytes give them: three bytes of each
number of a query, as many of a sample as its data need (one for images), products that int32 adds up exactly, and what is left out or
rounded is below float32's own rounding. The weighted sum is one float32 matrix product for each block, summed on in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from kernels.posterior import native
from kernels.posterior.cores import on_every_core, one_thread_each, share
from kernels.posterior.found import Found, Queries, by_tiles, log_density_of, tile_width
from kernels.posterior.sketch import BASE, PRODUCTS, Block, Direction, Sketch

SCORE_ERROR = 2e-5
"""Nats. Scores are as exact as that, or a query is left unanswered."""
LEAST_SPREAD = 0.002
"""Of the mean square distance from the data's centre: below it float32 would show in the posterior's variance,
and a query is left unanswered."""
FAR = 4
"""Samples are moved to the centre before they are summed where ‖centre‖² exceeds so many times their mean square distance from it."""
ROWS = 2048
"""Samples whose weights, 1 MB for 128 queries, are made and used up while they are in a core's cache."""
NO_INDEX = np.iinfo(np.int32).max


def posterior_in_fixed_point(sketch: Sketch, queries: Queries, rows: Int[np.ndarray, " m"], into: Found, *, halves: bool = False) -> None:
    """Moments of the queries `rows`, all with σ > 0, put into `into`, exact to float32; those for which that cannot be said, not.

    Args:
      halves: of data that are bytes, sum the samples by products of bfloat16, the weights in two of them each, good to 2⁻¹⁷.
    """
    rows = rows[exact_enough(sketch, queries.at(rows))]
    by_tiles(sketch, queries, rows, lambda part, tile, _: fixed_point_tile(sketch, part, tile, halves), into)


def exact_enough(sketch: Sketch, queries: Queries) -> Bool[np.ndarray, " B"]:
    """Which queries have scores that this pass gets right, thrice what independent errors of each coordinate add up to; σ > 0."""
    x, alpha, sigma, _, _ = queries
    g, largest = np.empty_like(x), np.empty(len(x))
    squares = native.directions(x, alpha, sigma, sketch.center, g, largest)
    unit = largest / 127 / float(BASE) ** 2
    of_queries = unit / 12**0.5 * sketch.typical
    of_samples = sketch.rest / float(BASE) ** (sketch.bytes_needed - 1) * np.sqrt(squares) * alpha / sigma**2
    left_out = 2 * unit * sketch.unit / BASE * (BASE / 4) ** 2 * sketch.d**0.5 if sketch.bytes_needed > 1 else 0.0
    adds_up = sketch.d <= (2**31 - 1) // (127 * 128)  # in int32, products of the second and third bytes too
    return adds_up & (3 * (of_samples + of_queries + left_out) <= SCORE_ERROR)


def fixed_point_tile(sketch: Sketch, part: slice, queries: Queries, halves: bool) -> Found:
    """`posterior_in_fixed_point` for one tile of queries that are `exact_enough`, over a part of the samples."""
    x, alpha, sigma, _, _ = queries
    b, d = x.shape
    found = Found.none(b, d)
    direction = Direction.of(sketch, x, alpha, sigma, 3)
    total = _Sums(sketch, part, direction, halves and sketch.bytes_needed == 1)
    weight, score_sum, square_sum = total.sums[0], total.sums[2], total.sums[1]
    with np.errstate(invalid="ignore", divide="ignore"):  # of those that have no weight at all
        mean = total.weighted / weight[:, None]
        square = total.sums[3] / weight
        variance = square - np.sum((mean - sketch.center) ** 2, axis=1)
        found.denoised[:] = mean
        found.log_density[:] = log_density_of(sketch, part, total.peak + np.log(weight) + direction.shift, sigma)
        found.top1_weight[:] = np.exp(total.highest - total.peak) / weight
        found.entropy[:] = np.maximum(np.log(weight) - score_sum / weight, 0)
        found.effective_samples[:] = weight**2 / square_sum
    found.top1_index[:] = total.top
    found.variance[:] = np.maximum(variance, 0)
    found.error_bound[:] = 0
    found.answered[:] = variance > LEAST_SPREAD * square
    return found


class _Sums:
    """One pass over a part of the samples: `weighted` Σ w y `[B, D]`; `sums` Σ w, Σ w², Σ w log w, Σ w ‖y - c‖² `[4, B]`, with weights
    w = exp(score - peak); `highest` score, and whose it is: `top`."""

    def __init__(self, sketch: Sketch, part: slice, direction: Direction, halves: bool):
        b, wide = len(direction.unit), tile_width(len(direction.unit))
        self._sketch = sketch
        units = np.pad(direction.unit * sketch.unit, (0, wide - b))
        self._units = np.stack([units / float(BASE) ** order for order in range(3)])
        self._kappa = np.pad(direction.curvature, (0, wide - b))
        far = np.sum(sketch.center**2) > FAR * sketch.square_norms.mean()
        self._shift = sketch.center.astype(np.float32) if far else None
        self._halves = np.empty((max(len(block.digits[0]) for block in sketch.blocks_of(part)), 2 * wide), np.uint16) if halves else None
        queries = np.zeros((sketch.d, 3, wide), np.int8)
        queries[:, :, :b] = direction.digits.transpose(2, 1, 0)
        together = [np.ascontiguousarray(queries[:, : 3 - k].reshape(sketch.d, -1)) for k in range(sketch.bytes_needed)]
        self.weighted, self.sums = np.zeros((wide, sketch.d)), np.zeros((4, wide))
        self.peak, self.highest, self.top = np.full(wide, -np.inf), np.full(wide, -np.inf), np.full(wide, NO_INDEX, np.int32)
        with one_thread_each():
            for block in sketch.fine_blocks_of(part):
                products = [PRODUCTS.of(digits, some) for digits, some in zip(block.digits, together, strict=True)]
                self._add(block, tuple(np.asarray(one) for one in products))
                PRODUCTS.give_back(products)
        if halves:
            self.weighted *= sketch.unit
            self.weighted += self.sums[0][:, None] * sketch.origin
        elif self._shift is not None:
            self.weighted += self.sums[0][:, None] * self._shift
        self.weighted, self.sums, self.peak = self.weighted[:b], self.sums[:, :b], self.peak[:b]
        self.highest, self.top = self.highest[:b], self.top[:b]

    def _add(self, block: Block, products: tuple[np.ndarray, ...]) -> None:
        """One block."""
        sketch, wide, start, n = self._sketch, len(self.peak), block.start, block.stop - block.start
        first_order = self._units[0].astype(np.float32), *np.zeros((2, wide), np.float32), self._kappa.astype(np.float32)

        def near_peak(core: int) -> np.ndarray:
            peak, where = np.full(wide, -np.inf, np.float32), np.zeros(wide, np.int32)
            rows = sketch.lengths, sketch.hidden, sketch.norms32, sketch.prior32
            native.highest(products[0], *share(n, core), start, *first_order, *rows, peak, where)
            return peak

        peak = np.maximum(self.peak, np.max(on_every_core(near_peak), axis=0))
        fall = np.where(np.isneginf(self.peak), 0, self.peak - peak)
        scale = np.exp(fall)
        self.sums[2] += fall * self.sums[0]
        self.sums *= np.stack([scale, scale**2, scale, scale])
        self.weighted *= scale[:, None]
        self.peak = peak
        order = np.arange(len(products))

        def weigh(core: int) -> tuple[np.ndarray, ...]:
            weights, z, bits = np.empty((ROWS, wide), np.float32), np.empty(wide), np.empty(wide, np.int32)
            weighted = np.zeros((wide, sketch.d if self._halves is None else 0))
            sums, highest, top = np.zeros((4, wide)), self.highest.copy(), self.top.copy()
            first, last = share(n, core)
            for a in range(first, last, ROWS):
                e = min(a + ROWS, last)
                of_rows = sketch.square_norms, sketch.log_prior, sketch.index
                block_rows = products, a, e, start, self._units, order, self._kappa
                into = weights, z, bits, sums, highest, top
                native.weigh(*block_rows, *of_rows, peak, self._halves is not None, *into)
                if self._halves is not None:
                    native.in_halves(weights, e - a, self._halves[a:e])
                    continue
                rows = sketch.rows[start + a : start + e].astype(np.float32, copy=False)
                weighted += weights[: e - a].T @ (rows if self._shift is None else rows - self._shift)
            return weighted, sums, highest, top

        every = on_every_core(weigh)
        for weighted, sums, _, _ in every:
            self.sums += sums
            if self._halves is None:
                self.weighted += weighted
        if self._halves is not None:
            self._halves[n:] = 0
            both = np.asarray(_sum_of_columns(sketch.columns_of(block), self._halves[: len(block.digits[0])].view(jnp.bfloat16)))
            self.weighted += (both[:, :wide].astype(np.float64) + both[:, wide:]).T
        highest, top = np.stack([one[2] for one in every]), np.stack([one[3] for one in every])
        self.highest = highest.max(axis=0)
        self.top = np.where(highest == self.highest, top, NO_INDEX).min(axis=0)


@jax.jit
def _sum_of_columns(columns: Array, weights: Array) -> Float[Array, "D W"]:
    return jnp.dot(columns, weights, preferred_element_type=jnp.float32)
