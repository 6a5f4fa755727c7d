"""Posterior sums over patches by sums over boxes, compiled by numba for the CPU.

For a displacement s = v - u between places, the product of a query's patch around u with an image's patch around v is a sum, over a box
around u, of the products x(w) y(w + s). Moving the box by a pixel adds a column and drops one, so that a pair of patches costs a few
operations whatever their size, where a matrix product takes p² C. Images lie eight abreast, one in each place of a vector, so that nothing
but loads, products and sums remains; the softmax is part of the same loop, and no score is ever stored.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from kernels.posterior.cpu.numba_kernels import compiled, intrinsic

LANES = 8
"""Images that lie abreast: the float32 numbers of a vector of AVX2; other machines take two vectors, or half of one."""
NEGLIGIBLE = -50.0
"""Powers of two below the peak from which on a weight is left out: of 2²⁵ patches together no more than a float32 rounding."""
HIGHEST = 120.0
"""Powers of two above the peak to which a score is cut; a chunk of images in which one comes near is repeated with a new peak."""


def _polynomial() -> list[float]:
    """Coefficients of 2^f on [-1/2, 1/2], highest first; within 1e-7 of it."""
    points = np.cos(np.pi * (np.arange(64) + 0.5) / 64) / 2
    fit = np.polynomial.Polynomial.fit(points, 2**points, 5, domain=[-0.5, 0.5], window=[-0.5, 0.5], w=2**-points)
    return [float(c) for c in fit.coef[::-1]]


EXCLUDED = -1e30
"""Score of the places of a chunk that hold no image."""
LOWEST = np.float32(-3e38)
REPEATED = np.float32(2.0 ** (HIGHEST / 2))


class Boxes(NamedTuple):
    """Which pairs of places are compared, and over which boxes: the same for all images."""

    height: int
    width: int
    half: int
    """The box goes so far to each side."""
    rows: Any
    """`[S, 3]` int64: a displacement along the rows, and the first and (one beyond) the last of the places u for it."""
    columns: Any
    """The same along the columns."""


class Room(NamedTuple):
    """Working memory of one thread."""

    norms: Any
    """`[H W LANES]` in the dtype of the scores: ‖P_v y‖² of a chunk."""
    column: Any
    """`[(W + half + 1) LANES]` in that dtype; the first half + 1 columns are 0."""
    zeros: Any
    """`[W]` in that dtype: a row of a query that is not there."""
    bias: Any
    """`[LANES]` in that dtype."""
    sums: Any
    """`[1 + C, H W LANES]` float32."""
    weights: Any
    """`[W LANES]` float32."""
    peaks: Any
    """`[H W]` float32."""


class Row:
    """Generates the code of a row: `run` with what numba passes on.

    Addresses are integers. Along the row there are `count` columns in which both images have a pixel; place k of every array is `LANES`
    numbers wide, but for those of the query and the peaks, which are the same for all lanes.
    """

    def __init__(self, builder: Any, kind: Any, arguments: tuple[Any, ...]):
        from llvmlite import ir

        self.ir, self.b, self.kind = ir, builder, kind
        self.f32, self.i32, self.i64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
        self.wide = kind != self.f32
        self.new, self.old, self.column, self.box, self.scoring = arguments

    def run(self) -> None:
        """Update the columns' sums by the row that enters the box and the row that leaves it; slide the box; score or weigh."""
        count, half = self.box[0], self.box[1]
        least = self.b.select(self.b.icmp_signed("<", half, count), half, count)
        start = self._load(self.kind, self.box[4], self.i64(0))

        def enter(k: Any, box: Any) -> Any:
            return self.b.fadd(box, self._update(k))

        def slide(k: Any, box: Any) -> Any:
            box = self.b.fadd(box, self.b.fsub(self._update(k), self._leaving(k)))
            self._emit(self.b.sub(k, half), box)
            return box

        def leave(k: Any, box: Any) -> Any:
            box = self.b.fsub(box, self._leaving(k))
            self._emit(self.b.sub(k, half), box)
            return box

        box = self._loop(self.i64(0), least, start, enter)
        box = self._loop(half, count, box, slide)
        most = self.b.select(self.b.icmp_signed(">", half, count), half, count)
        self._loop(most, self.b.add(count, half), box, leave)

    def _loop(self, first: Any, stop: Any, start: Any, body: Callable[[Any, Any], Any]) -> Any:
        """`body(k, carried)` for k from `first` to before `stop`."""
        b = self.b
        before, head = b.block, b.append_basic_block("head")
        inside, after = b.append_basic_block("inside"), b.append_basic_block("after")
        b.branch(head)
        b.position_at_end(head)
        k, carried = b.phi(self.i64), b.phi(start.type)
        b.cbranch(b.icmp_signed("<", k, stop), inside, after)
        b.position_at_end(inside)
        value = body(k, carried)
        for phi, initial, again in ((k, first, b.add(k, self.i64(1))), (carried, start, value)):
            phi.add_incoming(initial, before)
            phi.add_incoming(again, b.block)
        b.branch(head)
        b.position_at_end(after)
        return carried

    def _update(self, k: Any) -> Any:
        """The sum of column k over the rows of the box, moved down by a row."""
        total = self._load(self.kind, self.column, k)
        total = self.b.fadd(total, self._product(self.new, k), flags=("contract",))
        total = self.b.fsub(total, self._product(self.old, k), flags=("contract",))
        self._store(total, self.column, k)
        return total

    def _product(self, pair: tuple[Any, Any], k: Any) -> Any:
        x, y = self._spread(self.kind, pair[0], k), self._load(self.f32, pair[1], k)
        return self.b.fmul(x, self._widened(y), flags=("contract",))

    def _leaving(self, k: Any) -> Any:
        behind = self.b.add(self.b.shl(self.box[1], self.i64(1)), self.i64(1))
        return self._load(self.kind, self.column, self.b.sub(k, behind))

    def _emit(self, c: Any, box: Any) -> None:
        """Score the places of column c, if they are to be compared."""
        b, (first, last) = self.b, self.box[2:4]
        weighing, curvature, norms, peaks, values, weights, sums, means, step = self.scoring
        with b.if_then(b.and_(b.icmp_signed(">=", c, first), b.icmp_signed("<", c, last))):
            norm = b.fmul(self._load(self.kind, norms, c), self._everywhere(curvature), flags=("contract",))
            score = b.fsub(box, norm, flags=("contract",))
            score = b.fsub(score, self._widened(self._spread(self.f32, peaks, c)))
            z = b.fptrunc(score, self._vector(self.f32)) if self.wide else score
            with b.if_else(b.icmp_signed("!=", weighing, self.i64(0))) as (weigh, score_only):
                with weigh:
                    some = b.bitcast(b.fcmp_ordered(">", z, self._all(self.f32, NEGLIGIBLE)), self.ir.IntType(LANES))
                    with b.if_then(b.icmp_unsigned("!=", some, self.ir.IntType(LANES)(0))):
                        w = self._power(z)
                        self._store(b.fadd(self._load(self.f32, sums, c), w), sums, c)
                        self._store(w, weights, b.mul(c, step))
                        weighted = b.fmul(w, self._load(self.f32, values, c), flags=("contract",))
                        self._store(b.fadd(self._load(self.f32, means, c), weighted, flags=("contract",)), means, c)
                with score_only:
                    old = self._load(self.f32, sums, c)
                    self._store(b.select(b.fcmp_ordered(">", z, old), z, old), sums, c)

    def _power(self, z: Any) -> Any:
        """2^z: the whole part of z to the exponent, the rest by a polynomial.

        The rounding is an instruction: numba lets LLVM reorder sums, and so undo a rounding that is made of them.
        """
        b = self.b
        low, high = (self._all(self.f32, v) for v in (-126.0, HIGHEST))
        z = b.select(b.fcmp_ordered(">", z, low), z, low)
        z = b.select(b.fcmp_ordered("<", z, high), z, high)
        vector = self._vector(self.f32)
        rounding = b.module.declare_intrinsic(f"llvm.rint.v{LANES}f32", (), self.ir.FunctionType(vector, [vector]))
        nearest = b.call(rounding, [z])
        part = b.fsub(z, nearest)
        first, *others = _polynomial()
        total = self._all(self.f32, first)
        for one in others:
            total = b.fadd(b.fmul(total, part, flags=("contract",)), self._all(self.f32, one), flags=("contract",))
        whole = self._vector(self.i32)
        exponent = b.shl(b.fptosi(nearest, whole), self.ir.Constant(whole, [23] * LANES))
        return b.bitcast(b.add(b.bitcast(total, whole), exponent), vector)

    def _vector(self, kind: Any) -> Any:
        return self.ir.VectorType(kind, LANES)

    def _all(self, kind: Any, value: float) -> Any:
        return self.ir.Constant(self._vector(kind), [float(np.float32(value))] * LANES)

    def _widened(self, vector: Any) -> Any:
        return self.b.fpext(vector, self._vector(self.kind)) if self.wide and vector.type.element == self.f32 else vector

    def _at(self, base: Any, k: Any, size: int, kind: Any) -> Any:
        return self.b.inttoptr(self.b.add(base, self.b.mul(k, self.i64(size))), kind.as_pointer())

    def _size(self, kind: Any) -> int:
        return 4 if kind == self.f32 else 8

    def _load(self, kind: Any, base: Any, k: Any) -> Any:
        return self.b.load(self._at(base, k, LANES * self._size(kind), self._vector(kind)), align=4)

    def _store(self, vector: Any, base: Any, k: Any) -> None:
        self.b.store(vector, self._at(base, k, LANES * self._size(vector.type.element), vector.type), align=4)

    def _spread(self, kind: Any, base: Any, k: Any) -> Any:
        """A number in all places of a vector."""
        return self._everywhere(self.b.load(self._at(base, k, self._size(kind), kind), align=4))

    def _everywhere(self, value: Any) -> Any:
        vector = self._vector(value.type)
        undefined = self.ir.Constant(vector, self.ir.Undefined)
        first = self.b.insert_element(undefined, value, self.i32(0))
        return self.b.shuffle_vector(first, undefined, self.ir.Constant(self._vector(self.i32), [0] * LANES))


