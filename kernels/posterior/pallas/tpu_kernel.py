"""One grid step of the fused TPU kernel: score, weigh, sum. `pallas_tpu` calls it; docs/kernel.md has a drawing of it.

The compiler schedules each branch-free region by itself, and the MXU idles while it fills and drains. So a step is one such region: the
scores of this block, and beside them the weights of the block before; then that block's weighted sum, and beside it this block's
candidates and maxima, by which the next step decides. Left free, the scheduler would put the whole softmax in one place, in which the MXU
idles. Pieces of the softmax are therefore emitted in turns with pieces of the matmuls. Both use memory that is addressed by the step's
parity, which is known at run time only, so that the scheduler must keep the turns.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels.posterior.pallas.tpu_layout import (
    BEST,
    FLOOR,
    HEADROOM,
    LANES,
    NOWHERE,
    REFERENCE,
    ROWS,
    SECOND,
    SKIPPED,
    SUMS,
    TURNS,
    Layout,
    Refs,
    rows_at,
    split,
)

Piece = Callable[[], Any]


class Step:
    """One grid step of the kernel, as methods that `whole_step` and `split_step` put in order."""

    def __init__(self, layout: Layout, refs: Refs, block: Array, step: Array) -> None:
        self.at, self.refs, self.block = layout, refs, block
        self.now: Array | int = jax.lax.rem(step, 2) if layout.chunks == 1 else 0
        """The slot of this block's scores and data; `before`: the slot of the last block's."""
        self.before: Array | int = jax.lax.rem(step + 1, 2) if layout.chunks == 1 else 0

    # The data block

    def clean(self, chunk: Array | int) -> None:
        """Zero the part of the block beyond the data: it holds arbitrary numbers, and 0 · NaN is NaN."""
        at, data = self.at, self.refs.data
        last, short = jnp.equal(chunk, at.chunks - 1), self.block == at.n // at.samples
        aligned = at.d % at.columns // LANES * LANES
        if at.d % LANES or at.d % at.columns:

            @pl.when(last)
            def columns_beyond() -> None:
                @pl.loop(0, at.samples // 32)
                def _(j: Array) -> None:
                    for c in range(aligned, at.columns, LANES):
                        cols = pl.ds(c, LANES)
                        here = jax.lax.broadcasted_iota(jnp.int32, (32, LANES), 1) + c < at.d - (at.chunks - 1) * at.columns
                        data[rows_at(j * 32, 32), cols] = _keep(here, data[rows_at(j * 32, 32), cols])

        if at.n % at.samples:

            @pl.when(short)
            def rows_beyond() -> None:
                @pl.loop(at.n % at.samples // 32, at.samples // 32)
                def _(j: Array) -> None:
                    for c in range(0, at.columns, LANES):
                        cols = pl.ds(c, LANES)
                        here = jax.lax.broadcasted_iota(jnp.int32, (32, LANES), 0) + j * 32 < at.n % at.samples
                        data[rows_at(j * 32, 32), cols] = _keep(here, data[rows_at(j * 32, 32), cols])

    def convert(self, start: Any, columns: range) -> None:
        """32 rows of the block as bfloat16 parts."""
        at, refs, rows = self.at, self.refs, rows_at(start, 32)
        for c in columns[:: 4 * LANES]:
            cols = pl.ds(c, min(4 * LANES, columns.stop - c))
            y = _float(refs.data[rows, cols])
            if at.shifted:
                y = y - refs.center[0:1, cols]
            for part, value in enumerate(split(y, at.data_parts)):
                refs.parts[self.now, part, rows, cols] = value

    def convert_block(self) -> None:
        """The whole block as bfloat16 parts, in a loop."""
        if self.at.direct:
            return

        @pl.loop(0, self.at.samples // 32)
        def _(j: Array) -> None:
            self.convert(j * 32, range(self.at.columns))

    @property
    def keeping(self) -> Any:
        """The copy that keeps a block without conversion for the next step."""
        return pltpu.make_async_copy(self.refs.data, self.refs.parts.at[self.now, 0], self.refs.kept)

    def data(self, part: int, rows: Any, cols: Any) -> Array:
        return self.refs.data[rows, cols] if self.at.direct else self.refs.parts[self.now, part, rows, cols]

    def data_before(self, part: int, rows: Any, cols: Any) -> Array:
        return self.refs.data[rows, cols] if self.at.direct and self.at.chunks > 1 else self.refs.parts[self.before, part, rows, cols]

    # The matmuls

    def score_pieces(self, start: Any, size: int, chunk: Array | int = 0, convert: bool = False) -> list[Piece]:
        """Pieces of the product of `size` rows of queries with the block, or with a chunk of its columns; `convert`: each part of the block
        is converted before the first piece that uses it."""
        at, refs = self.at, self.refs
        some, samples, depth = at.score_tile

        def piece(r: int, s: int, c: int, parts: tuple[int, int], first: bool) -> None:
            rows, wide, deep = rows_at(start + r, min(some, size - r)), min(samples, at.samples - s), min(depth, at.columns - c)
            if convert and r == 0 and parts == (0, 0):
                for j in range(s, s + wide, 32):
                    self.convert(j, range(c, c + deep))
            group, cols = pl.ds(s, wide), pl.ds(c, deep)
            product = _dot(refs.direction[chunk, parts[0], rows, cols], self.data(parts[1], group, cols), 1)
            refs.tile[self.now, rows, group] = product if first else refs.tile[self.now, rows, group] + product

        return [
            _bind(piece, r, s, c, parts, isinstance(chunk, int) and c == 0 and parts == (0, 0))
            for r in range(0, size, some)
            for s in range(0, at.samples, samples)
            for c in range(0, at.columns, depth)
            for parts in at.products
        ]

    def sum_piece(self, start: Any, chunk: Array | int = 0) -> Array:
        """Add Σ w y of the block before (of this block, where D is split) to `sum_tile` columns from `start`. Returns a corner of it."""
        at, refs = self.at, self.refs
        cols = rows_at(start, at.sum_tile)
        total = refs.total[chunk, :, cols]
        for i, j in at.products:
            total = total + _dot(refs.weights[i], self.data_before(j, pl.ds(0, at.samples), cols), 0)
        refs.total[chunk, :, cols] = total
        return total[-8:, -LANES:]

    def sum_up(self, chunk: Array | int = 0) -> None:
        """Σ w y of all columns, in a loop: less to compile, for steps that take little of the time."""

        @pl.loop(0, self.at.columns // self.at.sum_tile)
        def _(c: Array) -> None:
            self.sum_piece(c * self.at.sum_tile, chunk)

    def beside_sum(self, turns: list[list[Piece]]) -> None:
        """Σ w y of all columns in turns with pieces of `rank`: each turn begins when the sum before it is done."""
        at, refs = self.at, self.refs
        pieces = at.columns // at.sum_tile
        for k, beside in enumerate(turns):
            for piece in beside:
                piece()
            for c in range(k * pieces // len(turns), (k + 1) * pieces // len(turns)):
                corner = self.sum_piece(c * at.sum_tile)
            # Nothing reads this, but for all the scheduler knows `rank` loads it next.
            refs.tile[self.before, pl.ds(at.queries, 8), pl.ds(0, LANES)] = corner

    # The softmax

    def rank(self, start: Any) -> None:
        """Scores of ROWS rows on this block, from the dot products; updates the candidates and the block's maximum by lane."""
        at, refs = self.at, self.refs
        rows = rows_at(start)
        best, second, index = refs.state[BEST, rows, :], refs.state[SECOND, rows, :], refs.index[rows, :]
        peak = jnp.full((ROWS, LANES), -jnp.inf, jnp.float32)
        for g in range(at.groups):
            cols = pl.ds(g * LANES, LANES)
            s = refs.tile[self.now, rows, cols] - refs.curvature[rows, :] * refs.norms[0:1, cols] + refs.bias[0:1, cols]
            if at.labelled:
                label = refs.query_labels[rows, :]
                s = jnp.where((label == refs.labels[0:1, cols]) | (label == -1), s, -jnp.inf)
            refs.tile[self.now, rows, cols] = s
            index = jnp.where(s > best, self.block * at.groups + g, index)
            second = jnp.maximum(second, jnp.minimum(best, s))
            best, peak = jnp.maximum(best, s), jnp.maximum(peak, s)
        refs.state[BEST, rows, :], refs.state[SECOND, rows, :], refs.index[rows, :] = best, second, index
        refs.peak[rows, :] = peak

    def weigh(self, start: Any, skipped: bool = False) -> None:
        """Weights of ROWS rows on the block before, and their sums by lane; `skipped`: its second matmul is left out."""
        at, refs = self.at, self.refs
        rows = rows_at(start)
        reference = refs.state[REFERENCE, rows, :]
        sums = [refs.state[SUMS + k, rows, :] for k in range(at.sums)]
        old = sums[0]
        for g in range(at.groups):
            cols = pl.ds(g * LANES, LANES)
            z = jnp.maximum(refs.tile[self.before, rows, cols] - reference, FLOOR)
            w = jnp.exp(z)
            terms = (w, w * w, w * z, w * refs.norms_before[0:1, cols])
            sums = [a + b for a, b in zip(sums, terms, strict=False)]
            for part, value in enumerate(split(w, at.query_parts)):
                refs.weights[part, rows, cols] = value
        for k, value in enumerate(sums):
            refs.state[SUMS + k, rows, :] = value
        if skipped:
            refs.state[SKIPPED, rows, :] += sums[0] - old

    def weigh_skipped(self) -> None:
        self.each_rows(lambda start: self.weigh(start, skipped=True))

    def rise(self) -> None:
        """The largest difference between a score of the block and its row's reference. By it the next step decides whether to skip."""
        at, refs = self.at, self.refs
        each = [refs.peak[rows_at(r), :] - refs.state[REFERENCE, rows_at(r), :] for r in range(0, at.queries, ROWS)]
        refs.rise[0] = jnp.max(_tree(each))

    def each_rows(self, f: Callable[[Any], Any], start: Any = 0, size: int = 0) -> None:
        """`f` of ROWS rows at a time, in a loop."""

        @pl.loop(0, (size or self.at.queries) // ROWS)
        def _(j: Array) -> None:
            f(start + j * ROWS)

    # Rare events, and the beginning and end of a query tile

    def raise_reference(self) -> None:
        """Move the reference of each row up to its maximum, and rescale the row's sums."""
        at, refs = self.at, self.refs

        @pl.loop(0, at.queries // ROWS)
        def _(j: Array) -> None:
            rows = rows_at(j * ROWS)
            old = refs.state[REFERENCE, rows, :]
            new = jnp.maximum(old, jnp.broadcast_to(refs.peak[rows, :].max(axis=1, keepdims=True), (ROWS, LANES)))
            drop = jnp.maximum(old - new, NOWHERE)
            scale = jnp.exp(drop)
            refs.state[REFERENCE, rows, :] = new
            refs.state[SKIPPED, rows, :] *= scale
            weight = refs.state[SUMS, rows, :]
            refs.state[SUMS, rows, :] = weight * scale
            if at.full:
                refs.state[SUMS + 1, rows, :] *= scale * scale
                # Σ w z: z falls as the weight's logarithm does; a weight of 0 contributes 0.
                moved = (refs.state[SUMS + 2, rows, :] + jnp.maximum(drop, FLOOR) * weight) * scale
                refs.state[SUMS + 2, rows, :] = jnp.where(weight > 0, moved, 0)
                refs.state[SUMS + 3, rows, :] *= scale
            for chunk in range(at.chunks):

                @pl.loop(0, at.columns // LANES)
                def _(c: Array, chunk: int = chunk) -> None:
                    refs.total[chunk, rows, rows_at(c * LANES, LANES)] *= scale

    def begin(self, tile: Array) -> None:
        """Fetch the tile's queries; zero its sums."""
        at, refs = self.at, self.refs
        copies = [
            pltpu.make_async_copy(
                refs.direction_hbm.at[
                    :, pl.ds(pl.multiple_of(tile * at.queries, at.queries), at.queries), pl.ds(c * at.columns, at.columns)
                ],
                refs.direction.at[c],
                refs.semaphore,
            )
            for c in range(at.chunks)
        ]
        for copy in copies:
            copy.start()

        @pl.loop(0, at.queries // ROWS)
        def _(j: Array) -> None:
            rows = rows_at(j * ROWS)
            nothing = jnp.zeros((ROWS, LANES), jnp.float32)
            for k in range(4 + at.sums):
                value = {BEST: -jnp.inf, SECOND: -jnp.inf, REFERENCE: NOWHERE}.get(k, 0.0)
                refs.state[k, rows, :] = nothing + value
            refs.index[rows, :] = jnp.zeros((ROWS, LANES), jnp.int32)
            for chunk in range(at.chunks):
                refs.total[chunk, rows, :] = jnp.zeros((ROWS, at.columns), jnp.float32)

        for copy in copies:
            copy.wait()

    def finish(self, tile: Array) -> None:
        """Copy the tile's sums to HBM."""
        at, refs = self.at, self.refs
        rows = pl.ds(pl.multiple_of(tile * at.queries, at.queries), at.queries)

        copies = [
            pltpu.make_async_copy(refs.total.at[c], refs.total_hbm.at[rows, pl.ds(c * at.columns, at.columns)], refs.semaphore)
            for c in range(at.chunks)
        ]
        copies.append(pltpu.make_async_copy(refs.state, refs.state_hbm.at[:, rows], refs.semaphore))
        copies.append(pltpu.make_async_copy(refs.index, refs.index_hbm.at[rows], refs.semaphore))
        for copy in copies:
            copy.start()
        for copy in copies:
            copy.wait()


def whole_step(step: Step, first: Array, last: Array) -> None:
    """One step where a block holds all of D: scores of this block, softmax and second matmul of the block before. It decides by `rise`
    whether to skip the second matmul. A last step, one after the last block, finishes that block."""
    at, refs = step.at, step.refs
    before, more = ~first, ~last
    rise = refs.rise[0]
    matters = before & (rise >= -at.cut)
    pl.when(before & (rise > HEADROOM))(step.raise_reference)

    @pl.when(more)
    def _() -> None:
        step.clean(0)
        if at.direct:
            step.keeping.start()

    @pl.when(more & matters)
    def _() -> None:
        matmul = step.score_pieces(0, at.queries, convert=not at.direct)
        for piece, beside in zip(matmul, spread(pieces_of(step.weigh, at.queries), len(matmul)), strict=True):
            for other in beside:
                other()
            piece()
        step.beside_sum(spread(pieces_of(step.rank, at.queries), min(TURNS, at.columns // at.sum_tile)))
        step.rise()

    @pl.when(more & ~matters)
    def _() -> None:
        some = 256 if at.queries % 256 == 0 else at.queries
        step.convert_block()
        pl.when(before)(step.weigh_skipped)

        @pl.loop(0, at.queries // some)
        def _(k: Array) -> None:
            for piece in step.score_pieces(k * some, some):
                piece()
            step.each_rows(step.rank, k * some, some)

        step.rise()

    @pl.when(last & matters)
    def _() -> None:
        step.each_rows(step.weigh)
        step.sum_up()

    pl.when(last & ~matters)(step.weigh_skipped)
    if at.direct:
        pl.when(more)(step.keeping.wait)


def split_step(step: Step, phase: Array) -> None:
    """One step where VMEM holds a chunk of D at a time: chunks are read for the scores, and after the softmax again for the sum."""
    at, refs = step.at, step.refs
    chunk = phase % at.chunks
    step.clean(chunk)
    step.convert_block()

    @pl.when(phase == 0)
    def _() -> None:
        @pl.loop(0, at.queries // ROWS)
        def _(j: Array) -> None:
            refs.tile[0, rows_at(j * ROWS), :] = jnp.zeros((ROWS, at.samples), jnp.float32)

    @pl.when(phase < at.chunks)
    def _() -> None:
        for piece in step.score_pieces(0, at.queries, chunk):
            piece()

    @pl.when(phase == at.chunks - 1)
    def _() -> None:
        step.each_rows(step.rank)
        step.rise()
        pl.when(refs.rise[0] > HEADROOM)(step.raise_reference)
        pl.when(refs.rise[0] >= -at.cut)(lambda: step.each_rows(step.weigh))
        pl.when(refs.rise[0] < -at.cut)(step.weigh_skipped)

    @pl.when((phase >= at.chunks) & (refs.rise[0] >= -at.cut))
    def _() -> None:
        step.sum_up(chunk)


def pieces_of(f: Callable[[int], Any], rows: int) -> list[Piece]:
    """`f` of ROWS rows at a time."""
    return [_bind(f, r) for r in range(0, rows, ROWS)]


def spread(pieces: list[Piece], slots: int) -> list[list[Piece]]:
    """`pieces` spread evenly over all slots but the last, in which pieces of the slots before finish."""
    used = max(1, slots - 1)
    return [pieces[k * len(pieces) // used : (k + 1) * len(pieces) // used] if k < used else [] for k in range(slots)]


def _bind(f: Callable[..., Any], *args: Any) -> Piece:
    return lambda: f(*args)


def _dot(a: Array, b: Array, contract: int) -> Array:
    return jax.lax.dot_general(a, b, (((1,), (contract,)), ((), ())), preferred_element_type=jnp.float32)


def _float(x: Array) -> Array:
    return x.astype(jnp.int32).astype(jnp.float32) if x.dtype == jnp.uint8 else x.astype(jnp.float32)


def _keep(here: Array, x: Array) -> Array:
    """x where `here`, else 0, selected in 32-bit lanes, which every generation can do."""
    return jnp.where(here, _float(x), 0.0).astype(jnp.int32 if x.dtype == jnp.uint8 else x.dtype).astype(x.dtype)


def _tree(values: Sequence[Array]) -> Array:
    """The maximum, computed as a tree: a chain of maxima would take as long as the whole block."""
    values = list(values)
    while len(values) > 1:
        values = [jnp.maximum(a, b) for a, b in zip(values[::2], values[1::2], strict=False)] + ([values[-1]] if len(values) % 2 else [])
    return values[0]
