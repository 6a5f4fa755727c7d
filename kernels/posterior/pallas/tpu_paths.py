"""The fused TPU kernel for whole paths: two products a block of samples, then the softmaxes of all times, in one pass over the data.

A grid step multiplies one block while it weighs the block before. Its loop takes some columns of the product and some times together,
so that the compiler schedules the matrix unit and the vector unit beside each other. Sums are kept by lane, each lane relative to its own
running maximum: nothing crosses lanes before the end, and no branch depends on the data.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from kernels.float64 import to64
from kernels.posterior.pallas.tpu_blocks import MARGIN, MIB, Generation, generation_of, parts_of
from kernels.posterior.pallas.tpu_layout import LANES, ROWS, rows_at, split
from kernels.posterior.partial import NO_SAMPLE
from kernels.posterior.types import Samples
from kernels.posterior.xla.paths import PathFactors, PathPartial
from kernels.precision import Precision

NAME = "path_pass"
NEVER = -1e30
"""e_0 of a sample that does not count: finite, so that no difference is NaN."""
FLOOR = -150.0
"""A binary logarithm of a weight that float32 has as 0."""
PIECE = 8
"""Paths that are weighed together: a register."""
SAMPLES = 512
"""Rows of a data block."""
PEAK, WEIGHT, SQUARE, SCORE = range(4)


@dataclasses.dataclass(frozen=True)
class PathLayout:
    """Sizes that are static under jit."""

    paths: int
    """Rows of a tile of paths, a multiple of 16."""
    samples: int
    """Rows of a data block, a multiple of 128."""
    columns: int
    """Columns that an iteration of the loop multiplies, a multiple of 128."""
    chunks: int
    """Iterations of the loop: `columns` times so many are D, padded."""
    times: int
    """Times that an iteration weighs; `chunks` times so many are T, padded."""
    n: int
    d: int
    query_parts: int
    data_parts: int
    shifted: bool
    labelled: bool
    weighted: bool

    @property
    def width(self) -> int:
        """D, padded."""
        return self.columns * self.chunks

    @property
    def all_times(self) -> int:
        """T, padded."""
        return self.times * self.chunks

    @property
    def products(self) -> list[tuple[int, int]]:
        """Pairs of a part of the factors and one of the data that are multiplied."""
        return [(i, j) for i in range(self.query_parts) for j in range(self.data_parts) if i + j < self.query_parts]

    def vmem(self, itemsize: int) -> int:
        """Bytes of VMEM, with `MARGIN`."""
        state = 4 * 5 * self.all_times * self.paths * LANES
        factors, block = 2 * self.query_parts * 2 * self.paths * self.width, 2 * self.samples * self.width * itemsize
        pairs = 2 * 4 * 2 * self.paths * self.samples
        return state + factors + block + pairs + 2 * 4 * 4 * 8 * self.samples + 4 * 8 * 2 * self.width + MARGIN


class PathRefs(NamedTuple):
    """Kernel arguments in order."""

    factors_hbm: Any
    data: Any
    half_norms: Any
    """[1, samples] of the block before, as bias and labels are."""
    bias: Any
    """log2 of the prior; -inf: never counts."""
    labels: Any
    center: Any
    path_labels: Any
    state_hbm: Any
    index_hbm: Any
    factors: Any
    """[parts, 2 paths, width]"""
    product: Any
    """[2 paths, samples] of this block, as far as its columns are summed."""
    pairs: Any
    """[2 paths, samples] e_1 and e_0 of the block before."""
    state: Any
    """[4, times, paths, lanes]"""
    index: Any
    """[times, paths, lanes] group of 128 samples that holds the highest score"""
    semaphore: Any


def path_pass_tpu(
    factors: PathFactors,
    samples: Samples,
    near: Float[Array, "T B"],
    *,
    precision: Precision = "highest",
    generation: Generation | None = None,
    interpret: bool = False,
) -> PathPartial:
    """One pass over the samples in float32, by bfloat16 parts as `pallas_tpu` has them. Called inside `float64_scope`.

    The data are read once for each tile of paths: of 256, or of as many as VMEM holds the sums of.

    Raises:
      NotImplementedError: VMEM does not hold 16 paths.
    """
    _, b, d = factors.pairs.shape
    parts = parts_of(samples.values.dtype, samples.shifted, precision)
    generation = generation or generation_of(jax.devices()[0].device_kind)
    layout = path_layout(samples, b, d, len(factors.ratio), parts, generation)
    pairs = factors.pairs.astype(jnp.float32)
    of_center = jnp.zeros((2, b)) if samples.shifted else to64(jnp.dot(pairs, samples.center, precision=jax.lax.Precision.HIGHEST))
    ratio = factors.ratio.astype(jnp.float32)
    with jax.enable_x64(False):
        state, index = _call(
            pairs, ratio, factors.label.astype(jnp.int32), samples, layout, layout.vmem(samples.values.dtype.itemsize), interpret
        )
    return _merged(state, index, factors, of_center, samples, near)


def path_layout(samples: Samples, b: int, d: int, times: int, parts: tuple[int, int], generation: Generation) -> PathLayout:
    """The largest tile of paths that fits, and as many iterations as there are times, or columns to give each some.

    Raises:
      NotImplementedError: none fits.
    """
    groups = -(-d // LANES)
    per = max(1, groups // times)  # groups of 128 columns an iteration
    chunks = -(-groups // per)
    for paths in (256, 128, 64, 32, 16):
        layout = PathLayout(
            paths=min(paths, -(-b // ROWS) * ROWS),
            samples=min(SAMPLES, -(-samples.n // LANES) * LANES),
            columns=per * LANES,
            chunks=chunks,
            times=-(-times // chunks),
            n=samples.n,
            d=d,
            query_parts=parts[0],
            data_parts=parts[1],
            shifted=samples.shifted,
            labelled=samples.labels is not None,
            weighted=samples.log_prior is not None,
        )
        if layout.vmem(samples.values.dtype.itemsize) <= generation.vmem:
            return layout
    raise NotImplementedError(
        f"D={d} and {times} times are too many for {generation.vmem / MIB:.0f} MiB of VMEM: ask about fewer times at once"
    )


def _kernel(ratio: Any, *refs: Any, at: PathLayout) -> None:
    """One grid step."""
    my = PathRefs(*refs)
    tile, step = pl.program_id(0), pl.program_id(1)
    pl.when(step == 0)(lambda: _begin(my, tile, at))
    _clean(my, at)
    _to_pairs(my, step, at)

    @pl.loop(0, at.chunks)
    def _(k: Array) -> None:
        _multiply(my, k, at)
        for one in range(at.times):
            _weigh(my, ratio, k * at.times + one, step, at)

    pl.when(step == pl.num_programs(1) - 1)(lambda: _finish(my, tile, at))


def _begin(my: PathRefs, tile: Array, at: PathLayout) -> None:
    """Fetch the tile's factors; nothing is summed yet."""
    copy = pltpu.make_async_copy(my.factors_hbm.at[tile], my.factors, my.semaphore)
    copy.start()

    @pl.loop(0, at.all_times)
    def _(t: Array) -> None:
        for k in range(4):
            my.state[k, t] = jnp.full((at.paths, LANES), NEVER if k == PEAK else 0.0, jnp.float32)
        my.index[t] = jnp.zeros((at.paths, LANES), jnp.int32)

    my.product[...] = jnp.zeros((2 * at.paths, at.samples), jnp.float32)
    copy.wait()