@intrinsic
def _row(typing: Any, zero: Any, new: Any, old: Any, column: Any, box: Any, scoring: Any) -> Any:
    """By addresses, a row of places: their highest scores, or their weights, summed."""
    from numba import types

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        parts = []
        for kind, value in zip(signature.args[1:], arguments[1:], strict=True):
            count = len(kind) if hasattr(kind, "__len__") else 0
            parts.append(tuple(builder.extract_value(value, i) for i in range(count)) if count else value)
        Row(builder, context.get_value_type(signature.args[0]), tuple(parts)).run()
        return context.get_dummy_value()

    return types.void(zero, new, old, column, box, scoring), generate


@compiled
def address(values):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Where an array lies, as a signed number: numba adds unsigned and signed ones in float64."""
    return np.intp(values.ctypes.data)


@compiled
def _norms(image, boxes, norms):  # type: ignore[no-untyped-def]  # pragma: no cover
    """‖P_v y‖² of a chunk of images `[C, H W LANES]`."""
    height, width, half = boxes.height, boxes.width, boxes.half
    squares, along = np.zeros(height * width * LANES), np.zeros(height * width * LANES)
    for c in range(image.shape[0]):
        for i in range(squares.shape[0]):
            squares[i] += np.float64(image[c, i]) * np.float64(image[c, i])
    span = width * LANES
    for r in range(height):
        for c in range(width):
            for other in range(max(0, c - half), min(width, c + half + 1)):
                into = along[r * span + c * LANES : r * span + (c + 1) * LANES]
                own = squares[r * span + other * LANES : r * span + (other + 1) * LANES]
                for lane in range(LANES):
                    into[lane] += own[lane]
    for r in range(height):
        total = squares[r * span : (r + 1) * span]
        total[:] = 0
        for other in range(max(0, r - half), min(height, r + half + 1)):
            own = along[other * span : (other + 1) * span]
            for i in range(span):
                total[i] += own[i]
        into = norms[r * span : (r + 1) * span]
        for i in range(span):
            into[i] = total[i]


@compiled
def _displacements(weighing, image, x, curvature, boxes, room):  # type: ignore[no-untyped-def]  # pragma: no cover
    """One query `[C, H W]` and one chunk of images `[C, H W LANES]`: highest scores, or sums of weights, in `room.sums`."""
    height, width, half = boxes.height, boxes.width, boxes.half
    channels, many, each = image.shape[0], LANES * 4, room.column.itemsize
    zero, none, wide, column = room.zeros[0], address(room.zeros), LANES * each, room.column[(half + 1) * LANES :]
    one = zero + np.float32(1)
    for dy, first, last in boxes.rows:
        top, bottom = max(0, -dy), min(height, height - dy)
        lowest = max(top, first - half)
        for dx, begin, end in boxes.columns:
            left, right = max(0, -dx), min(width, width - dx)
            n, shift = right - left, dy * width + dx
            room.column[:] = 0
            for r in range(lowest, min(bottom, first + half)):
                for c in range(channels):
                    _add_row(column, one, x[c, r * width + left :], image[c, (r * width + left + shift) * LANES :], n)
            for r in range(first, last):
                new, old, own = (r + half) * width + left, (r - half - 1) * width + left, r * width + left
                enters, leaves, other = r + half < bottom, r - half - 1 >= lowest, own + shift
                for c in range(1, channels):
                    if enters:
                        _add_row(column, one, x[c, new:], image[c, (new + shift) * LANES :], n)
                    if leaves:
                        _add_row(column, -one, x[c, old:], image[c, (old + shift) * LANES :], n)
                from_x, from_image = address(x), address(image)
                entering = (from_x + new * each if enters else none, from_image + ((new + shift) * many if enters else 0))
                leaving = (from_x + old * each if leaves else none, from_image + ((old + shift) * many if leaves else 0))
                box = (n, half, begin - left, end - left, address(room.bias))
                sums = address(room.sums) + own * many
                scoring = (
                    weighing,
                    curvature,
                    address(room.norms) + other * wide,
                    address(room.peaks) + own * 4,
                    from_image + other * many,
                    address(room.weights),
                    sums,
                    sums + height * width * many,
                    min(1, channels - 1),
                )
                if channels > 1:
                    room.weights[:] = 0
                _row(zero, entering, leaving, address(column), box, scoring)
                if weighing:
                    for c in range(1, channels):
                        _add_weighted(room.sums[1 + c, own * LANES :], room.weights, image[c, other * LANES :], n)


@compiled
def _add_row(column, sign, x, image, n):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The products of a row of a query and of images, times a sign, added to the sums of their columns."""
    for k in range(n):
        value, total, own = sign * x[k], column[k * LANES : (k + 1) * LANES], image[k * LANES : (k + 1) * LANES]
        for lane in range(LANES):
            total[lane] += value * own[lane]


