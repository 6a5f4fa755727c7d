"""posterior(...): the only door to the implementations."""

import dataclasses
from collections.abc import Callable
from functools import partial as bind
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array

from kernels.float64 import float64_scope, to32, to64
from kernels.posterior.cpu.dispatch import CpuEngine
from kernels.posterior.cpu.results import Answer
from kernels.posterior.cpu.results import Queries as HostQueries
from kernels.posterior.distributed.collectives import Shards
from kernels.posterior.distributed.sharded import Sharded, spread
from kernels.posterior.pallas.gpu import pallas_gpu
from kernels.posterior.pallas.tpu import pallas_tpu
from kernels.posterior.pallas.tpu_blocks import TpuBlocks
from kernels.posterior.partial import Partial
from kernels.posterior.settings import BlockSizes, PosteriorSettings, default_block_sizes
from kernels.posterior.types import Moments, Queries, Samples, by_class, prepare
from kernels.posterior.xla.batching import in_class_order, in_tiles, repeat
from kernels.posterior.xla.covariance import covariance_product
from kernels.posterior.xla.differences import covariance_from_differences, from_differences
from kernels.posterior.xla.refine import Settled, settle
from kernels.posterior.xla.streaming import streaming
from kernels.posterior.xla.zero_noise import nearest
from kernels.precision import Precision, check_precision

Which = Literal["all", "velocity"]


SETTLED_AT_ONCE = {True: 2**22, False: 2**26}
"""Numbers in the candidates that are recomputed together, on one device: what stays in a cache. Over shards more: the devices meet once."""

Rows = TypeVar("Rows")
Output = TypeVar("Output")


@dataclasses.dataclass(frozen=True)
class Implementation:
    """One way to make a Partial of a pass over the data."""

    run: Callable[[Queries, Samples, PosteriorSettings], Partial]
    """In float32; what that leaves unsettled, `streaming` repeats in float64."""
    platforms: tuple[str, ...]
    """Where it runs."""
    default_on: tuple[str, ...]
    why_not: str
    """Why it is passed over elsewhere."""


def _fused(queries: Queries, samples: Samples, how: PosteriorSettings) -> Partial:
    return pallas_tpu(
        queries,
        samples,
        full=how.full,
        blocks=how.fused,
        precision=how.precision,
        tolerance=how.tolerance,
        generation=how.generation,
    )


def _in_blocks(make: Callable[..., Partial]) -> Callable[[Queries, Samples, PosteriorSettings], Partial]:
    return lambda queries, samples, how: make(
        queries, samples, full=how.full, dtype=jnp.float32, blocks=how.blocks, precision=how.precision
    )


def _driven_by_host(queries: Queries, samples: Samples, how: PosteriorSettings) -> Partial:
    raise NotImplementedError(
        "implementation 'pruned' is driven by the host and cannot run under jit, grad or vmap: "
        "leave implementation out, and the dense pass is taken there"
    )


IMPLEMENTATIONS = {
    "pallas_tpu": Implementation(_fused, ("tpu",), ("tpu",), "it is a TPU kernel"),
    "pallas_gpu": Implementation(
        _in_blocks(pallas_gpu), ("gpu",), (), "it is made of Triton kernels, for GPUs, and no GPU has timed it yet"
    ),
    "streaming": Implementation(_in_blocks(streaming), ("cpu", "gpu", "tpu"), ("cpu", "gpu"), "the fused kernel reads the data once"),
    "pruned": Implementation(_driven_by_host, ("cpu",), (), "it is made for CPUs"),
}
"""By name, best first: None as a choice takes the first that is the default on the platform."""


def plan(
    moments: str,
    implementation: str | None,
    block_sizes: BlockSizes | TpuBlocks | None,
    precision: str,
    *,
    tolerance: float = 0.0,
    limit: bool = True,
) -> PosteriorSettings:
    """Validate the choices of a caller.

    Raises:
      ValueError: an unknown value.
      NotImplementedError: an implementation that this version does not have.
    """
    if moments not in ("all", "velocity"):
        raise ValueError(f"moments must be 'all' or 'velocity', got {moments!r}")
    if block_sizes is not None and not isinstance(block_sizes, BlockSizes | TpuBlocks):
        raise ValueError(f"block_sizes must be a BlockSizes, a TpuBlocks or None, got {block_sizes!r}")
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance < 1:
        raise ValueError(f"tolerance is the share of a query's weight that may be left out, in [0, 1); got {tolerance!r}")
    name = choose(implementation)
    fused = block_sizes if isinstance(block_sizes, TpuBlocks) else None
    if fused and name != "pallas_tpu":
        raise ValueError(f"block_sizes: TpuBlocks are those of pallas_tpu, and {name} takes BlockSizes; got {block_sizes!r}")
    blocks = block_sizes if isinstance(block_sizes, BlockSizes) else default_block_sizes(name)
    return PosteriorSettings(
        moments == "all", blocks, check_precision(precision), name, limit=limit, tolerance=float(tolerance), fused=fused
    )