def _clean(my: PathRefs, at: PathLayout) -> None:
    """Zero the columns beyond D: they hold arbitrary numbers, and 0 · NaN is NaN. Rows beyond the data are left out by their bias."""
    start = at.d // LANES * LANES
    if start == at.width:
        return

    @pl.loop(0, at.samples // 32)
    def _(j: Array) -> None:
        rows = rows_at(j * 32, 32)
        for c in range(start, at.width, LANES):
            cols = pl.ds(c, LANES)
            value = my.data[rows, cols]
            here = jax.lax.broadcasted_iota(jnp.int32, (32, LANES), 1) + c < at.d
            wide = value.astype(jnp.int32) if value.dtype == jnp.uint8 else value.astype(jnp.float32)
            my.data[rows, cols] = jnp.where(here, wide, jnp.zeros_like(wide)).astype(value.dtype)


def _to_pairs(my: PathRefs, step: Array, at: PathLayout) -> None:
    """The products of the block before become its pairs; of samples that do not count e_0 becomes `NEVER`. This block has none yet."""

    @pl.loop(0, at.paths // ROWS)
    def _(j: Array) -> None:
        rows, other = rows_at(j * ROWS), pl.ds(pl.multiple_of(at.paths + j * ROWS, ROWS), ROWS)
        for g in range(at.samples // LANES):
            cols = pl.ds(g * LANES, LANES)
            counts = (my.bias[0:1, cols] > -jnp.inf) & (step > 0)
            if at.labelled:
                label = my.path_labels[rows, :]
                counts = counts & ((label == my.labels[0:1, cols]) | (label == -1))
            counts = jnp.broadcast_to(counts, (ROWS, LANES))
            my.pairs[rows, cols] = jnp.where(counts, my.product[rows, cols] - my.half_norms[0:1, cols], 0.0)
            my.pairs[other, cols] = jnp.where(counts, my.product[other, cols], NEVER)
            my.product[rows, cols] = jnp.zeros((ROWS, LANES), jnp.float32)
            my.product[other, cols] = jnp.zeros((ROWS, LANES), jnp.float32)


def _multiply(my: PathRefs, k: Array, at: PathLayout) -> None:
    """Add the products of some columns."""
    cols = pl.ds(pl.multiple_of(k * at.columns, at.columns), at.columns)
    block = my.data[:, cols]
    if at.data_parts == 1 and not at.shifted:
        values = [block if block.dtype == jnp.bfloat16 else _float(block).astype(jnp.bfloat16)]
    else:
        values = split(_float(block) - my.center[0:1, cols] if at.shifted else _float(block), at.data_parts)
    total = my.product[...]
    for i, j in at.products:
        total = total + jax.lax.dot_general(my.factors[i, :, cols], values[j], (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
    my.product[...] = total


def _float(x: Array) -> Array:
    return x.astype(jnp.int32).astype(jnp.float32) if x.dtype == jnp.uint8 else x.astype(jnp.float32)


def _weigh(my: PathRefs, ratio: Any, t: Array, step: Array, at: PathLayout) -> None:
    """Add the weights of the block before at one time. Scores are binary logarithms, for exp2 is what the hardware has."""
    r, doubled = ratio[0, t], ratio[1, t]
    groups = at.samples // LANES
    for row in range(0, at.paths, PIECE):
        rows, other = pl.ds(row, PIECE), pl.ds(at.paths + row, PIECE)
        old, index = my.state[PEAK, t, rows, :], my.index[t, rows, :]
        peak, scores = old, []
        for g in range(groups):
            cols = pl.ds(g * LANES, LANES)
            score = doubled * (r * my.pairs[rows, cols] + my.pairs[other, cols])
            if at.weighted:
                score = score + jnp.maximum(my.bias[0:1, cols], NEVER)
            index = jnp.where(score > peak, (step - 1) * groups + g, index)
            peak = jnp.maximum(peak, score)
            scores.append(score)
        fall = jnp.maximum(old - peak, FLOOR)
        scale = jnp.exp2(fall)
        weight, square, logs = (my.state[k, t, rows, :] for k in (WEIGHT, SQUARE, SCORE))
        logs = (logs + fall * weight) * scale
        weight, square = weight * scale, square * scale * scale
        for score in scores:
            z = score - peak
            w = jnp.exp2(z)
            weight, square, logs = weight + w, square + w * w, logs + w * z
        for k, value in ((PEAK, peak), (WEIGHT, weight), (SQUARE, square), (SCORE, logs)):
            my.state[k, t, rows, :] = value
        my.index[t, rows, :] = index


def _finish(my: PathRefs, tile: Array, at: PathLayout) -> None:
    rows = pl.ds(pl.multiple_of(tile * at.paths, ROWS), at.paths)
    copies = [
        pltpu.make_async_copy(my.state, my.state_hbm.at[:, :, rows], my.semaphore),
        pltpu.make_async_copy(my.index, my.index_hbm.at[:, rows], my.semaphore),
    ]
    for copy in copies:
        copy.start()
    for copy in copies:
        copy.wait()


# Long: a pallas_call is one expression, and each of its specs stands beside the array that it is of.
@functools.partial(jax.jit, static_argnames=("at", "vmem_limit", "interpret"))
def _call(
    pairs: Float[Array, "2 B D"],
    ratio: Float[Array, " T"],
    label: Any,
    samples: Samples,
    at: PathLayout,
    vmem_limit: int,
    interpret: bool,
) -> tuple[Array, Array]:
    b, n = pairs.shape[1], samples.n
    tiles, blocks = -(-b // at.paths), -(-n // at.samples)
    padded = jnp.pad(pairs, ((0, 0), (0, tiles * at.paths - b), (0, at.width - at.d)))
    padded = padded.reshape(2, tiles, at.paths, at.width).swapaxes(0, 1).reshape(tiles, 2 * at.paths, at.width)
    parts = []
    for _ in range(at.query_parts):
        part = jax.lax.reduce_precision(padded, 8, 7)  # which XLA does not simplify away
        parts.append(part.astype(jnp.bfloat16))
        padded = padded - part
    times = jnp.pad(ratio, (0, at.all_times - len(ratio)))

    def per_sample(v: Array, fill: float) -> Array:
        return jnp.pad(v, (0, blocks * at.samples - n), constant_values=jnp.asarray(fill, v.dtype))[None]

    prior = jnp.zeros(n, jnp.float32) if samples.log_prior is None else samples.log_prior / math.log(2)
    labels = jnp.zeros(n, jnp.int32) if samples.labels is None else samples.labels.astype(jnp.int32)
    before = pl.BlockSpec((1, at.samples), lambda t, i, r: (0, jnp.maximum(i - 1, 0)))
    hbm = pl.BlockSpec(memory_space=pl.ANY)
    f32 = jnp.float32
    return pl.pallas_call(
        functools.partial(_kernel, at=at),
        name=NAME,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(tiles, blocks + 1),
            in_specs=[
                hbm,
                pl.BlockSpec((at.samples, at.width), lambda t, i, r: (jnp.minimum(i, blocks - 1), 0)),
                before,
                before,
                before,
                pl.BlockSpec((1, at.width), lambda t, i, r: (0, 0)),
                pl.BlockSpec((at.paths, LANES), lambda t, i, r: (t, 0)),
            ],
            out_specs=[hbm, hbm],
            scratch_shapes=[
                pltpu.VMEM((at.query_parts, 2 * at.paths, at.width), jnp.bfloat16),
                pltpu.VMEM((2 * at.paths, at.samples), f32),
                pltpu.VMEM((2 * at.paths, at.samples), f32),
                pltpu.VMEM((4, at.all_times, at.paths, LANES), f32),
                pltpu.VMEM((at.all_times, at.paths, LANES), jnp.int32),
                pltpu.SemaphoreType.DMA,
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct((4, at.all_times, tiles * at.paths, LANES), f32),
            jax.ShapeDtypeStruct((at.all_times, tiles * at.paths, LANES), jnp.int32),
        ],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=vmem_limit),
        interpret=interpret,
    )(
        jnp.stack([times, times / math.log(2)]),
        jnp.stack(parts, axis=1),
        samples.values,
        per_sample(samples.square_norms / 2, 0.0),
        per_sample(prior, -jnp.inf),
        per_sample(labels, -1.0),
        jnp.pad(samples.center, (0, at.width - at.d))[None],
        jnp.broadcast_to(jnp.pad(label, (0, tiles * at.paths - b))[:, None], (tiles * at.paths, LANES)),
    )


def _merged(
    state: Float[Array, "4 times paths 128"],
    index: Any,
    factors: PathFactors,
    of_center: Float[Array, "2 B"],
    samples: Samples,
    near: Float[Array, "T B"],
) -> PathPartial:
    """The sums of all lanes, in nats; `of_center`, of the centre, is taken from scores."""
    _, b, _ = factors.pairs.shape
    count = len(factors.ratio)
    log2 = math.log(2)
    peaks, weight, square, score = (to64(v[:count, :b]) for v in state)
    some = peaks > NEVER / 2 * jnp.minimum(1, factors.ratio)[:, None, None]
    peaks = jnp.where(some, peaks * log2, -jnp.inf)
    peak = peaks.max(axis=2)
    fall = jnp.where(some, peaks - jnp.where(jnp.isneginf(peak), 0, peak)[:, :, None], -jnp.inf)
    scale = jnp.exp(fall)
    score = jnp.where(some, scale * (score * log2 + jnp.where(some, fall, 0) * weight), 0).sum(axis=2)
    where = index[:count, :b] * LANES + jnp.arange(LANES, dtype=jnp.int32)
    named = where if samples.index is None else samples.index[jnp.minimum(where, samples.n - 1)]
    top = jnp.where(peaks >= (peak - near)[:, :, None], named, NO_SAMPLE).min(axis=2)
    ratio = factors.ratio[:, None]
    offset = ratio * (ratio * of_center[0] + of_center[1])
    return PathPartial(peak - offset, (scale * weight).sum(axis=2), (scale**2 * square).sum(axis=2), score, top)