@compiled
def _add_weighted(into, weights, image, n):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Weights times a further channel of the images, added to its sums."""
    into, weights, image = into[: n * LANES], weights[: n * LANES], image[: n * LANES]
    for i in range(n * LANES):
        into[i] += weights[i] * image[i]


@compiled
def add_images(images, bias, chunks, queries, boxes, room, totals):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Add chunks of images to the posterior sums of queries.

    Args:
      images: `[chunks, C, H W LANES]` float32.
      bias: `[chunks, LANES]` in the dtype of the scores: 0, or `EXCLUDED`.
      chunks: int64, which of them.
      queries: x (α/σ²) log₂e `[B, C, H W]` and α²/(2σ²) log₂e `[B]`, in the dtype of the scores.
      room: `Room`.
      totals: `[B, H W]` float64 peaks and Σ w, w = 2^(score - peak), and `[B, C, H W]` Σ w y. Peaks of -inf: none yet.
    """
    (x, curvature), (peaks, weights, means) = queries, totals
    places = boxes.height * boxes.width
    for chunk in chunks:
        image = images[chunk]
        _norms(image, boxes, room.norms)
        room.bias[:] = bias[chunk]
        for b in range(x.shape[0]):
            again = peaks[b, 0] == -np.inf
            while True:
                if again:
                    room.sums[0] = LOWEST
                    room.peaks[:] = 0
                    _displacements(0, image, x[b], curvature[b], boxes, room)
                    for u in range(places):
                        top = np.float64(room.sums[0, u * LANES : (u + 1) * LANES].max())
                        if top > peaks[b, u]:
                            scale = 2.0 ** (peaks[b, u] - top)
                            weights[b, u] *= scale
                            means[b, :, u] *= scale
                            peaks[b, u] = top
                room.peaks[:] = peaks[b]
                room.sums[:] = 0
                _displacements(1, image, x[b], curvature[b], boxes, room)
                again = not again and room.sums[0].max() > REPEATED
                if not again:
                    break
            for u in range(places):
                for lane in range(u * LANES, (u + 1) * LANES):
                    weights[b, u] += room.sums[0, lane]
                    for c in range(means.shape[1]):
                        means[b, c, u] += room.sums[1 + c, lane]