def choose(implementation: str | None) -> str:
    """The implementation to use on the default platform.

    Raises:
      NotImplementedError: one that there is not, or that does not run here; with what else there is, and why it was passed over.
    """
    platform = jax.default_backend()
    here = [name for name, one in IMPLEMENTATIONS.items() if platform in one.platforms]
    if implementation is None:
        return next(name for name in here if platform in IMPLEMENTATIONS[name].default_on)
    if implementation not in IMPLEMENTATIONS:
        raise NotImplementedError(f"implementation {implementation!r} is not available here; have: {', '.join(here)}")
    if implementation not in here:
        why = IMPLEMENTATIONS[implementation].why_not
        raise NotImplementedError(f"implementation {implementation!r} does not run on {platform}: {why}; have: {', '.join(here)}")
    return implementation


def posterior(
    queries: ArrayLike,
    alpha: ArrayLike,
    sigma: ArrayLike,
    data: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    query_labels: ArrayLike | None = None,
    counts: ArrayLike | None = None,
    moments: Which = "all",
    implementation: str | None = None,
    block_sizes: BlockSizes | TpuBlocks | None = None,
    precision: Precision = "highest",
    tolerance: float = 0.0,
    axis_name: str | None = None,
) -> Moments:
    """Moments of `γ_i(x) = softmax_i(-‖x - α y_i‖² / 2σ²)` over a data set, for a batch of noisy queries.

    Exact at `precision="highest"`: against float64 fed the same float32 numbers, `denoised` is right to 1e-5 of the noise that x
    carries, `log_density` to 1e-4 of itself, `entropy` to 1e-4 nats, for every σ > 0, near-duplicates and far-off data included.
    So are data of any size from 1e-18 to 1e18 that are not traced; a result beyond float32 is infinite, one below 1.2e-38 is 0.
    Memory: `block_sizes.samples × block_sizes.queries` scores and a few `[B, D]`; never `[B, N]`.

    Args:
      queries: `[B, D]`, x. Read as float32.
      alpha, sigma: `[B]` or scalar: x = α y + σ noise. σ = 0 gives the nearest sample, ties sharing the weight.
      data: `[N, D]` samples y, float32, bfloat16 or uint8 (other dtypes are converted to float32).
      labels: `[N]` integer class of each sample, or None.
      query_labels: `[B]` the class to condition each query on; -1 in a row, or None: all samples.
      counts: `[N]` how often each sample counts, or None: once each.
      moments: "velocity" computes `denoised` only.
      implementation: a name in `IMPLEMENTATIONS` ("pallas_tpu", "pallas_gpu", "streaming", "pruned"), or None for the default:
        pallas_tpu on TPUs, streaming elsewhere; its `why_not` says why the others are passed over. "pruned" makes one for this call: an
        `Oracle` keeps it.
      block_sizes: how the work is cut up, a `BlockSizes`, or for pallas_tpu a `TpuBlocks`; the result depends on it by rounding only.
      tolerance: share of a query's weight whose samples its mean may lack, so that whole blocks are passed over; `error_bound` says what
        that did. 0: no more than float32 rounding hides. `streaming` leaves none out.
      precision: see `kernels.precision.Precision`.
      axis_name: inside a caller's own `shard_map(..., check_vma=False)`: the axis whose devices hold the samples between them. `data`,
        `labels` and `counts` are then this device's, as many on each; the queries are the same on all, and so is the result. Indices
        are those of all devices' data, one after the other.

    Returns:
      `Moments`, float32 (indices int32). A query without samples (an unknown class), or with NaN, gives NaN.

    Raises:
      ValueError: shapes that do not fit, empty data, NaN in data that is not traced.
      NotImplementedError: an implementation that this version does not have.

    Source: arXiv 2512.02826, Theorem 2.1.
    """
    how = plan(moments, implementation, block_sizes, precision, tolerance=tolerance)
    values = as_samples(data, "data")
    x = jnp.asarray(queries).astype(jnp.float32)
    if values.ndim != 2 or x.ndim != 2 or x.shape[1] != values.shape[1]:
        raise ValueError(f"queries must be [B, D] and data [N, D]; got queries {x.shape} and data {values.shape}")
    if query_labels is not None and labels is None:
        raise ValueError("query_labels were given, but data without labels")
    classes = None if labels is None else _vector(labels, values.shape[0], "labels", jnp.int32)
    weights = None if counts is None else _vector(counts, values.shape[0], "counts", jnp.float32)
    pruned = how.implementation == "pruned" and axis_name is None
    if classes is not None and axis_name is None and (pruned or implementation is None):
        samples = by_class(values, classes, weights)
    else:
        samples = prepare(values, classes, weights, shards=Shards(axis_name))
    label = jnp.full(x.shape[0], -1, jnp.int32) if query_labels is None else _vector(query_labels, x.shape[0], "query_labels", jnp.int32)
    a, s = (_vector(v, x.shape[0], name, jnp.float32) for v, name in ((alpha, "alpha"), (sigma, "sigma")))
    if not x.shape[0]:
        return no_moments(x.shape[1], how.full)
    limit = isinstance(s, jax.core.Tracer) or bool((s == 0).any())
    seen = not any(isinstance(v, jax.core.Tracer) for v in (x, a, s, label, *jax.tree.leaves(samples)))

    def compiled(rows: np.ndarray | slice) -> Moments:
        settings = dataclasses.replace(how, limit=limit, shards=Shards(axis_name))
        if seen and pruned:
            settings = dataclasses.replace(settings, implementation="streaming")
        return run(x[rows], a[rows], s[rows], label[rows], samples, settings)

    if axis_name is None and seen and (implementation is None or pruned):
        alphas, sigmas = np.array(a, np.float64), np.array(s, np.float64)
        asked = HostQueries(np.asarray(x), alphas, sigmas, 1 / np.maximum(alphas, 1e-30), np.ones_like(alphas), np.asarray(label))
        found = by_host(CpuEngine(always=pruned), samples, asked, how, bind(moments_of, full=how.full), compiled)
        if found is not None:
            return found
    return compiled(slice(None))


