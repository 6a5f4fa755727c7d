"""Matrix products of bytes with 16-bit integers, exact in int32, on the CPU: half again as fast as float32's, since one instruction
multiplies twice as many numbers, and adds up pairs of them.

Tiles of `TALL` samples and `WIDE` queries stay in registers. They are written in LLVM's vectors, for what a compiler makes of loops
does not; every CPU can do them, and where one has an instruction for pairs (x86's `pmaddwd`), LLVM finds it.
"""

from typing import Any

import numpy as np
from jaxtyping import Int16

from kernels.posterior.native import compiled, intrinsic

TALL, WIDE = 4, 16
"""A tile: eight registers of sums, and as many again for all else."""
SOME = 64
"""Samples that are widened to 16 bits at a time: they stay in a core's second cache while all queries pass."""


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
                at_row, at_panel, at = rows.ctypes.data + i * pairs * 4, panels.ctypes.data + p * pairs * WIDE * 4, (i * count + p) * WIDE * 4
                _tile(at_row, pairs * 4, at_panel, pairs, products.ctypes.data + at, count * WIDE * 4)
        for i in range(many):
            for q in range(scores.shape[1]):
                scores[start + i, q] = step[q] * np.float32(products[i, q])


@intrinsic
def _tile(typing: Any, rows: Any, row: Any, panel: Any, pairs: Any, into: Any, step: Any) -> Any:
    """Sums over all `pairs` of numbers for `TALL` rows, `row` bytes apart, and a panel: int32, to `TALL` rows that lie `step` bytes apart."""
    from llvmlite import ir
    from numba import types

    i16, i32, i64 = (ir.IntType(size) for size in (16, 32, 64))
    sixteen, eight, twice = ir.VectorType(i16, 16), ir.VectorType(i32, 8), ir.VectorType(i32, 16)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        rows, row, panel, pairs, into, step = arguments

        def at(base: Any, *offsets: Any) -> Any:
            for offset in offsets:
                base = builder.add(base, offset)
            return base

        def times(value: Any, k: int) -> Any:
            return builder.mul(value, i64(k))

        def pick(vector: Any, places: Any) -> Any:
            mask = ir.Constant(ir.VectorType(i32, len(places)), list(places))
            return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)

        def products(x: Any, y: Any) -> Any:  # of pairs, added up
            all_of_them = builder.mul(builder.sext(x, twice), builder.sext(y, twice))
            return builder.add(pick(all_of_them, range(0, 16, 2)), pick(all_of_them, range(1, 16, 2)))

        before, loop, after = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("after")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(i64)
        k.add_incoming(i64(0), before)
        sums = [builder.phi(eight) for _ in range(2 * TALL)]
        halves = []
        for half in range(2):
            place = builder.inttoptr(at(panel, times(k, 4 * WIDE), i64(32 * half)), sixteen.as_pointer())
            halves.append(builder.load(place, align=2))
        more = []
        for i in range(TALL):
            pair = builder.load(builder.inttoptr(at(rows, times(row, i), times(k, 4)), i32.as_pointer()), align=2)
            first = builder.insert_element(ir.Constant(eight, ir.Undefined), pair, i32(0))
            everywhere = builder.bitcast(pick(first, [0] * 8), sixteen)
            more += [builder.add(sums[2 * i + half], products(halves[half], everywhere)) for half in range(2)]
        following = builder.add(k, i64(1))
        for phi, value, first in [(k, following, None), *((s, m, ir.Constant(eight, [0] * 8)) for s, m in zip(sums, more, strict=True))]:
            if first is not None:
                phi.add_incoming(first, before)
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, pairs), loop, after)
        builder.position_at_end(after)
        for i in range(TALL):
            for half in range(2):
                place = builder.inttoptr(at(into, times(step, i), i64(32 * half)), eight.as_pointer())
                builder.store(more[2 * i + half], place, align=4)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6), generate
