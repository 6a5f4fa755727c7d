"""The fused TPU kernel: distance, online softmax and weighted sum in one pass over the data. docs/kernel.md says how it works."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Int

from kernels.posterior.pallas import tpu_kernel as body
from kernels.posterior.pallas.tpu_blocks import Generation, TpuBlocks, check_fits, default_blocks, generation_of, parts_of
from kernels.posterior.pallas.tpu_layout import BEST, LANES, REFERENCE, SECOND, SKIPPED, SUMS, Layout, Refs
from kernels.posterior.partial import CANDIDATES, NO_SAMPLE, Partial, Top
from kernels.posterior.types import CentredQueries, Samples, prior_mass
from kernels.precision import Precision


# A little over sixty lines, for its docstring.
def pallas_tpu(
    queries: CentredQueries,
    samples: Samples,
    *,
    full: bool,
    blocks: TpuBlocks | None = None,
    precision: Precision = "highest",
    tolerance: float = 0.0,
    generation: Generation | None = None,
    interpret: bool | pltpu.InterpretParams = False,
) -> Partial:
    """One pass over the data, float32: the Partial of all samples.

    Scores are `direction · y - curvature ‖y - center‖² - direction · center + log prior`, in float32; matmuls multiply bfloat16 parts
    and add in float32. Parts: `default` 1; `high` 2; `highest` 3, which is float32. Of data that are exact in bfloat16 (uint8, bfloat16;
    not `shifted`) one part is enough, and `highest` costs 3 passes, not 6.

    A block in which no row of a query tile has a score within `log(N / max(tolerance, 2⁻²⁵))` of that row's reference (a score that some
    sample of it has) skips its second matmul: all such samples together weigh less than `tolerance` times that sample. Its scores still
    count in every other moment and in the candidates. `Partial.skipped` is the weight of the skipped samples.

    Of rows sorted by class a query tile reads the blocks of its own classes only; it is cheapest with the queries sorted too.

    Args:
      full: keep all moments; False: only what the velocity needs.
      blocks: None: the default of the generation.
      tolerance: share of a query's weight that its mean may lack. 0: what float32 rounding hides (2⁻²⁵).
      generation: the TPU to compile for; None: that of the first device.
      interpret: run on any device, for tests.

    Raises:
      ValueError: blocks that do not fit VMEM, empty data, a D of which VMEM holds not even the sums of 32 queries.
    """
    b, d, n = *queries.x.shape, samples.n
    if not (b and d and n):
        raise ValueError(f"pallas_tpu needs at least one query, sample and column; got B={b}, N={n}, D={d}")
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance must be in [0, 1), got {tolerance}")
    parts = parts_of(samples.values.dtype, samples.shifted, precision)
    generation = generation or generation_of(jax.devices()[0].device_kind)
    dtype = samples.values.dtype
    blocks = blocks or default_blocks(generation, b, d, dtype, parts, shifted=samples.shifted, full=full, by_class=samples.by_class)
    layout = _layout(blocks, b, n, d, samples, parts, full, tolerance)
    vmem = check_fits(layout, dtype.itemsize, generation.vmem)
    block_range = _blocks_of_classes(queries.label.astype(jnp.int32), samples, layout) if samples.by_class else None

    direction = queries.direction.astype(jnp.float32)
    # NaN would spoil the maxima by which the row's tile decides; such a row gets NaN in the end.
    valid = jnp.isfinite(direction).all(axis=1)
    direction = jnp.where(valid[:, None], direction, 0)
    of_center = jnp.dot(direction, samples.center, precision=jax.lax.Precision.HIGHEST)
    offset = jnp.zeros(b, jnp.float32) if samples.shifted else of_center
    with jax.enable_x64(False):
        total, state, index = _call(
            direction,
            jnp.where(valid, queries.curvature.astype(jnp.float32), 0),
            queries.label.astype(jnp.int32),
            samples,
            block_range,
            layout,
            blocks.vmem_limit or vmem,
            interpret,
        )
        return _partial(total[:b, :d], state[:, :b], index[:b], offset, valid, queries.label.astype(jnp.int32), samples, layout)


def _layout(
    blocks: TpuBlocks,
    b: int,
    n: int,
    d: int,
    samples: Samples,
    parts: tuple[int, int],
    full: bool,
    tolerance: float,
) -> Layout:
    padded = -(-d // LANES) * LANES
    columns = min(blocks.columns or padded, padded)
    rows = min(blocks.queries, -(-b // 32) * 32)
    return Layout(
        queries=rows,
        samples=min(blocks.samples, -(-n // LANES) * LANES),
        columns=columns,
        chunks=-(-padded // columns),
        n=n,
        d=d,
        query_parts=parts[0],
        data_parts=parts[1],
        direct=samples.values.dtype == jnp.bfloat16 and not samples.shifted,
        shifted=samples.shifted,
        labelled=samples.labels is not None,
        full=full,
        cut=math.log(n / max(tolerance, 2.0**-25)),
        score_tile=blocks.score_tile,
        sum_tile=blocks.sum_tile if columns % blocks.sum_tile == 0 else LANES,
        ranged=samples.by_class,
    )


def _blocks_of_classes(label: Int[Array, " B"], samples: Samples, layout: Layout) -> Int[Array, "tiles 2"]:
    """The first block, and the one after the last, that may hold samples of each tile's classes."""
    assert samples.labels is not None
    tiles = -(-label.shape[0] // layout.queries)
    of_tile = jnp.pad(label, (0, tiles * layout.queries - label.shape[0]), mode="edge").reshape(tiles, -1)
    low, high = of_tile.min(axis=1), of_tile.max(axis=1)
    first = jnp.searchsorted(samples.labels, low, side="left") // layout.samples
    last = -(-jnp.searchsorted(samples.labels, high, side="right") // layout.samples)
    everything = low < 0
    return jnp.stack([jnp.where(everything, 0, first), jnp.where(everything, -(-samples.n // layout.samples), last)], axis=1).astype(
        jnp.int32
    )


def _kernel(ranges: Any, *refs: Any, layout: Layout) -> None:
    tile, step = pl.program_id(0), pl.program_id(1)
    phase = pl.program_id(2)
    block = ranges[tile, 0] + step
    work = body.Step(layout, Refs(*refs), block, step)
    first, last = (step == 0) & (phase == 0), (step == pl.num_programs(1) - 1) & (phase == pl.num_programs(2) - 1)

    @pl.when(first)
    def _() -> None:
        work.begin(tile)

    if layout.chunks == 1:
        pl.when((block <= ranges[tile, 1]) & (ranges[tile, 0] < ranges[tile, 1]))(
            lambda: body.whole_step(work, step == 0, block == ranges[tile, 1])
        )
    else:
        pl.when(block < ranges[tile, 1])(lambda: body.split_step(work, phase))

    @pl.when(last)
    def _() -> None:
        work.finish(tile)


# Long: a pallas_call is one expression, and each of its specs stands beside the array that it is of.
@functools.partial(jax.jit, static_argnames=("layout", "vmem_limit", "interpret"))
def _call(
    direction: Float[Array, "B D"],
    curvature: Float[Array, " B"],
    label: Int[Array, " B"],
    samples: Samples,
    block_range: Int[Array, "tiles 2"] | None,
    layout: Layout,
    vmem_limit: int,
    interpret: bool | pltpu.InterpretParams,
) -> tuple[Array, Array, Array]:
    at = layout
    b, n = direction.shape[0], samples.n
    tiles, blocks = -(-b // at.queries), -(-n // at.samples)
    width, phases = at.columns * at.chunks, 1 if at.chunks == 1 else 2 * at.chunks
    rows = tiles * at.queries
    steps: int | Array = blocks
    if block_range is None:
        ranges = jnp.broadcast_to(jnp.array([0, blocks], jnp.int32), (tiles, 2))
    else:
        ranges = block_range.astype(jnp.int32)
        steps = jnp.maximum(1, jnp.max(ranges[:, 1] - ranges[:, 0]))
    steps = steps + (at.slots - 1)  # the lag

    # Rows beyond B repeat the last query: any other query would keep blocks from being skipped.
    def per_query(v: Array) -> Array:
        return jnp.broadcast_to(jnp.pad(v, (0, rows - b), mode="edge")[:, None], (rows, LANES))

    def per_sample(v: Array | None, fill: float) -> Array:
        v = jnp.zeros(n, jnp.float32) if v is None else v
        return jnp.pad(v, (0, blocks * at.samples - n), constant_values=jnp.asarray(fill, v.dtype))[None]

    # The parts of a float32 are made by reduce_precision, which XLA does not simplify away.
    padded = jnp.pad(jnp.pad(direction, ((0, rows - b), (0, 0)), mode="edge"), ((0, 0), (0, width - direction.shape[1])))
    parts = []
    for _ in range(at.query_parts):
        part = jax.lax.reduce_precision(padded, 8, 7)
        parts.append(part.astype(jnp.bfloat16))
        padded = padded - part
    center = jnp.pad(samples.center, (0, width - samples.d))[None]

    def at_block(t: Array, i: Array, ranges: Any) -> Array:
        return jnp.clip(ranges[t, 0] + i, 0, jnp.maximum(ranges[t, 1] - 1, 0)) if at.ranged else jnp.minimum(i, blocks - 1)

    norms = per_sample(samples.square_norms, 0.0)
    hbm = pl.BlockSpec(memory_space=pl.ANY)
    row = pl.BlockSpec((1, at.samples), lambda t, i, p, r: (0, at_block(t, i, r)))
    row_before = pl.BlockSpec((1, at.samples), lambda t, i, p, r: (0, at_block(t, jnp.maximum(i - (at.slots - 1), 0), r)))
    query = pl.BlockSpec((at.queries, LANES), lambda t, i, p, r: (t, 0))
    f32, bf16 = jnp.float32, jnp.bfloat16
    in_parts = (at.slots, at.data_parts, at.samples, at.columns)
    return pl.pallas_call(
        functools.partial(_kernel, layout=at),
        name="posterior_pass",
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(tiles, steps, phases),
            in_specs=[
                hbm,
                pl.BlockSpec((at.samples, at.columns), lambda t, i, p, r: (at_block(t, i, r), p % at.chunks if at.chunks > 1 else 0)),
                row,
                row_before,
                row,
                pl.BlockSpec((1, at.columns), lambda t, i, p, r: (0, p % at.chunks if at.chunks > 1 else 0)),
                row,
                query,
                query,
            ],
            out_specs=[hbm, hbm, hbm],
            scratch_shapes=[
                pltpu.VMEM((at.chunks, at.query_parts, at.queries, at.columns), bf16),
                pltpu.VMEM((at.chunks, at.queries, at.columns), f32),
                pltpu.VMEM((1, 1, 32, LANES) if at.direct and at.chunks > 1 else in_parts, bf16),
                pltpu.VMEM((at.slots, at.queries + 8, at.samples), f32),
                pltpu.VMEM((at.query_parts, at.queries, at.samples), bf16),
                pltpu.VMEM((4 + at.sums, at.queries, LANES), f32),
                pltpu.VMEM((at.queries, LANES), f32),
                pltpu.VMEM((at.queries, LANES), jnp.int32),
                pltpu.SMEM((1,), f32),
                pltpu.SemaphoreType.DMA,
                pltpu.SemaphoreType.DMA,
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct((rows, width), f32),
            jax.ShapeDtypeStruct((4 + at.sums, rows, LANES), f32),
            jax.ShapeDtypeStruct((rows, LANES), jnp.int32),
        ],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary", "arbitrary"), vmem_limit_bytes=vmem_limit),
        interpret=interpret,
    )(
        ranges,
        jnp.stack(parts),
        samples.values,
        norms,
        norms,
        per_sample(samples.log_prior, -jnp.inf),
        center,
        per_sample(None if samples.labels is None else samples.labels.astype(jnp.int32), -1.0).astype(jnp.int32),
        per_query(curvature),
        per_query(label),
    )


def _partial(
    total: Float[Array, "B D"],
    state: Float[Array, "sums B 128"],
    index: Int[Array, "B 128"],
    offset: Float[Array, " B"],
    valid: Bool[Array, " B"],
    label: Int[Array, " B"],
    samples: Samples,
    layout: Layout,
) -> Partial:
    """A Partial from the kernel's sums, which are by lane and relative to a reference. `offset`, of the centre, is taken from scores."""
    lanes = jnp.arange(LANES, dtype=jnp.int32)
    k = min(CANDIDATES, samples.n)
    best = state[BEST]
    where = jnp.where(jnp.isneginf(best), NO_SAMPLE, index * LANES + lanes)
    negated, where = jax.lax.sort((-best, where), dimension=1, num_keys=2)
    rest = jnp.maximum(state[SECOND].max(axis=1), -negated[:, k] if k < LANES else -jnp.inf)
    peak = -negated[:, 0]
    some = jnp.isfinite(peak)
    # From the kernel's reference to the peak itself.
    drop = jnp.where(some, state[REFERENCE, :, 0] - peak, 0)
    scale = jnp.exp(drop)
    raw = state[SUMS].sum(axis=1)
    weight = jnp.where(some, scale * raw, 0)
    skipped = state[SKIPPED].sum(axis=1)
    left_out = jnp.where(some, scale * skipped, 0)
    inverse = jnp.where(raw > skipped, 1 / jnp.where(raw > skipped, raw - skipped, 1), 0)
    mean = total * inverse[:, None]
    if not samples.shifted:
        mean = mean - jnp.where(some, 1, 0).astype(jnp.float32)[:, None] * samples.center

    def answer(v: Array) -> Array:
        return jnp.where(valid.reshape(valid.shape + (1,) * (v.ndim - 1)), v, jnp.nan)

    top = Top(-negated[:, :k] - offset[:, None], where[:, :k], rest - offset)
    peak = peak - offset
    if not layout.full:
        return Partial(answer(peak), answer(weight), answer(mean), *top, None, None, None, None, answer(left_out))
    square, score, norm = (state[SUMS + j].sum(axis=1) for j in (1, 2, 3))
    return Partial(
        peak=answer(peak),
        weight=answer(weight),
        mean=answer(mean),
        top_score=top.score,
        top_index=top.index,
        rest_peak=top.rest_peak,
        second=answer(jnp.where(some, jnp.maximum(scale * norm - weight * jnp.sum(mean**2, axis=1), 0), 0)),
        weight_square=answer(jnp.where(some, scale**2 * square, 0)),
        weighted_score=answer(jnp.where(some, scale * score + drop * weight, 0)),
        mass=prior_mass(label, samples),
        skipped=answer(left_out),
    )