def no_moments(d: int, full: bool) -> Moments:
    """The moments of no queries."""
    rows, none = jnp.zeros((0, d), jnp.float32), jnp.zeros(0, jnp.float32) if full else None
    return Moments(rows, none, none, jnp.zeros(0, jnp.int32) if full else None, none, none, none, none)


def moments_of(answer: Answer, full: bool) -> Moments:
    """The answer of the CPU engine."""
    kept: dict[str, Any] = {f.name: getattr(answer, f.name) if full or f.name == "denoised" else None for f in dataclasses.fields(Moments)}
    return Moments(**kept)


def by_host(
    engine: CpuEngine | None,
    samples: Samples,
    queries: HostQueries,
    how: PosteriorSettings,
    finish: Callable[[Answer], Output],
    compiled: Callable[[np.ndarray], Output],
) -> Output | None:
    """What the CPU engine answers, and a compiled program for the queries that it leaves; None where there is no engine for these settings,
    or it answers nothing.

    Args:
      finish: from its answer to what is wanted, in NumPy arrays.
      compiled: the same for some of the queries, by their rows.
    """
    if engine is None or not engine.possible(how):
        return None
    answer = engine(samples, queries, tolerance=how.tolerance)
    if answer is None:
        return None
    found = jax.tree.map(lambda v: v if v.dtype in (np.int32, np.float32) else v.astype(np.float32), finish(answer))
    left = np.flatnonzero(~answer.answered)
    if left.size:
        rest = compiled(np.resize(left, 1 << (len(left) - 1).bit_length()))  # few sizes, and so few programs
        for whole, more in zip(jax.tree.leaves(found), jax.tree.leaves(rest), strict=True):
            whole[left] = np.asarray(more)[: len(left)]
    return _to_device(found)


_to_device = jax.jit(lambda found: found)  # for many small arrays six times as fast as `jax.device_put`


