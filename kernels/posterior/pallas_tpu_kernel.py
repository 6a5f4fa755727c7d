"""What one grid step of the fused TPU kernel does: score, weigh, sum. `pallas_tpu` calls it; docs/kernel.md draws it.

The compiler schedules each branch-free region by itself, so a step is three long ones: the scores of all rows, then the second matmul of
either half. The softmax of the first half runs beside the scores of the second; that of the second half beside the second matmul of the
first. Two things keep it spread out instead of in one lump, in which the MXU starves: pieces of either kind are emitted in turns, and the
softmax addresses what it shares with the matmuls by an offset that is zero only at run time, so that the scheduler must keep the turns.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels.posterior.pallas_tpu_layout import BEST, FLOOR, HEADROOM, LANES, NOWHERE, REFERENCE, ROWS, SECOND, SKIPPED, SUMS, Layout, Refs

Piece = Callable[[], None]


def rows_at(start: Any, size: int = ROWS) -> Any:
    return pl.ds(start if isinstance(start, int) else pl.multiple_of(start, size), size)


def split(x: Array, parts: int) -> list[Array]:
    """float32 as a sum of bfloat16 parts: 3 hold all 24 bits, 2 hold 16, 1 is rounding. Truncated, so that the differences are exact."""
    out = []
    for _ in range(parts - 1):
        high = jax.lax.bitcast_convert_type(jax.lax.bitcast_convert_type(x, jnp.uint32) & jnp.uint32(0xFFFF0000), jnp.float32)
        out.append(high.astype(jnp.bfloat16))
        x = x - high
    return [*out, x.astype(jnp.bfloat16)]


class Step:
    """One grid step, its pieces by name."""

    def __init__(self, layout: Layout, refs: Refs, block: Array, zero: Array) -> None:
        self.at, self.refs, self.block, self.zero = layout, refs, block, zero

    # The data block

    def clean(self, chunk: Array | int) -> None:
        """Zero what lies beyond the data: it is read as garbage, and 0 · NaN is NaN."""
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

    def convert(self) -> None:
        """The block as bfloat16 parts."""
        at, refs = self.at, self.refs
        if at.direct:
            return

        @pl.loop(0, at.samples // 32)
        def _(j: Array) -> None:
            for c in range(0, at.columns, 4 * LANES):
                cols = pl.ds(c, min(4 * LANES, at.columns - c))
                y = _float(refs.data[rows_at(j * 32, 32), cols])
                if at.shifted:
                    y = y - refs.center[0:1, cols]
                for part, value in enumerate(split(y, at.data_parts)):
                    refs.parts[part, rows_at(j * 32, 32), cols] = value

    def data(self, part: int, rows: Any, cols: Any) -> Array:
        return self.refs.data[rows, cols] if self.at.direct else self.refs.parts[part, rows, cols]

    # The matmuls

    def score_pieces(self, start: int, size: int, chunk: Array | int = 0) -> list[Piece]:
        """Scores of `size` rows of queries, a block of samples by a chunk of D at a time."""
        at, refs = self.at, self.refs
        samples, depth = at.score_tile
        rows = pl.ds(start, size)

        def piece(s: int, c: int, parts: tuple[int, int], first: bool) -> None:
            cols, group = pl.ds(c, min(depth, at.columns - c)), pl.ds(s, min(samples, at.samples - s))
            product = _dot(refs.direction[chunk, parts[0], rows, cols], self.data(parts[1], group, cols), 1)
            refs.tile[rows, group] = product if first else refs.tile[rows, group] + product

        return [
            _bind(piece, s, c, parts, isinstance(chunk, int) and c == 0 and parts == (0, 0))
            for s in range(0, at.samples, samples)
            for c in range(0, at.columns, depth)
            for parts in at.products
        ]

    def sum_pieces(self, start: int, size: int, chunk: Array | int = 0) -> list[Piece]:
        """Σ w y of `size` rows, `sum_tile` columns at a time."""
        at, refs = self.at, self.refs
        rows = pl.ds(start, size)

        def piece(c: int) -> None:
            cols = pl.ds(c, min(at.sum_tile, at.columns - c))
            total = refs.total[chunk, rows, cols]
            for i, j in at.products:
                total = total + _dot(refs.weights[i, rows, :], self.data(j, pl.ds(0, at.samples), cols), 0)
            refs.total[chunk, rows, cols] = total

        return [_bind(piece, c) for c in range(0, at.columns, at.sum_tile)]

    # The softmax

    def score(self, rows: Any, at_zero: Any, group: int) -> Array:
        """Scores of one group of 128 samples: the dot product less the norm's and the centre's part."""
        refs, cols = self.refs, pl.ds(group * LANES, LANES)
        s = refs.tile[at_zero, cols] - (refs.curvature[rows, :] * refs.norms[0:1, cols] + refs.offset[rows, :]) + refs.bias[0:1, cols]
        if not self.at.labelled:
            return s
        wanted = refs.query_labels[rows, :]
        return jnp.where((wanted == refs.labels[0:1, cols]) | (wanted == -1), s, -jnp.inf)

    def weigh(self, rows: Any, at_zero: Any, scores: Sequence[Array]) -> Piece:
        """Weights of a few rows, and their sums by lane. What is returned stores them: after the loads of all that goes on together."""
        at, refs = self.at, self.refs
        reference = refs.state[REFERENCE, rows, :]
        sums = [jnp.zeros((ROWS, LANES), jnp.float32) for _ in range(at.sums)]
        weights = []
        for g, s in enumerate(scores):
            z = jnp.maximum(s - reference, FLOOR)
            w = jnp.exp(z)
            terms = (w, w * w, w * z, w * refs.norms[0:1, pl.ds(g * LANES, LANES)])
            sums = [a + b for a, b in zip(sums, terms, strict=False)]
            weights.append(split(w, at.query_parts))

        def store() -> None:
            for k, value in enumerate(sums):
                refs.last[1 + k, rows, :] = value
            refs.tile[at_zero, pl.ds(at.samples, LANES)] = sums[0]
            for g, parts in enumerate(weights):
                for part, value in enumerate(parts):
                    refs.weights[part, at_zero, pl.ds(g * LANES, LANES)] = value

        return store

    def softmax(self, start: Any) -> Piece:
        """Candidates and weights of ROWS rows; the previous block's sums join the total.

        The tile is read and written at `zero`: the scheduler, for which that may be anywhere, keeps this between the matmul pieces that
        write the tile before it and those that read it after. For that alone the sums of the weights are stored there too.
        """
        at, refs = self.at, self.refs
        rows, at_zero = rows_at(start), rows_at(self.zero + start)
        best, second, index = refs.state[BEST, rows, :], refs.state[SECOND, rows, :], refs.index[rows, :]
        scores, peak = [], jnp.full((ROWS, LANES), -jnp.inf, jnp.float32)
        for g in range(at.groups):
            s = self.score(rows, at_zero, g)
            index = jnp.where(s > best, self.block * at.groups + g, index)
            second = jnp.maximum(second, jnp.minimum(best, s))
            best, peak = jnp.maximum(best, s), jnp.maximum(peak, s)
            scores.append(s)
        refs.state[BEST, rows, :], refs.state[SECOND, rows, :], refs.index[rows, :] = best, second, index
        for k in range(at.sums):
            refs.state[SUMS + k, rows, :] += refs.last[1 + k, rows, :]
        refs.last[0, rows, :] = peak
        return self.weigh(rows, at_zero, scores)

    def softmax_pieces(self, start: int) -> list[Piece]:
        return [_bind(lambda r: self.softmax(r)(), r) for r in range(start, start + self.at.half, ROWS)]

    def decide(self, start: int, size: int, sum_up: Piece, leave_out: Piece) -> None:
        """After the softmax of some rows: move their reference if a score is far above it; then `sum_up`, or `leave_out` a block that
        cannot matter to any of them."""
        at, refs = self.at, self.refs
        each = [refs.last[0, rows_at(r), :] - refs.state[REFERENCE, rows_at(r), :] for r in range(start, start + size, ROWS)]
        rise = jnp.max(_tree(each))
        refs.rise[0] = rise
        pl.when(rise > HEADROOM)(lambda: self.raise_reference(start, size))
        pl.when(rise >= -at.cut)(sum_up)

        @pl.when(rise < -at.cut)
        def _() -> None:
            self.skip(start, size)
            leave_out()

    # What happens seldom

    def raise_reference(self, start: int, size: int) -> None:
        """Move the reference of some rows up to their maximum, and all that was summed with it; weigh this block anew."""
        at, refs = self.at, self.refs

        @pl.loop(start // ROWS, (start + size) // ROWS)
        def _(j: Array) -> None:
            rows = rows_at(j * ROWS)
            old = refs.state[REFERENCE, rows, :]
            new = jnp.maximum(old, jnp.broadcast_to(refs.last[0, rows, :].max(axis=1, keepdims=True), (ROWS, LANES)))
            drop = jnp.maximum(old - new, NOWHERE)
            scale = jnp.exp(drop)
            refs.state[REFERENCE, rows, :] = new
            refs.state[SKIPPED, rows, :] *= scale
            weight = refs.state[SUMS, rows, :]
            refs.state[SUMS, rows, :] = weight * scale
            if at.full:
                refs.state[SUMS + 1, rows, :] *= scale * scale
                # Σ w z: z falls as the weight's logarithm does. A weight of 0 has no z to speak of.
                moved = (refs.state[SUMS + 2, rows, :] + jnp.maximum(drop, FLOOR) * weight) * scale
                refs.state[SUMS + 2, rows, :] = jnp.where(weight > 0, moved, 0)
                refs.state[SUMS + 3, rows, :] *= scale
            for chunk in range(at.chunks):

                @pl.loop(0, at.columns // LANES)
                def _(c: Array, chunk: int = chunk) -> None:
                    refs.total[chunk, rows, rows_at(c * LANES, LANES)] *= scale

            self.weigh(rows, rows, [self.score(rows, rows, g) for g in range(at.groups)])()

    def skip(self, start: int, size: int) -> None:
        """Keep count of what is left out of rows whose second matmul is skipped."""
        refs = self.refs

        @pl.loop(start // ROWS, (start + size) // ROWS)
        def _(j: Array) -> None:
            refs.state[SKIPPED, rows_at(j * ROWS), :] += refs.last[1, rows_at(j * ROWS), :]

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
            for k in range(at.sums):
                refs.last[1 + k, rows, :] = nothing
            for chunk in range(at.chunks):
                refs.total[chunk, rows, :] = jnp.zeros((ROWS, at.columns), jnp.float32)

        for copy in copies:
            copy.wait()

    def finish(self, tile: Array) -> None:
        """The last block's sums join the total, and everything goes to HBM."""
        at, refs = self.at, self.refs
        rows = pl.ds(pl.multiple_of(tile * at.queries, at.queries), at.queries)

        @pl.loop(0, at.queries // ROWS)
        def _(j: Array) -> None:
            for k in range(at.sums):
                refs.state[SUMS + k, rows_at(j * ROWS), :] += refs.last[1 + k, rows_at(j * ROWS), :]

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


def whole_step(step: Step) -> None:
    """A block that holds all of D: read once, used twice. Three regions: scores, second matmul of either half."""
    at = step.at
    step.clean(0)
    step.convert()
    for piece in step.score_pieces(0, at.half):
        piece()
    matmul = step.score_pieces(at.half, at.half)
    in_turns(matmul, spread(step.softmax_pieces(0), len(matmul), 1, early(len(matmul))))

    def beside_the_first() -> None:
        matmul = step.sum_pieces(0, at.half)
        in_turns(matmul, spread(step.softmax_pieces(at.half), len(matmul), 1, early(len(matmul))))

    def instead() -> None:
        @pl.loop(at.half // ROWS, at.queries // ROWS)
        def _(j: Array) -> None:
            step.softmax(j * ROWS)()

    def second() -> None:
        for piece in step.sum_pieces(at.half, at.half):
            piece()

    step.decide(0, at.half, beside_the_first, instead)
    step.decide(at.half, at.half, second, lambda: None)


def split_step(step: Step, phase: Array) -> None:
    """A block of which VMEM holds one chunk of D at a time: read for the scores, softmaxed, and read again for the sum."""
    at, refs = step.at, step.refs
    chunk = phase % at.chunks
    step.clean(chunk)
    step.convert()

    @pl.when(phase == 0)
    def _() -> None:
        @pl.loop(0, at.queries // ROWS)
        def _(j: Array) -> None:
            refs.tile[rows_at(j * ROWS), pl.ds(0, at.samples)] = jnp.zeros((ROWS, at.samples), jnp.float32)

    @pl.when(phase < at.chunks)
    def _() -> None:
        for piece in step.score_pieces(0, at.queries, chunk):
            piece()

    @pl.when(phase == at.chunks - 1)
    def _() -> None:
        @pl.loop(0, at.queries // ROWS)
        def _(j: Array) -> None:
            step.softmax(j * ROWS)()

        step.decide(0, at.queries, lambda: None, lambda: None)

    @pl.when((phase >= at.chunks) & (refs.rise[0] >= -at.cut))
    def _() -> None:
        for piece in step.sum_pieces(0, at.queries, chunk):
            piece()


def spread(pieces: list[Piece], slots: int, first: int, last: int) -> list[list[Piece]]:
    """`pieces` dealt evenly over the slots from `first` to before `last`."""
    out: list[list[Piece]] = [[] for _ in range(slots)]
    last = max(last, first + 1)
    for k, piece in enumerate(pieces):
        out[min(first + k * (last - first) // len(pieces), slots - 1)].append(piece)
    return out


def early(slots: int) -> int:
    """Where softmax ends: a little before the matmul, which hides the decision that follows from it."""
    return slots - max(1, slots // 8)


def in_turns(pieces: list[Piece], beside: list[list[Piece]]) -> None:
    """Each piece, and before it those that go beside it."""
    for piece, others in zip(pieces, beside, strict=True):
        for other in others:
            other()
        piece()


def _bind(f: Callable[..., None], *args: Any) -> Piece:
    return lambda: f(*args)


def _dot(a: Array, b: Array, contract: int) -> Array:
    return jax.lax.dot_general(a, b, (((1,), (contract,)), ((), ())), preferred_element_type=jnp.float32)


def _float(x: Array) -> Array:
    return x.astype(jnp.int32).astype(jnp.float32) if x.dtype == jnp.uint8 else x.astype(jnp.float32)


def _keep(here: Array, x: Array) -> Array:
    """x where `here`, else 0, by way of 32-bit lanes: every generation selects those."""
    return jnp.where(here, _float(x), 0.0).astype(jnp.int32 if x.dtype == jnp.uint8 else x.dtype).astype(x.dtype)


def _tree(values: Sequence[Array]) -> Array:
    """Maximum, in a tree: a chain would be as long as the block."""
    values = list(values)
    while len(values) > 1:
        values = [jnp.maximum(a, b) for a, b in zip(values[::2], values[1::2], strict=False)] + ([values[-1]] if len(values) % 2 else [])
    return values[0]
