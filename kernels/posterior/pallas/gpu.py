"""The pass over the data in Pallas-Triton, for GPUs: two kernels a block of samples, neither of which holds all of D.

    products[B, n] = direction · rows            grid (queries, samples), a loop over D
    sums[B, D]     = Σ exp(scores - peak) rows   grid (queries, D), a loop over the samples

Both read blocks of the data in place, in their own dtype (uint8 and bfloat16 are widened in registers): no block is copied. Between
the kernels the block's scores, 4 MB at the default sizes, stay in the L2 cache, and so do its rows on large GPUs. Candidates and merging
are those of `streaming`. It is right in interpret mode and lowers for CUDA. It has not been timed on a GPU, so it is nowhere the default.
"""

from functools import partial as bind
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from kernels.posterior import partial as partials
from kernels.posterior.partial import CANDIDATES, Partial
from kernels.posterior.settings import BlockSizes
from kernels.posterior.types import CentredQueries, Samples
from kernels.posterior.xla.streaming import Block, over_blocks, read_block, top_if_better
from kernels.precision import Precision

QUERIES, SAMPLES, COLUMNS = 64, 64, 32
"""Sizes of a tile. A 64 x 64 accumulator is 32 registers a thread of four warps, its operands 16 KB; tensor cores want multiples of 16."""
DOT = {
    "highest": jax.lax.Precision.HIGHEST,
    "high": jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3,
    "default": jax.lax.DotAlgorithmPreset.TF32_TF32_F32,
}


def _products_kernel(start: Any, direction: Any, rows: Any, center: Any, products: Any, *, n: int, precision: Any) -> None:
    """One tile of direction · rows. `rows` is all the data, of which the block is the n rows from `start`."""
    first = pl.program_id(1) * SAMPLES
    inside = first + jnp.arange(SAMPLES) < n
    d = direction.shape[1]

    def add(c: Array, total: Array) -> Array:
        known = c * COLUMNS + jnp.arange(COLUMNS) < d
        columns = pl.ds(c * COLUMNS, COLUMNS)
        x = plgpu.load(direction.at[:, columns], mask=jnp.broadcast_to(known, (QUERIES, COLUMNS)), other=0)
        y = _centred(rows, center, start[0] + first, SAMPLES, columns, inside, known)
        return total + plgpu.dot(x, y, trans_b=True, precision=precision)

    products[...] = jax.lax.fori_loop(0, pl.cdiv(d, COLUMNS), add, jnp.zeros((QUERIES, SAMPLES), jnp.float32))


def _sums_kernel(start: Any, scores: Any, peak: Any, rows: Any, center: Any, sums: Any, *, n: int, precision: Any) -> None:
    """Σ w y over the block, for some of the columns; the weights are computed here and never stored."""
    columns = pl.ds(pl.program_id(1) * COLUMNS, COLUMNS)
    known = pl.program_id(1) * COLUMNS + jnp.arange(COLUMNS) < rows.shape[1]

    def add(j: Array, total: Array) -> Array:
        inside = j * SAMPLES + jnp.arange(SAMPLES) < n
        here = jnp.broadcast_to(inside, (QUERIES, SAMPLES))
        z = plgpu.load(scores.at[:, pl.ds(j * SAMPLES, SAMPLES)], mask=here, other=-jnp.inf)
        y = _centred(rows, center, start[0] + j * SAMPLES, SAMPLES, columns, inside, known)
        return total + plgpu.dot(jnp.exp(z - peak[...][:, None]), y, precision=precision)

    sums[...] = jax.lax.fori_loop(0, pl.cdiv(n, SAMPLES), add, jnp.zeros((QUERIES, COLUMNS), jnp.float32))


def _centred(rows: Any, center: Any, first: Array, number: int, columns: Any, inside: Array, known: Array) -> Array:
    """A tile of the data in float32 less the centre, 0 beyond the block and beyond D."""
    mask = inside[:, None] & known[None]
    y = plgpu.load(rows.at[pl.ds(first, number), columns], mask=mask, other=0).astype(jnp.float32)
    return jnp.where(mask, y - plgpu.load(center.at[columns], mask=known, other=0)[None], 0)


