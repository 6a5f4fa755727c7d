"""Upper bounds of scores, compiled by numba, each finer than the last: by the boxes of leaves, columns, bytes of coordinates, all bytes.

Each bound is computed for the samples that the bound before has not pruned. `kernels.posterior.cpu.index` makes the table of the samples,
`kernels.posterior.cpu.query_tables` that of the queries. Places of a table are numbered leaf by leaf.

Three loops at the end are written in LLVM vectors, so that their sums stay in registers: a compiler does not manage that for nested loops.
They run on every CPU. For products of bytes with 16 bits, added up in pairs, some CPUs have an instruction (x86's `pmaddwd`), which makes
them faster than float32 products. All is in one file, because numba does not notice changes in another.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int16

from kernels.posterior.cpu.numba_kernels import compiled, intrinsic
from kernels.posterior.cpu.tuning import TUNING

LEAF, COARSE, HALF, FINE, GROUPS = TUNING.leaf, TUNING.coarse, TUNING.half, TUNING.fine, TUNING.norm_groups
NORMS, MORE, COLUMNS = COARSE + 3, COARSE + 3 + GROUPS, FINE + 3 + GROUPS
"""Columns: the leading coordinates; the norm outside of the basis, log prior, ‖y - center‖²; from `NORMS` on those of the groups, and from
`MORE` on the other coordinates."""
TALL, WIDE, SOME, SHORT = TUNING.tall, TUNING.wide, TUNING.widened, TUNING.first_leaves


@compiled
def bounds_of_leaves(first, last, table, query_tables, into):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Into rows `first` to `last` of `into` `[leaves, B]` float32: at least the highest score in each box."""
    for leaf in range(first, last):
        low, high, own = table.low[leaf], table.high[leaf], into[leaf]
        own[:] = table.likely[leaf]
        for k in range(COARSE + 1):
            g, peak, least, most = query_tables.box[k], query_tables.peak[k], low[k], high[k]
            for q in range(own.shape[0]):
                z = min(max(peak[q], least), most)
                own[q] += z * (g[q] - query_tables.kappa32[q] * z)


@compiled
def _product(digits, j, bits, q):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The exact product of row j of digits and row q of bits: int32 adds up products of bytes and 16 bits."""
    total = np.int32(0)
    for i in range(digits.shape[1]):
        total += np.int32(digits[j, i]) * np.int32(bits[q, i])
    return np.int32(total)  # so that LLVM sums in 32 bits, by one instruction for sixteen products


@compiled
def _by_bytes(j, q, table, query_tables):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The score of a pair by all bytes, and its width, a bound of its error."""
    digits, lengths, left = table.whole
    bits, step, lost, length = query_tables.whole
    value = step[q] * _product(digits, j, bits, q) + query_tables.offset[q] - query_tables.kappa[q] * table.norms[j] + table.prior[j]
    return value, lost[q] * lengths[j] + length[q] * left[j] + query_tables.slack_of_bytes[q]


@compiled
def _add(columns, of_query, first, last, sums):  # type: ignore[no-untyped-def]  # pragma: no cover
    """`sums` of a leaf += its columns from `first` to `last`, times the query's factors."""
    _add_columns(columns.ctypes.data + first * LEAF * 4, of_query.ctypes.data + first * 4, last - first, sums.ctypes.data)


@compiled
def _any(sums, more, low):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Whether any bound of a leaf is no less than `low`."""
    count = np.int32(0)
    for s in range(LEAF):
        count += np.int32(sums[s] + more[s] >= low)
    return count > 0


@compiled
def raise_floors(bounds, start, first, last, table, query_tables, floor):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Raise the `floor` of queries `first` to `last`, below which their highest score does not lie: in each of the leaves whose bounds are
    highest, by the sample that is best by its coordinates.

    Args:
      bounds: `[leaves, B]`, of each leaf, from leaf `start` on.
    """
    b, sums = last - first, np.empty(LEAF, np.float32)
    best, high = np.zeros((b, SHORT), np.int64), np.full((b, SHORT), -np.inf, np.float32)
    least, lowest = np.zeros(b, np.int64), np.full(b, -np.inf, np.float32)
    for leaf in range(start, bounds.shape[0]):
        of_leaf = bounds[leaf, first:last]
        for q in range(b):
            if of_leaf[q] > lowest[q]:
                best[q, least[q]], high[q, least[q]] = leaf, of_leaf[q]
                least[q] = high[q].argmin()
                lowest[q] = high[q, least[q]]
    for q in range(first, last):
        of_query, mine = query_tables.columns[q], high[q - first]
        highest = mine.argmax()
        for turn in range(SHORT):
            one = (highest + turn) % SHORT
            if mine[one] <= floor[q] or mine[one] == -np.inf:
                continue
            leaf = best[q - first, one]
            columns = table.columns[leaf]
            sums[:] = 0
            _add(columns, of_query, 0, COARSE, sums)
            _add(columns, of_query, COARSE + 1, NORMS, sums)
            _add(columns, of_query, MORE, COLUMNS, sums)
            value, width = _by_bytes(leaf * LEAF + sums.argmax(), q, table, query_tables)
            floor[q] = max(floor[q], value - width)