@bind(jax.jit, static_argnames="how")
def run(x: Array, alpha: Array, sigma: Array, label: Array, samples: Samples | Sharded, how: PosteriorSettings) -> Moments:
    """`posterior` with everything in its final form: `run.lower(...).compile()` compiles it ahead of time, from shapes alone."""
    with float64_scope():
        velocity_center = 1 / jnp.maximum(to64(alpha), 1e-30)
        found = spread(posterior64, (x, to64(alpha), to64(sigma), label, velocity_center), samples, how)
        return jax.tree.map(lambda v: v if v.dtype == jnp.int32 else to32(v), found)


def posterior64(
    x: Array, alpha: Array, sigma: Array, label: Array, velocity_center: Array, samples: Samples, how: PosteriorSettings
) -> Moments:
    """`posterior` on prepared samples, its result in float64. For callers inside `float64_scope` that go on computing."""

    def tile(args: tuple[Array, Array, Array, Array, Array]) -> Moments:
        queries = Queries.of(args[0], args[1], args[2], args[3], samples, args[4])
        return moments_of_settled(settled(queries, samples, how), queries, samples)

    return _tiled(tile, (x, alpha, sigma, label, velocity_center), label, samples, how)


def covariance_product64(
    x: Array, alpha: Array, sigma: Array, label: Array, velocity_center: Array, vector: Array, samples: Samples, how: PosteriorSettings
) -> Array:
    """`Cov[y | x] v` for each query, `[B, D]` float64, by one more pass over the data. As `posterior64`."""

    def tile(args: tuple[Array, Array, Array, Array, Array, Array]) -> Array:
        queries = Queries.of(*args[:4], samples, args[4])
        v = to64(args[5])
        limit = bind(_covariance_at_limit, samples=samples, shards=how.shards)

        def once(some: tuple[Queries, Array], dtype: DTypeLike) -> tuple[Array, Array, Array]:
            partial = partial_of(some[0], samples, dataclasses.replace(how, full=True), dtype)
            return covariance_product(*some, partial, samples, blocks=how.blocks, precision=how.precision, shards=how.shards)

        def exactly(some: tuple[tuple[Queries, Array], Array]) -> tuple[Array, Array, Array]:
            (queries, v), pivot = some
            product = covariance_from_differences(queries, pivot, v, samples, how.shards)
            return product, jnp.zeros(product.shape[0], bool), pivot

        fits = queries.fit_float32(samples)
        product, unsettled, pivot = once((queries.where(fits), v), jnp.float32)
        if how.precision == "highest":
            unsettled = (unsettled | ~fits) & (queries.sigma > 0)
            found = repeat(unsettled, lambda some: once(some, jnp.float64), (queries, v), (product, unsettled, pivot))
            product, unsettled, pivot = found
            unsettled &= queries.sigma > 0
            product, _, _ = repeat(unsettled, exactly, ((queries, v), pivot), (product, unsettled, pivot))
        else:
            product = jnp.where(fits[:, None], product, jnp.nan)
        return repeat(queries.sigma == 0, limit, (queries, v), product) if how.limit else product

    product = _tiled(tile, (x, alpha, sigma, label, velocity_center, vector), label, samples, how)
    return product if samples.unit is None else product * to64(samples.unit) ** 2


def _tiled(f: Callable[[Rows], Output], args: Rows, label: Array, samples: Samples, how: PosteriorSettings) -> Output:
    return in_class_order(f, args, label, how.blocks.queries) if samples.by_class else in_tiles(f, args, how.blocks.queries)


def _covariance_at_limit(some: tuple[Queries, Array], samples: Samples, shards: Shards) -> Array:
    """At σ = 0 the covariance is zero but for ties, and its product with α/σ² has no limit there: NaN for ties."""
    tied = nearest(some[0], samples, full=True, shards=shards)
    assert tied.second is not None
    return jnp.where(tied.second[:, None] > 0, jnp.nan, jnp.zeros_like(some[1]))


