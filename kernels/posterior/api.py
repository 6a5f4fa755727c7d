"""`posterior` validates a call, chooses an engine and returns moments. `Oracle` reaches the engines by the same functions."""

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
from kernels.posterior.cpu.dispatch import CpuEngine, by_host
from kernels.posterior.cpu.results import HostMoments
from kernels.posterior.distributed.collectives import Shards
from kernels.posterior.distributed.sharded import Sharded, spread
from kernels.posterior.pallas.tpu_blocks import TpuBlocks
from kernels.posterior.partial import Partial
from kernels.posterior.settings import BlockSizes, PosteriorSettings, default_block_sizes
from kernels.posterior.types import CentredQueries, Moments, Queries, Samples, by_class, prepare
from kernels.posterior.xla.batching import in_class_order, in_tiles, repeat
from kernels.posterior.xla.covariance import covariance_product
from kernels.posterior.xla.differences import covariance_from_differences, from_differences
from kernels.posterior.xla.paths import PathMoments, PathRows, path_moments64
from kernels.posterior.xla.refine import RefinedMoments, refine
from kernels.posterior.xla.streaming import streaming
from kernels.posterior.xla.zero_noise import nearest
from kernels.precision import Precision, check_precision

Which = Literal["all", "velocity"]


REFINED_AT_ONCE = {True: 2**22, False: 2**26}
"""Numbers in the candidates that are recomputed together. On one device (True) they stay in a cache; over shards (False) one collective
serves more of them."""

Rows = TypeVar("Rows")
Output = TypeVar("Output")


@dataclasses.dataclass(frozen=True)
class Implementation:
    """One way to make a Partial of a pass over the data."""

    run: Callable[[CentredQueries, Samples, PosteriorSettings], Partial]
    """One pass in float32. `streaming` repeats in float64 the queries that it leaves unsettled."""
    platforms: tuple[str, ...]
    """Platforms on which it runs."""
    default_on: tuple[str, ...]
    """Platforms on which it is the default."""
    why_not: str
    """Why it is not the default, or does not run, on other platforms."""


def _fused(queries: CentredQueries, samples: Samples, how: PosteriorSettings) -> Partial:
    from kernels.posterior.pallas.tpu import pallas_tpu

    return pallas_tpu(
        queries,
        samples,
        full=how.full,
        blocks=how.fused,
        precision=how.precision,
        tolerance=how.tolerance,
        generation=how.generation,
    )


def _in_blocks(make: Callable[..., Partial]) -> Callable[[CentredQueries, Samples, PosteriorSettings], Partial]:
    return lambda queries, samples, how: make(
        queries, samples, full=how.full, dtype=jnp.float32, blocks=how.blocks, precision=how.precision
    )


def _triton(queries: CentredQueries, samples: Samples, **settings: Any) -> Partial:
    """`pallas_gpu`, imported when it is asked for: JAX is to drop its Triton backend."""
    try:
        from kernels.posterior.pallas.gpu import pallas_gpu
    except ImportError as error:
        raise NotImplementedError(
            f"implementation 'pallas_gpu' needs JAX's Triton backend, which JAX {jax.__version__} lacks: leave implementation out"
        ) from error
    return pallas_gpu(queries, samples, **settings)


def _driven_by_host(queries: CentredQueries, samples: Samples, how: PosteriorSettings) -> Partial:
    raise NotImplementedError(
        "implementation 'pruned' is driven by the host and cannot run under jit, grad or vmap: "
        "leave implementation out, and the dense pass is taken there"
    )


