"""Looks at samples, each at what the one before has left: boxes of leaves, columns, bytes of coordinates, all bytes. Compiled by numba.

`Table` is what `kernels.posterior.sketch` makes of samples, `Aim` what `kernels.posterior.aim` makes of queries. Places of a table are
numbered leaf by leaf.
"""

from typing import Any

import numpy as np

from kernels.posterior.native import compiled, intrinsic

LEAF = 64
"""Samples in a leaf: eight registers of float32."""
COARSE, HALF, FINE = 16, 32, 64
"""How many coordinates stand by themselves in a bound, one after the other: it is finer, and costs more, the more do."""
GROUPS = 8
"""Groups of coordinates that have norms in the columns, at most; the first from `COARSE` to `HALF`, the second up to `FINE`."""
NORMS, MORE, COLUMNS = COARSE + 3, COARSE + 3 + GROUPS, FINE + 3 + GROUPS
"""Columns: the leading coordinates; the norm outside of the basis, log prior, ‖y - center‖²; from `NORMS` on those of the groups, and from
`MORE` on the other coordinates."""
SHORT = 16
"""Leaves in which a good sample is looked for, to begin with."""
MANY = 16
"""Queries that look at a leaf, from which on its bytes are read beforehand, from end to end: here and there it takes longer."""
LINE = 64
"""Bytes that come from memory together."""


@compiled
def bounds_of_leaves(first, last, table, aim, into):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Into rows `first` to `last` of `into` `[leaves, B]` float32: at least the highest score in each box."""
    for leaf in range(first, last):
        low, high, likely, own = table.low[leaf], table.high[leaf], table.likely[leaf], into[leaf]
        for q in range(own.shape[0]):
            g, peak, kappa, total = aim.box[q], aim.peak[q], aim.kappa32[q], likely
            for k in range(COARSE + 1):
                z = min(max(peak[k], low[k]), high[k])
                total += z * (g[k] - kappa * z)
            own[q] = total


@compiled
def _product(digits, j, bits, q):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Of row j and row q, exact: int32 adds up products of bytes and 16 bits."""
    total = np.int32(0)
    for i in range(digits.shape[1]):
        total += np.int32(digits[j, i]) * np.int32(bits[q, i])
    return np.int32(total)  # so that LLVM sums in 32 bits, by one instruction for sixteen products


@compiled
def _by_bytes(j, q, table, aim):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The score of a pair by all bytes, and its width: that far from it the score may lie."""
    digits, lengths, left = table.whole
    bits, step, lost, length = aim.whole
    value = step[q] * _product(digits, j, bits, q) + aim.offset[q] - aim.kappa[q] * table.norms[j] + table.prior[j]
    return value, lost[q] * lengths[j] + length[q] * left[j] + aim.slack_of_bytes[q]


@compiled
def _add(columns, of_query, first, last, sums):  # type: ignore[no-untyped-def]  # pragma: no cover
    """`sums` of a leaf += its columns from `first` to `last`, times what the query has for them."""
    _add_columns(columns.ctypes.data + first * LEAF * 4, of_query.ctypes.data + first * 4, last - first, sums.ctypes.data)


@compiled
def _any(sums, more, low):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Whether any bound of a leaf is no less than `low`."""
    found = np.int32(0)
    for s in range(LEAF):
        found += np.int32(sums[s] + more[s] >= low)
    return found > 0