def settled(queries: Queries, samples: Samples, how: PosteriorSettings) -> Settled:
    """Exact moments of one tile of queries: in float32; in float64 for the rows that float32 leaves unsettled; from differences for those
    that this leaves; at σ = 0."""

    def once(some: Queries, dtype: DTypeLike) -> Settled:
        partial = partial_of(some, samples, how, dtype)
        step = max(1, min(some.x.shape[0], SETTLED_AT_ONCE[how.shards.axis_name is None] // partial.top_score.shape[1] // samples.d))
        return in_tiles(lambda args: settle(*args, samples, how.shards), (partial, some), step)

    def exactly(some: tuple[Queries, Array]) -> Settled:
        return from_differences(*some, samples, how.full, how.shards)

    fits, noisy = queries.fit_float32(samples), queries.sigma > 0
    first = once(queries.where(fits), jnp.float32)
    if how.precision == "highest":
        unsettled = noisy & (first.unsettled | ~fits)
        first = repeat(unsettled, lambda some: once(some, jnp.float64), queries, first._replace(unsettled=unsettled))
        first = repeat(first.unsettled & noisy, exactly, (queries, first.pivot), first)
    else:
        first = first._replace(mean=jnp.where(fits[:, None], first.mean, jnp.nan))  # nothing is repeated, and nothing wrong is given
    if how.limit:
        first = repeat(queries.sigma == 0, lambda some: nearest(some, samples, how.full, how.shards), queries, first)
    return first


def partial_of(queries: Queries, samples: Samples, how: PosteriorSettings, dtype: DTypeLike) -> Partial:
    """One pass over the data: in float32 by the implementation chosen, in float64 by `streaming`."""
    if dtype == jnp.float32:
        return IMPLEMENTATIONS[how.implementation].run(queries, samples, how)
    return streaming(queries, samples, full=how.full, dtype=dtype, blocks=how.blocks, precision=how.precision)


def moments_of_settled(found: Settled, queries: Queries, samples: Samples) -> Moments:
    """What a caller is told; `samples` are asked for their centre and their largest norm only."""
    # Without samples the mean is 0 / 0.
    answered = jnp.isfinite(queries.x).all(axis=1) & jnp.isfinite(found.mean).all(axis=1)

    def or_nan(v: Array) -> Array:
        return jnp.where(answered.reshape(answered.shape + (1,) * (v.ndim - 1)), v, jnp.nan)

    unit = 1.0 if samples.unit is None else to64(samples.unit)
    denoised = or_nan(found.mean + to64(samples.center)) * unit
    if found.mass is None or found.second is None or found.effective is None or found.entropy is None:
        return Moments(denoised, None, None, None, None, None, None, None)
    assert found.top1_weight is not None
    assert found.top1_index is not None
    normal = samples.d / 2 * jnp.log(2 * jnp.pi * (queries.sigma * unit) ** 2)
    at_limit = queries.sigma == 0
    log_density = jnp.where(at_limit, found.log_weight, found.log_weight - normal - jnp.log(found.mass))
    return Moments(
        denoised=denoised,
        log_density=or_nan(log_density),
        top1_weight=or_nan(found.top1_weight),
        top1_index=jnp.where(answered, found.top1_index, -1).astype(jnp.int32),
        entropy=or_nan(found.entropy),
        effective_samples=or_nan(found.effective),
        variance=or_nan(found.second) * unit**2,
        error_bound=or_nan(found.left_out * 2 * jnp.sqrt(to64(samples.largest))) * unit,
    )


def as_samples(data: ArrayLike, name: str) -> Array:
    """`data` in a dtype that the implementations read, checked for NaN where it is concrete."""
    if not isinstance(data, jax.Array | np.ndarray):
        data = np.asarray(data)
    if np.issubdtype(data.dtype, np.complexfloating) or (data.dtype.kind in "OSUV" and data.dtype != jnp.bfloat16):
        raise ValueError(f"{name} must be real numbers, got dtype {data.dtype}")
    if data.ndim < 1 or 0 in data.shape:
        raise ValueError(f"{name} must hold at least one sample of at least one number, got shape {data.shape}")
    with jax.ensure_compile_time_eval():
        values = jnp.asarray(data)
    if values.dtype not in (jnp.float32, jnp.bfloat16, jnp.uint8):
        values = values.astype(jnp.float32)
    if not isinstance(values, jax.core.Tracer) and values.dtype != jnp.uint8:
        with jax.ensure_compile_time_eval():  # under a caller's jit they are concrete too
            bad = np.asarray(~jnp.isfinite(values.reshape(values.shape[0], -1)).all(axis=1))
        if bad.any():
            raise ValueError(
                f"{name} has NaN or infinity in {int(bad.sum())} of {len(bad)} samples, the first at index {int(bad.argmax())}"
            )
    return values


def _vector(v: ArrayLike, length: int, name: str, dtype: DTypeLike) -> Array:
    v = jnp.asarray(v).astype(dtype)
    if v.shape not in ((), (length,)):
        raise ValueError(f"{name} must be a scalar or of shape ({length},), got shape {v.shape}")
    return jnp.broadcast_to(v, (length,))