def pallas_gpu(
    queries: CentredQueries,
    samples: Samples,
    *,
    full: bool,
    dtype: DTypeLike,
    blocks: BlockSizes,
    precision: Precision,
    interpret: bool = False,
) -> Partial:
    """One pass over the data; arguments and result as those of `streaming`.

    Args:
      dtype: float32 only: `streaming` repeats unsettled queries in float64.
      precision: "highest" is IEEE float32, "high" three TF32 passes, "default" one.
      interpret: run the kernels as ordinary JAX, on any device.

    Raises:
      NotImplementedError: another dtype.
    """
    if dtype != jnp.float32:
        raise NotImplementedError(f"pallas_gpu computes in float32, got {jnp.dtype(dtype).name}")
    b, d, n = queries.x.shape[0], samples.d, min(blocks.samples, samples.n)
    center = samples.center if samples.shifted else jnp.zeros_like(samples.center)
    rows_center = samples.center - center
    call = bind(_call, samples=samples, center=center, n=n, precision=DOT[precision], interpret=interpret)

    def products(direction: Float[Array, "B D"], first: Int[Array, ""]) -> Float[Array, "B n"]:
        return call(_products_kernel, first, direction, tiles=(n, SAMPLES))[:b, :n]

    def step(total: Partial, start: Array) -> Partial:
        block = read_block(queries, samples, start, dtype=dtype, blocks=blocks, precision=precision, product=products)
        first = jnp.minimum(start, samples.n - n)
        peak = block.scores.max(axis=1)
        finite = jnp.where(jnp.isneginf(peak), 0, peak)
        sums = call(_sums_kernel, first, block.scores, finite, tiles=(d, COLUMNS))[:b, :d]
        return partials.merge(total, _of_sums(block, total, sums, peak, finite, rows_center, full))

    start = partials.empty(b, d, candidates=min(CANDIDATES, samples.n), full=full, dtype=dtype)
    return over_blocks(step, start, queries, samples, blocks)


def _of_sums(
    block: Block,
    total: Partial,
    sums: Float[Array, "B D"],
    peak: Float[Array, " B"],
    finite: Float[Array, " B"],
    rows_center: Float[Array, " D"],
    full: bool,
) -> Partial:
    """The block's Partial, from its scores and its weighted sum of rows."""
    z = block.scores - finite[:, None]
    w = jnp.exp(z)
    weight = w.sum(axis=1)
    some = weight > 0
    mean = jnp.where(some[:, None], sums / jnp.where(some, weight, 1)[:, None] - rows_center, 0)
    top = top_if_better(block, total)
    spread = jnp.dot(w, block.square_norms, precision=jax.lax.Precision.HIGHEST) - weight * jnp.sum(mean**2, axis=1)
    second = jnp.maximum(spread, 0)
    if not full:
        return Partial(peak, weight, mean, *top, second, None, None, None)
    weighted_score = jnp.sum(jnp.where(w > 0, w * z, 0), axis=1)
    return Partial(peak, weight, mean, *top, second, jnp.sum(w * w, axis=1), weighted_score, block.mass)


def _call(
    kernel: Any,
    first: Int[Array, ""],
    *by_query: Array,
    samples: Samples,
    center: Float[Array, " D"],
    n: int,
    precision: Any,
    interpret: bool,
    tiles: tuple[int, int],
) -> Array:
    """`kernel` over tiles of queries and of `tiles = (length, tile)`. The result has the padding of the last tiles."""
    b = by_query[0].shape[0]
    rows, columns = pl.cdiv(b, QUERIES), pl.cdiv(tiles[0], tiles[1])
    padded = [jnp.pad(v, ((0, rows * QUERIES - b),) + ((0, 0),) * (v.ndim - 1)) for v in by_query]
    everything = pl.BlockSpec()
    specs = [pl.BlockSpec((QUERIES, *v.shape[1:]), lambda i, j, zeros=(0,) * (v.ndim - 1): (i, *zeros)) for v in by_query]
    with jax.enable_x64(False):  # Triton would mix the 64-bit indices of float64_scope with its own
        return pl.pallas_call(
            bind(kernel, n=n, precision=precision),
            out_shape=jax.ShapeDtypeStruct((rows * QUERIES, columns * tiles[1]), jnp.float32),
            grid=(rows, columns),
            in_specs=[everything, *specs, everything, everything],
            out_specs=pl.BlockSpec((QUERIES, tiles[1]), lambda i, j: (i, j)),
            compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=2),
            interpret=interpret,
            name=kernel.__name__.strip("_"),
        )(first[None], *padded, samples.values, center)