@compiled
def begin(bounds, start, first, last, table, aim, floor):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Raise the `floor` of queries `first` to `last`, below which their highest score does not lie: in each of the leaves whose bounds are
    highest, by the sample that is best by its coordinates.

    Args:
      bounds: `[leaves, B]`, of each leaf, from leaf `start` on.
    """
    best, high, sums = np.empty(SHORT, np.int64), np.empty(SHORT, np.float32), np.empty(LEAF, np.float32)
    for q in range(first, last):
        high[:], least, count = -np.inf, 0, 0
        for leaf in range(start, bounds.shape[0]):
            value = bounds[leaf, q]
            if count < SHORT:
                best[count], high[count] = leaf, value
                count += 1
            elif value > high[least]:
                best[least], high[least] = leaf, value
            else:
                continue
            least = high[:count].argmin()
        of_query, slack = aim.columns[q], aim.slack[q]
        first_of_them = high[:count].argmax()
        for turn in range(count):
            one = (first_of_them + turn) % count
            if high[one] + slack < floor[q]:
                continue
            columns = table.columns[best[one]]
            sums[:] = 0
            _add(columns, of_query, 0, COARSE, sums)
            _add(columns, of_query, COARSE + 1, NORMS, sums)
            _add(columns, of_query, MORE, COLUMNS, sums)
            value, width = _by_bytes(best[one] * LEAF + sums.argmax(), q, table, aim)
            floor[q] = max(floor[q], value - width)


@compiled
def look(  # type: ignore[no-untyped-def]  # pragma: no cover
    bounds, first, last, everywhere, table, aim, below, cut, floor, counts, seen, most, places, queries, values, widths, at
):
    """Pairs of sample and query that may lie within the cut of the query's highest score: of the leaves that may have some by columns, of
    those that stand by columns and the bytes of coordinates, and of those by all bytes.

    Args:
      bounds: `[leaves, B]` float32, of each leaf; of leaves `first` to `last`.
      everywhere: whatever these say.
      below: `[B]`, how far below its bound by columns a score's floor may lie for it to be looked at: the cut, and what float32 hides.
      cut, floor: `[B]`: the floor is raised to what the bytes say a score is at least.
      counts: `[2]`, of leaves that have been looked at, for a query, by the first columns and by more of them; added to.
      seen, most: `[B]`: how many samples have been looked at by bytes, added to; queries that exceed `most` are given up.
      places, queries, values, widths: result, written from `at` on: a score is within its width of its value.

    Returns:
      Where to go on (short of `last` where there is no more room), and how many pairs there are.
    """
    b = bounds.shape[1]
    some_digits, some_lengths, some_left = table.middle
    some_bits, some_step, some_lost, some_length = aim.middle
    least, sums, more, bound = np.empty(b, np.float32), np.empty(LEAF, np.float32), np.empty(LEAF, np.float32), np.zeros(LEAF)
    standing, chosen = np.empty(LEAF + 1, np.int32), np.empty(LEAF + 1, np.int32)
    for q in range(b):
        least[q] = np.float32(floor[q] - below[q]) if seen[q] <= most[q] else np.float32(np.inf)
    for leaf in range(first, last):
        if at + b * LEAF > places.shape[0]:
            return leaf, at
        columns, of_leaf, many = table.columns[leaf], bounds[leaf], np.int32(0)
        for q in range(b):
            many += np.int32(of_leaf[q] >= least[q])
        if not (many or everywhere):
            continue
        if many > MANY:
            for k in range(LEAF):
                digits = some_digits[leaf * LEAF + k]
                for g in range(0, digits.shape[0], LINE):
                    bound[0] += digits[g]
        for q in range(b):
            low, of_query = least[q], aim.columns[q]
            if of_leaf[q] < low and not everywhere:
                continue
            # What has no branch is in loops of its own, over all of a leaf: what a processor would guess wrong costs more than what is
            # computed. The groups are in a bound as long as their coordinates are not.
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
            count, left_over = 0, 0
            for s in range(LEAF):
                standing[count] = s
                count += int(sums[s] + more[s] >= low)
            for p in range(count):
                s = standing[p]
                j = leaf * LEAF + s
                width = some_lost[q] * some_lengths[j] + some_length[q] * some_left[j]
                bound[p] = sums[s] + some_step[q] * _product(some_digits, j, some_bits, q) + width
            for p in range(count):
                chosen[left_over] = leaf * LEAF + standing[p]
                left_over += int(bound[p] >= floor[q] - below[q])
            for p in range(left_over):
                j = chosen[p]
                value, width = _by_bytes(j, q, table, aim)
                floor[q] = max(floor[q], value - width)
                if value + width >= floor[q] - cut[q]:
                    places[at], queries[at], values[at], widths[at] = j, q, value, width
                    at += 1
            seen[q] += count
            least[q] = np.float32(floor[q] - below[q]) if seen[q] <= most[q] else np.float32(np.inf)
    return last, at


@compiled
def sift(  # type: ignore[no-untyped-def]  # pragma: no cover
    scores, first, start, table, aim, least, cut, floor, seen, most, places, queries, values, widths, at
):
    """The same by scores of all.

    Args:
      scores: `[n, B]` float32, of the places from `start` on; those from `first` on are still to do.
      least: `[B]` float32: pairs of a lower score do not matter.
    """
    n, b = scores.shape
    for i in range(first - start, n):
        if at + b > places.shape[0]:
            return start + i, at
        own, some = scores[i], np.int32(0)
        for q in range(b):
            some += np.int32(own[q] >= least[q])
        if not some:
            continue
        for q in range(b):
            if own[q] >= least[q] and seen[q] <= most[q]:
                value, width = _by_bytes(start + i, q, table, aim)
                seen[q] += 1
                floor[q] = max(floor[q], value - width)
                if value + width >= floor[q] - cut[q]:
                    places[at], queries[at], values[at], widths[at] = start + i, q, value, width
                    at += 1
    return start + n, at


@intrinsic
def _add_columns(typing: Any, columns: Any, of_query: Any, count: Any, sums: Any) -> Any:
    """`_add` by addresses: for LLVM, which would not keep the sums in registers."""
    from llvmlite import ir
    from numba import types

    number, i64 = ir.FloatType(), ir.IntType(64)
    eight, place = ir.VectorType(number, 8), ir.VectorType(ir.IntType(32), 8)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        columns, of_query, count, sums = arguments

        def at(base: Any, k: Any, each: int, offset: int, kind: Any) -> Any:
            return builder.inttoptr(builder.add(base, builder.add(builder.mul(k, i64(each)), i64(offset))), kind.as_pointer())

        def parts(base: Any, k: Any) -> list[Any]:
            return [at(base, k, 4 * LEAF, 32 * part, eight) for part in range(LEAF // 8)]

        before, loop, after = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("after")
        old = [builder.load(one, align=4) for one in parts(sums, i64(0))]
        builder.branch(loop)
        builder.position_at_end(loop)
        k, *own = builder.phi(i64), *(builder.phi(eight) for _ in old)
        factor = builder.load(at(of_query, k, 4, 0, number), align=4)
        first = builder.insert_element(ir.Constant(eight, ir.Undefined), factor, ir.IntType(32)(0))
        factor = builder.shuffle_vector(first, ir.Constant(eight, ir.Undefined), ir.Constant(place, [0] * 8))
        new = [builder.add(k, i64(1))]
        for total, one in zip(own, parts(columns, k), strict=True):
            new.append(builder.fadd(total, builder.fmul(builder.load(one, align=4), factor, flags=("contract",)), flags=("contract",)))
        for phi, start, value in zip([k, *own], [i64(0), *old], new, strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", new[0], count), loop, after)
        builder.position_at_end(after)
        for value, one in zip(new[1:], parts(sums, i64(0)), strict=True):
            builder.store(value, one, align=4)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), generate