class Search(NamedTuple):
    """Tables of a search, and its state."""

    table: Any
    query_tables: Any
    below: Any
    """`[B]`, how far a sample's bound may lie below the floor for it to survive: the cut, and float32's rounding."""
    cut: Any
    """`[B]`, how far below the highest score a sample does not matter."""
    floor: Any
    """`[B]`, a lower bound of the highest score, raised by scores from bytes."""
    scored: Any
    """`[B]`: how many samples have been scored by their bytes, added to."""
    most: Any
    """`[B]`: queries for which more are scored are given up."""
    counts: Any
    """`[3]`, of leaves bounded for a query by the first columns, by more of them, and by bytes of the other coordinates; added to."""


# Long: numba makes one loop of it, whose sums stay in registers from bound to bound.
@compiled
def survivors_by_bounds(bounds, lowest, highest, everywhere, search, first, last, room):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Pairs of sample and query that may lie within the cut of the query's highest score: of the leaves that may have some by columns, of
    those that survive columns and the bytes of coordinates, and of those by all bytes.

    Args:
      bounds: `[leaves, B]` float32, of each leaf; of leaves `first` to `last`.
      lowest, highest: `[B]` float32: leaves of queries whose bound is not between, the latter not included, are left for another call.
      everywhere: bound the samples of the others too, whatever these bounds say.
      room: places, queries, values and widths of pairs, the result: a score is within its width of its value.

    Returns:
      Where to go on (short of `last` where there is no more room), and how many pairs there are.
    """
    table, query_tables, below, cut, floor, scored, most, counts = search
    places, queries, values, widths = room
    at = 0
    b = bounds.shape[1]
    bits, step, lost, length = query_tables.middle
    least, sums, more, bound = np.empty(b, np.float32), np.empty(LEAF, np.float32), np.empty(LEAF, np.float32), np.empty(LEAF, np.float32)
    products, survivors = np.zeros(LEAF, np.int32), np.empty(LEAF + 1, np.int32)
    for q in range(b):
        least[q] = np.float32(floor[q] - below[q]) if scored[q] <= most[q] else np.float32(np.inf)
    for leaf in range(first, last):
        if at + b * LEAF > places.shape[0]:
            return leaf, at
        columns, of_leaf = table.columns[leaf], bounds[leaf]
        digits, lengths, left = table.middle.digits[leaf], table.middle.lengths[leaf], table.middle.left[leaf]
        for q in range(b):
            low, of_query = least[q], query_tables.columns[q]
            if not (lowest[q] <= of_leaf[q] < highest[q] and (of_leaf[q] >= low or everywhere)):
                continue
            # All of a leaf each time: mispredicted branches would cost more than the computation. A group's norm is in a bound until its
            # coordinates are.
            counts[0] += 1
            sums[:], more[:] = 0, 0
            _add(columns, of_query, 0, NORMS, sums)
            _add(columns, of_query, NORMS, MORE, more)
            if not _any(sums, more, low):
                continue
            counts[1] += 1
            more[:] = 0
            _add(columns, of_query, MORE, MORE + HALF - COARSE, sums)
            _add(columns, of_query, NORMS + 1, MORE, more)
            if not _any(sums, more, low):
                continue
            more[:] = 0
            _add(columns, of_query, MORE + HALF - COARSE, COLUMNS, sums)
            _add(columns, of_query, NORMS + 2, MORE, more)
            if not _any(sums, more, low):
                continue
            counts[2] += 1
            if digits.shape[0]:
                _of_leaf(digits.ctypes.data, bits.ctypes.data + q * bits.shape[1] * 2, digits.shape[0], products.ctypes.data)
            factor, of_lengths, of_left = np.float32(step[q]), np.float32(lost[q] * 1.000001), np.float32(length[q] * 1.000001)
            for s in range(LEAF):
                bound[s] = sums[s] + factor * np.float32(products[s]) + of_lengths * lengths[s] + of_left * left[s]
            count = 0
            for s in range(LEAF):
                survivors[count] = s
                count += int(bound[s] >= low)
            for p in range(count):
                j = leaf * LEAF + survivors[p]
                if bound[survivors[p]] < floor[q] - below[q]:  # the floor has been raised
                    continue
                value, width = _by_bytes(j, q, table, query_tables)
                floor[q] = max(floor[q], value - width)
                if value + width >= floor[q] - cut[q]:
                    places[at], queries[at], values[at], widths[at] = j, q, value, width
                    at += 1
            scored[q] += count
            least[q] = np.float32(floor[q] - below[q]) if scored[q] <= most[q] else np.float32(np.inf)
    return last, at


@compiled
def survivors_by_scores(scores, least, search, start, first, room):  # type: ignore[no-untyped-def]  # pragma: no cover
    """As `survivors_by_bounds`, from scores of all samples.

    Args:
      scores: `[n, B]` float32, of the places from `start` on; those from `first` on are still to do.
      least: `[B]` float32: pairs of a lower score do not matter.
    """
    table, query_tables, cut, floor, scored, most = search.table, search.query_tables, search.cut, search.floor, search.scored, search.most
    places, queries, values, widths = room
    (n, b), at = scores.shape, 0
    for i in range(first - start, n):
        if at + b > places.shape[0]:
            return start + i, at
        own, some = scores[i], np.int32(0)
        for q in range(b):
            some += np.int32(own[q] >= least[q])
        if not some:
            continue
        for q in range(b):
            if own[q] >= least[q] and scored[q] <= most[q]:
                value, width = _by_bytes(start + i, q, table, query_tables)
                scored[q] += 1
                floor[q] = max(floor[q], value - width)
                if value + width >= floor[q] - cut[q]:
                    places[at], queries[at], values[at], widths[at] = start + i, q, value, width
                    at += 1
    return start + n, at


def panels_of(bits: Int16[np.ndarray, "B M"]) -> Int16[np.ndarray, "panels pairs wide 2"]:
    """Queries as `multiply` reads them: `WIDE` at a time, pair by pair of numbers; 0 where there are none."""
    b, m = bits.shape
    room = np.zeros((-(-b // WIDE) * WIDE, -(-m // 2) * 2), np.int16)
    room[:b, :m] = bits
    return np.ascontiguousarray(room.reshape(-1, WIDE, room.shape[1] // 2, 2).transpose(0, 2, 1, 3))


@compiled
def multiply(scores, digits, panels, step):  # type: ignore[no-untyped-def]  # pragma: no cover
    """`scores` `[n, B]` float32 = step ∘ (digits bitsᵀ), of int8 digits `[n, M]`; the product is exact if it lies within int32.

    Args:
      panels: `panels_of` the bits.
      step: `[B]` float32.
    """
    n, m = digits.shape
    count, pairs = panels.shape[:2]
    rows, products = np.zeros((SOME, 2 * pairs), np.int16), np.empty((SOME, count * WIDE), np.int32)
    for start in range(0, n, SOME):
        many = min(SOME, n - start)
        for i in range(many):
            for k in range(m):
                rows[i, k] = digits[start + i, k]
        for p in range(count):
            for i in range(0, many, TALL):
                at_row, at_panel, at = (
                    rows.ctypes.data + i * pairs * 4,
                    panels.ctypes.data + p * pairs * WIDE * 4,
                    (i * count + p) * WIDE * 4,
                )
                _tile(at_row, pairs * 4, at_panel, pairs, products.ctypes.data + at, count * WIDE * 4)
        for i in range(many):
            for q in range(scores.shape[1]):
                scores[start + i, q] = step[q] * np.float32(products[i, q])


class _Loop:
    """`count` times over k, at least once, with vectors that are added to."""

    def __init__(self, builder: Any, count: Any):
        from llvmlite import ir

        self.builder, self._count = builder, count
        self.i16, self.i32, self.i64, self.f32, self._vector = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType(), ir.VectorType
        self.eight, self.floats, self.sixteen = (ir.VectorType(kind, n) for kind, n in ((self.i32, 8), (self.f32, 8), (self.i16, 16)))
        self.bytes = ir.VectorType(ir.IntType(8), 16)
        self._constant, self._undefined = ir.Constant, ir.Undefined

    def run(self, starts: list[Any], body: Callable[[Any], list[Any]]) -> list[Any]:
        """The sums: what `body(k)` gives, added to `starts`."""
        builder = self.builder
        before, loop, after = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("after")
        builder.branch(loop)
        builder.position_at_end(loop)
        k, *sums = builder.phi(self.i64), *(builder.phi(start.type) for start in starts)
        more = body(k)
        new = [builder.add(k, self.i64(1)), *(self._plus(a, b) for a, b in zip(sums, more, strict=True))]
        for phi, start, value in zip([k, *sums], [self.i64(0), *starts], new, strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", new[0], self._count), loop, after)
        builder.position_at_end(after)
        return new[1:]

    def _plus(self, a: Any, b: Any) -> Any:
        return self.builder.fadd(a, b, flags=("contract",)) if a.type == self.floats else self.builder.add(a, b)

    def zeros(self, n: int) -> list[Any]:
        """Vectors of eight int32."""
        return [self._constant(self.eight, [0] * 8)] * n

    def at(self, base: Any, k: Any, size: int, offset: int, kind: Any) -> Any:
        """The place `base + size k + offset`, in bytes."""
        where = self.builder.add(base, self.builder.add(self.builder.mul(k, self.i64(size)), self.i64(offset)))
        return self.builder.inttoptr(where, kind.as_pointer())

    def load(self, base: Any, k: Any, size: int, offset: int, kind: Any) -> Any:
        """What is there."""
        return self.builder.load(self.at(base, k, size, offset, kind), align=1)

    def everywhere(self, value: Any, kind: Any) -> Any:
        """A number in all places of a vector."""
        vector = self._vector(value.type, 8)
        first = self.builder.insert_element(self._constant(vector, self._undefined), value, self.i32(0))
        return self.builder.bitcast(self._pick(first, [0] * 8), kind)

    def _pick(self, vector: Any, places: Sequence[int]) -> Any:
        mask = self._constant(self._vector(self.i32, len(places)), list(places))
        return self.builder.shuffle_vector(vector, self._constant(vector.type, self._undefined), mask)

    def pairs(self, x: Any, y: Any) -> Any:
        """Sixteen products of 16 bits, added up two by two: in the form in which LLVM knows that there is an instruction for it."""
        twice = self._vector(self.i32, 16)
        product = self.builder.mul(self.builder.sext(x, twice), self.builder.sext(y, twice))
        return self.builder.add(self._pick(product, range(0, 16, 2)), self._pick(product, range(1, 16, 2)))


@intrinsic
def _tile(typing: Any, rows: Any, row: Any, panel: Any, pairs: Any, into: Any, step: Any) -> Any:
    """By addresses: sums over all `pairs` of `TALL` rows, `row` bytes apart, and a panel; int32, to rows that lie `step` bytes apart."""
    from numba import types

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        rows, row, panel, pairs, into, step = arguments
        loop = _Loop(builder, pairs)
        each = [builder.add(rows, builder.mul(row, loop.i64(i))) for i in range(TALL)]

        def body(k: Any) -> list[Any]:
            halves = [loop.load(panel, k, 4 * WIDE, 32 * half, loop.sixteen) for half in range(2)]
            own = [loop.everywhere(loop.load(one, k, 4, 0, loop.i32), loop.sixteen) for one in each]
            return [loop.pairs(half, one) for one in own for half in halves]

        for i, value in enumerate(loop.run(loop.zeros(2 * TALL), body)):
            where = builder.add(into, builder.mul(step, loop.i64(i // 2)))
            builder.store(value, loop.at(where, loop.i64(0), 0, 32 * (i % 2), loop.eight), align=4)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6), generate


@intrinsic
def _of_leaf(typing: Any, digits: Any, bits: Any, pairs: Any, products: Any) -> Any:
    """By addresses: int32 `products` of a query with the bytes of a leaf, `[pairs, LEAF, 2]`."""
    from numba import types

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        digits, bits, pairs, products = arguments
        loop = _Loop(builder, pairs)

        def body(k: Any) -> list[Any]:
            query = loop.everywhere(loop.load(bits, k, 4, 0, loop.i32), loop.sixteen)
            some = [loop.load(digits, k, 2 * LEAF, 16 * part, loop.bytes) for part in range(LEAF // 8)]
            return [loop.pairs(builder.sext(one, loop.sixteen), query) for one in some]

        for part, value in enumerate(loop.run(loop.zeros(LEAF // 8), body)):
            builder.store(value, loop.at(products, loop.i64(0), 0, 32 * part, loop.eight), align=4)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), generate


@intrinsic
def _add_columns(typing: Any, columns: Any, of_query: Any, count: Any, sums: Any) -> Any:
    """`_add` by addresses."""
    from numba import types

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        columns, of_query, count, sums = arguments
        loop, parts = _Loop(builder, count), range(LEAF // 8)
        old = [loop.load(sums, loop.i64(0), 0, 32 * part, loop.floats) for part in parts]

        def body(k: Any) -> list[Any]:
            factor = loop.everywhere(loop.load(of_query, k, 4, 0, loop.f32), loop.floats)
            some = [loop.load(columns, k, 4 * LEAF, 32 * part, loop.floats) for part in parts]
            return [builder.fmul(one, factor, flags=("contract",)) for one in some]

        for part, value in zip(parts, loop.run(old, body), strict=True):
            builder.store(value, loop.at(sums, loop.i64(0), 0, 32 * part, loop.floats), align=4)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), generate