IMPLEMENTATIONS = {
    "pallas_tpu": Implementation(_fused, ("tpu",), ("tpu",), "it is a TPU kernel"),
    "pallas_gpu": Implementation(_in_blocks(_triton), ("gpu",), (), "it is made of Triton kernels, for GPUs, and no GPU has timed it yet"),
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
    """The settings of a call, from a caller's choices, validated.

    Raises:
      ValueError: an unknown value.
      NotImplementedError: an implementation that this version does not have.
    """
    full = all_moments(moments)
    if block_sizes is not None and not isinstance(block_sizes, BlockSizes | TpuBlocks):
        raise ValueError(f"block_sizes must be a BlockSizes, a TpuBlocks or None, got {block_sizes!r}")
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance < 1:
        raise ValueError(f"tolerance is the share of a query's weight that may be left out, in [0, 1); got {tolerance!r}")
    name = choose(implementation)
    fused = block_sizes if isinstance(block_sizes, TpuBlocks) else None
    if fused and name != "pallas_tpu":
        raise ValueError(f"block_sizes: TpuBlocks are those of pallas_tpu, and {name} takes BlockSizes; got {block_sizes!r}")
    blocks = block_sizes if isinstance(block_sizes, BlockSizes) else default_block_sizes(name)
    return PosteriorSettings(full, blocks, check_precision(precision), name, limit=limit, tolerance=float(tolerance), fused=fused)


def all_moments(moments: str) -> bool:
    """Whether all moments are asked for, or the velocity alone.

    Raises:
      ValueError: neither.
    """
    if moments not in ("all", "velocity"):
        raise ValueError(f"moments must be 'all' or 'velocity', got {moments!r}")
    return moments == "all"


def choose(implementation: str | None) -> str:
    """The implementation to use on the default platform.

    Raises:
      NotImplementedError: an unknown implementation, or one that does not run here; the message lists those that do, and the reason.
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


# Long for its docstring: it is the door.
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
        pallas_tpu on TPUs, streaming elsewhere; its `why_not` says why not another. "pruned" makes an index for this call, which an
        `Oracle` would keep.
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

    Examples:
      >>> import numpy as np
      >>> samples = np.array([[0.0], [1.0], [5.0]], np.float32)
      >>> found = posterior(np.array([[0.4]], np.float32), 1.0, 0.1, samples)
      >>> np.asarray(found.denoised).round(2).tolist()
      [[0.0]]
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
        return run(Queries(x[rows], a[rows], s[rows], label[rows]), samples, settings)

    if axis_name is None and seen and (implementation is None or pruned):
        alphas, sigmas = np.array(a, np.float64), np.array(s, np.float64)
        on_host = Queries(np.asarray(x), alphas, sigmas, np.asarray(label), 1 / np.maximum(alphas, 1e-30), np.ones_like(alphas))
        moments_of_host = by_host(CpuEngine(always=pruned), samples, on_host, how, bind(_public, full=how.full), compiled)
        if moments_of_host is not None:
            return moments_of_host
    return compiled(slice(None))


def no_moments(d: int, full: bool) -> Moments:
    """The moments of no queries."""
    rows, none = jnp.zeros((0, d), jnp.float32), jnp.zeros(0, jnp.float32) if full else None
    return Moments(rows, none, none, jnp.zeros(0, jnp.int32) if full else None, none, none, none, none)


def _public(moments: HostMoments, full: bool) -> Moments:
    """The moments of the CPU engine, all or only the mean."""
    return moments.alone() if full else Moments(moments.denoised)


@bind(jax.jit, static_argnames="how")
def run(queries: Queries, samples: Samples | Sharded, how: PosteriorSettings) -> Moments:
    """`posterior` on validated arguments, jitted: `run.lower(...).compile()` compiles it ahead of time, from shapes alone."""
    with float64_scope():
        moments = spread(posterior64, (queries,), samples, how)
        return jax.tree.map(lambda v: v if v.dtype == jnp.int32 else to32(v), moments)


@bind(jax.jit, static_argnames="how")
def run_paths(rows: PathRows, samples: Samples | Sharded, how: PosteriorSettings) -> PathMoments:
    """The posterior of whole paths by two products, float64; called inside `float64_scope`. Compiled for each number of paths and times.

    With `pallas_tpu` by its kernel for paths, elsewhere by `path_streaming`.

    Raises:
      NotImplementedError: VMEM does not hold the sums of so many times beside a sample.
    """
    once = None
    if how.implementation == "pallas_tpu":
        from kernels.posterior.pallas.tpu_paths import path_pass_tpu  # here: Pallas takes long to import

        once = bind(path_pass_tpu, precision=how.precision, generation=how.generation)
    return spread(bind(path_moments64, once=once), (rows,), samples, how)


def posterior64(queries: Queries, samples: Samples, how: PosteriorSettings) -> Moments:
    """`posterior` on prepared samples, its result in float64. For callers inside `float64_scope` that go on computing."""

    def tile(some: Queries) -> Moments:
        centred = CentredQueries.of(some, samples)
        return refined(centred, samples, how).in_callers_frame(centred, samples)

    return _tiled(tile, queries, queries.label, samples, how)


def covariance_product64(queries: Queries, vector: Array, samples: Samples, how: PosteriorSettings) -> Array:
    """`Cov[y | x] v` for each query, `[B, D]` float64, by one more pass over the data. As `posterior64`."""

    def tile(args: tuple[Queries, Array]) -> Array:
        queries, v = CentredQueries.of(args[0], samples), to64(args[1])
        limit = bind(_covariance_at_limit, samples=samples, shards=how.shards)

        def once(some: tuple[CentredQueries, Array], dtype: DTypeLike) -> tuple[Array, Array, Array]:
            partial = partial_of(some[0], samples, dataclasses.replace(how, full=True), dtype)
            return covariance_product(*some, partial, samples, blocks=how.blocks, precision=how.precision, shards=how.shards)

        def exactly(some: tuple[tuple[CentredQueries, Array], Array]) -> tuple[Array, Array, Array]:
            (queries, v), pivot = some
            product = covariance_from_differences(queries, pivot, v, samples, how.shards)
            return product, jnp.zeros(product.shape[0], bool), pivot

        fits = queries.fit_float32(samples)
        product, unsettled, pivot = once((queries.where(fits), v), jnp.float32)
        if how.precision == "highest":
            unsettled = (unsettled | ~fits) & (queries.sigma > 0)
            product, unsettled, pivot = repeat(unsettled, lambda some: once(some, jnp.float64), (queries, v), (product, unsettled, pivot))
            unsettled &= queries.sigma > 0
            product, _, _ = repeat(unsettled, exactly, ((queries, v), pivot), (product, unsettled, pivot))
        else:
            product = jnp.where(fits[:, None], product, jnp.nan)
        return repeat(queries.sigma == 0, limit, (queries, v), product) if how.limit else product

    product = _tiled(tile, (queries, vector), queries.label, samples, how)
    return product if samples.unit is None else product * to64(samples.unit) ** 2


def _tiled(f: Callable[[Rows], Output], args: Rows, label: Array, samples: Samples, how: PosteriorSettings) -> Output:
    return in_class_order(f, args, label, how.blocks.queries) if samples.by_class else in_tiles(f, args, how.blocks.queries)


def _covariance_at_limit(some: tuple[CentredQueries, Array], samples: Samples, shards: Shards) -> Array:
    """At σ = 0 the covariance is zero but for ties, and its product with α/σ² has no limit there: NaN for ties."""
    tied = nearest(some[0], samples, full=True, shards=shards)
    assert tied.variance is not None
    return jnp.where(tied.variance[:, None] > 0, jnp.nan, jnp.zeros_like(some[1]))


def refined(queries: CentredQueries, samples: Samples, how: PosteriorSettings) -> RefinedMoments:
    """Exact moments of one tile of queries: from a float32 pass; from a float64 pass for the queries that float32 leaves unsettled; from
    differences for those that float64 leaves unsettled; from the nearest sample at σ = 0."""

    def once(some: CentredQueries, dtype: DTypeLike) -> RefinedMoments:
        partial = partial_of(some, samples, how, dtype)
        step = max(1, min(some.x.shape[0], REFINED_AT_ONCE[how.shards.axis_name is None] // partial.top_score.shape[1] // samples.d))
        return in_tiles(lambda args: refine(*args, samples, how.shards), (partial, some), step)

    def exactly(some: tuple[CentredQueries, Array]) -> RefinedMoments:
        return from_differences(*some, samples, how.full, how.shards)

    fits, noisy = queries.fit_float32(samples), queries.sigma > 0
    moments = once(queries.where(fits), jnp.float32)
    if how.precision == "highest":
        moments = dataclasses.replace(moments, unsettled=noisy & (moments.unsettled | ~fits))
        moments = repeat(moments.unsettled, lambda some: once(some, jnp.float64), queries, moments)
        moments = repeat(moments.unsettled & noisy, exactly, (queries, moments.pivot), moments)
    else:  # nothing is repeated, and nothing wrong is returned
        moments = dataclasses.replace(moments, denoised=jnp.where(fits[:, None], moments.denoised, jnp.nan))
    if how.limit:
        moments = repeat(queries.sigma == 0, lambda some: nearest(some, samples, how.full, how.shards), queries, moments)
    return moments


def partial_of(queries: CentredQueries, samples: Samples, how: PosteriorSettings, dtype: DTypeLike) -> Partial:
    """One pass over the data: in float32 by the implementation chosen, in float64 by `streaming`."""
    if dtype == jnp.float32:
        return IMPLEMENTATIONS[how.implementation].run(queries, samples, how)
    return streaming(queries, samples, full=how.full, dtype=dtype, blocks=how.blocks, precision=how.precision)


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
