"""Sizes and memory that the steps of the TPU kernels share, and how they cut rows and split numbers."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

LANES = 128
ROWS = 16
"""Rows of one piece of softmax: one packed register of bfloat16 weights."""
TURNS = 12
"""Turns in which candidates and the weighted sum alternate."""
NOWHERE = -1e30
"""The reference of weights before the first score; finite, so that no difference is NaN."""
FLOOR = -150.0
"""A log weight whose exp is 0 in float32."""
HEADROOM = 8.0
"""A score may exceed the reference by this much before sums are rescaled: a factor e⁸, which costs float32 nothing, and after the first
blocks no block raises any of a thousand maxima by so much."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Sizes and options of a call that are static under jit."""

    queries: int
    """Rows of a query tile."""
    samples: int
    """Rows of a data block."""
    columns: int
    """Columns of a data block; `chunks` of them make up the padded D."""
    chunks: int
    n: int
    d: int
    query_parts: int
    data_parts: int
    """In how many bfloat16 parts an operand is split."""
    direct: bool
    """Whether the data enter the MXU as they are."""
    shifted: bool
    labelled: bool
    full: bool
    cut: float
    score_tile: tuple[int, int, int]
    """Queries, samples and columns of one piece of the first matmul."""
    sum_tile: int
    """Columns of one piece of the second matmul."""
    ranged: bool

    @property
    def groups(self) -> int:
        return self.samples // LANES

    @property
    def sums(self) -> int:
        """Σw, and with all moments Σw², Σwz, Σw‖y‖²."""
        return 4 if self.full else 1

    @property
    def slots(self) -> int:
        """Blocks whose weights and data VMEM holds: where a block holds all of D, the second matmul lags by one block."""
        return 2 if self.chunks == 1 else 1

    @property
    def products(self) -> list[tuple[int, int]]:
        """Pairs of a query part and a data part that are multiplied: those whose product is not below float32's rounding."""
        return [(i, j) for i in range(self.query_parts) for j in range(self.data_parts) if i + j < self.query_parts]


class Refs(NamedTuple):
    """Kernel arguments in order: the inputs, the outputs, and the VMEM that lives through a query tile."""

    direction_hbm: Any
    data: Any
    norms: Any
    norms_before: Any
    bias: Any
    center: Any
    labels: Any
    curvature: Any
    query_labels: Any
    total_hbm: Any
    state_hbm: Any
    index_hbm: Any
    direction: Any
    """[chunks, parts, queries, columns]"""
    total: Any
    """[chunks, queries, columns] Σ w y"""
    parts: Any
    """[slots, parts, samples, columns] this data block and the one before in bfloat16; of a split D, this chunk"""
    tile: Any
    """[slots, queries, samples] products of this block, then scores; and scores of the block before"""
    weights: Any
    """[parts, queries, samples] of the block before"""
    state: Any
    """[4 + sums, queries, lanes] best, second best, reference, skipped weight, sums"""
    peak: Any
    """[queries, lanes] each row's maximum in this block, by lane"""
    index: Any
    """[queries, lanes] group of 128 samples that holds the best"""
    rise: Any
    semaphore: Any
    kept: Any


BEST, SECOND, REFERENCE, SKIPPED, SUMS = range(5)


def rows_at(start: Any, size: int = ROWS) -> Any:
    """A slice of rows that begins at a multiple of its size; the compiler is told so for a traced start."""
    return pl.ds(start if isinstance(start, int) else pl.multiple_of(start, size), size)


def split(x: Array, parts: int) -> list[Array]:
    """float32 as a sum of bfloat16 parts: 3 hold all 24 bits, 2 hold 16, 1 is rounded. Truncated parts make the differences exact."""
    out = []
    for _ in range(parts - 1):
        high = jax.lax.bitcast_convert_type(jax.lax.bitcast_convert_type(x, jnp.uint32) & jnp.uint32(0xFFFF0000), jnp.float32)
        out.append(high.astype(jnp.bfloat16))
        x = x - high
    return [*out, x.astype(jnp.bfloat16)]
