"""posterior(...): the only door to the implementations."""

import dataclasses
from collections.abc import Callable
from functools import partial as bind
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Bool, Float, Int

from kernels.double import float64_scope, to32, to64
from kernels.posterior.blocks import BlockSizes, Precision, check_precision
from kernels.posterior.covariance import covariance_product
from kernels.posterior.nearest import nearest
from kernels.posterior.queries import Queries
from kernels.posterior.samples import Samples, prepare
from kernels.posterior.settle import Settled, settle
from kernels.posterior.streaming import streaming

Which = Literal["all", "velocity"]
IMPLEMENTATIONS = ("streaming",)
FALLBACK_ROWS = 32
"""Queries repeated together in float64: enough for a matmul, few enough that one stray query stays cheap."""

Tree = TypeVar("Tree")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moments:
    """The posterior of one sample index given `B` noisy queries. `moments="velocity"` leaves all but `denoised` None."""

    denoised: Float[Array, "B D"]
    """E[y | x] = Σ γ_i y_i."""
    log_density: Float[Array, " B"] | None
    """log p(x) of the mixture `Σ_i N(x; α y_i, σ² I) / N`, nats; over the samples that count for the query."""
    top1_weight: Float[Array, " B"] | None
    """max_i γ_i."""
    top1_index: Int[Array, " B"] | None
    """Its sample; the lowest index among equals."""
    entropy: Float[Array, " B"] | None
    """-Σ γ_i log γ_i, nats."""
    effective_samples: Float[Array, " B"] | None
    """1 / Σ γ_i²."""
    variance: Float[Array, " B"] | None
    """tr Cov[y | x] = Σ γ_i ‖y_i - E[y | x]‖²."""
    error_bound: Float[Array, " B"] | None
    """Bound on the error of `denoised` from samples left out: 0, `streaming` leaves out none that float32 could show."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a posterior is computed; static under jit."""

    full: bool
    blocks: BlockSizes
    precision: Precision


def plan(moments: str, implementation: str | None, block_sizes: BlockSizes | None, precision: str) -> Plan:
    """Validate the choices of a caller.

    Raises:
      ValueError: an unknown value.
      NotImplementedError: an implementation that this version does not have.
    """
    if moments not in ("all", "velocity"):
        raise ValueError(f"moments must be 'all' or 'velocity', got {moments!r}")
    if implementation not in (None, *IMPLEMENTATIONS):
        raise NotImplementedError(f"implementation {implementation!r} is not available here; have: {', '.join(IMPLEMENTATIONS)}")
    if block_sizes is not None and not isinstance(block_sizes, BlockSizes):
        raise ValueError(f"block_sizes must be a BlockSizes or None, got {block_sizes!r}")
    return Plan(moments == "all", block_sizes or BlockSizes(), check_precision(precision))


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
    block_sizes: BlockSizes | None = None,
    precision: Precision = "highest",
) -> Moments:
    """Moments of `γ_i(x) = softmax_i(-‖x - α y_i‖² / 2σ²)` over a data set, for a batch of noisy queries.

    Exact at `precision="highest"`: against float64 fed the same float32 numbers, `denoised` is right to 1e-5 of the noise that x
    carries, `log_density` to 1e-4 of itself, `entropy` to 1e-4 nats, for every σ > 0, near-duplicates and far-off data included.
    Memory: `block_sizes.samples × block_sizes.queries` scores and a few `[B, D]`; never `[B, N]`.

    Args:
      queries: `[B, D]`, x. Read as float32.
      alpha, sigma: `[B]` or scalar: x = α y + σ noise. σ = 0 gives the nearest sample, ties sharing the weight.
      data: `[N, D]` samples y, float32, bfloat16 or uint8 (other dtypes are converted to float32).
      labels: `[N]` integer class of each sample, or None.
      query_labels: `[B]` the class to condition each query on; -1 in a row, or None: all samples.
      counts: `[N]` how often each sample counts, or None: once each.
      moments: "velocity" computes `denoised` only.
      implementation: "streaming", or None for the default of the device (streaming everywhere so far).
      block_sizes: how the work is cut up; the result does not depend on it beyond rounding.
      precision: see `kernels.posterior.blocks.Precision`.

    Returns:
      `Moments`, float32 (indices int32). A query without samples (an unknown class), or with NaN, gives NaN.

    Raises:
      ValueError: shapes that do not fit, empty data, NaN in data that is not traced.
      NotImplementedError: an implementation that this version does not have.

    Source: arXiv 2512.02826, Theorem 2.1.
    """
    how = plan(moments, implementation, block_sizes, precision)
    values = as_samples(data, "data")
    x = jnp.asarray(queries).astype(jnp.float32)
    if values.ndim != 2 or x.ndim != 2 or x.shape[1] != values.shape[1]:
        raise ValueError(f"queries must be [B, D] and data [N, D]; got queries {x.shape} and data {values.shape}")
    if query_labels is not None and labels is None:
        raise ValueError("query_labels were given, but data without labels")
    samples = prepare(
        values,
        None if labels is None else _vector(labels, values.shape[0], "labels", jnp.int32),
        None if counts is None else _vector(counts, values.shape[0], "counts", jnp.float32),
    )
    label = jnp.full(x.shape[0], -1, jnp.int32) if query_labels is None else _vector(query_labels, x.shape[0], "query_labels", jnp.int32)
    a, s = (_vector(v, x.shape[0], name, jnp.float32) for v, name in ((alpha, "alpha"), (sigma, "sigma")))
    return _posterior(x, a, s, label, samples, how)


@bind(jax.jit, static_argnames="how")
def _posterior(x: Array, alpha: Array, sigma: Array, label: Array, samples: Samples, how: Plan) -> Moments:
    with float64_scope():
        return jax.tree.map(lambda v: v if v.dtype == jnp.int32 else to32(v), posterior64(x, to64(alpha), to64(sigma), label, samples, how))


def posterior64(x: Array, alpha: Array, sigma: Array, label: Array, samples: Samples, how: Plan) -> Moments:
    """`posterior` on prepared samples, its result in float64. For callers inside `float64_scope` that go on computing."""

    def tile(args: tuple[Array, Array, Array, Array]) -> Moments:
        queries = Queries.of(*args, samples)
        return _moments(settled(queries, samples, how), queries, samples)

    return in_tiles(tile, (x, alpha, sigma, label), how.blocks.queries)


def covariance_product64(x: Array, alpha: Array, sigma: Array, label: Array, vector: Array, samples: Samples, how: Plan) -> Array:
    """`Cov[y | x] v` for each query, `[B, D]` float64, by one more pass over the data. As `posterior64`."""

    def tile(args: tuple[Array, Array, Array, Array, Array]) -> Array:
        queries = Queries.of(*args[:4], samples)
        v = to64(args[4])
        limit = bind(_covariance_at_limit, samples=samples)

        def run(some: tuple[Queries, Array], dtype: DTypeLike) -> tuple[Array, Array]:
            return covariance_product(*some, samples, dtype=dtype, blocks=how.blocks, precision=how.precision)

        product, unsettled = run((queries, v), jnp.float32)
        product = _repeat(unsettled & (how.precision == "highest"), lambda some: run(some, jnp.float64)[0], (queries, v), product)
        return _repeat(queries.sigma == 0, limit, (queries, v), product)

    return in_tiles(tile, (x, alpha, sigma, label, vector), how.blocks.queries)


def _covariance_at_limit(some: tuple[Queries, Array], samples: Samples) -> Array:
    """At σ = 0 the covariance is zero but for ties, and its product with α/σ² has no limit there: NaN for ties."""
    tied = nearest(some[0], samples, full=True)
    assert tied.second is not None
    return jnp.where(tied.second[:, None] > 0, jnp.nan, jnp.zeros_like(some[1]))


def settled(queries: Queries, samples: Samples, how: Plan) -> Settled:
    """Exact moments of one tile of queries: float32, then float64 for the rows that float32 left unsettled, then σ = 0."""

    def run(some: Queries, dtype: DTypeLike) -> Settled:
        partial = streaming(some, samples, full=how.full, dtype=dtype, blocks=how.blocks, precision=how.precision)
        step = max(1, min(some.x.shape[0], 2**22 // partial.top_score.shape[1] // samples.d))
        return in_tiles(lambda args: settle(*args, samples), (partial, some), step)

    first = run(queries, jnp.float32)
    unsettled = first.unsettled & (how.precision == "highest") & (queries.sigma > 0)
    first = _repeat(unsettled, lambda some: run(some, jnp.float64), queries, first)
    return _repeat(queries.sigma == 0, lambda some: nearest(some, samples, how.full), queries, first)


def _moments(found: Settled, queries: Queries, samples: Samples) -> Moments:
    answered = jnp.isfinite(queries.x).all(axis=1) & jnp.isfinite(found.mean).all(axis=1)
    answered &= _class_exists(queries.label, samples)

    def or_nan(v: Array) -> Array:
        return jnp.where(answered.reshape(answered.shape + (1,) * (v.ndim - 1)), v, jnp.nan)

    denoised = or_nan(found.mean + to64(samples.center))
    if found.mass is None or found.second is None or found.effective is None or found.entropy is None:
        return Moments(denoised, None, None, None, None, None, None, None)
    assert found.top1_weight is not None and found.top1_index is not None
    normal = samples.d / 2 * jnp.log(2 * jnp.pi * queries.sigma**2)
    at_limit = queries.sigma == 0
    log_density = jnp.where(at_limit, found.log_weight, found.log_weight - queries.offset - normal - jnp.log(found.mass))
    return Moments(
        denoised=denoised,
        log_density=or_nan(log_density),
        top1_weight=or_nan(found.top1_weight),
        top1_index=jnp.where(answered, found.top1_index, -1).astype(jnp.int32),
        entropy=or_nan(found.entropy),
        effective_samples=or_nan(found.effective),
        variance=or_nan(found.second),
        error_bound=or_nan(jnp.zeros_like(found.second)),
    )


def _class_exists(label: Int[Array, " B"], samples: Samples) -> Bool[Array, " B"]:
    if samples.labels is None:
        return jnp.ones(label.shape, bool)
    known = samples.labels
    return jax.lax.map(lambda one: (one == -1) | jnp.any(known == one), label)


def in_tiles(f: Callable[[Tree], Tree], args: Tree, rows: int) -> Tree:  # type: ignore[type-var]
    """`f(args)`, `rows` rows of the leading axis at a time; f must treat rows independently. One call if they all fit."""
    b = jax.tree.leaves(args)[0].shape[0]
    if b <= rows:
        return f(args)
    tiles = -(-b // rows)

    def split(v: Array) -> Array:
        return jnp.pad(v, ((0, tiles * rows - b),) + ((0, 0),) * (v.ndim - 1), mode="edge").reshape(tiles, rows, *v.shape[1:])

    out = jax.lax.map(f, jax.tree.map(split, args))
    return jax.tree.map(lambda v: v.reshape(tiles * rows, *v.shape[2:])[:b], out)


def _repeat(which: Bool[Array, " B"], f: Callable[[Tree], Tree], args: Tree, results: Tree) -> Tree:  # type: ignore[type-var]
    """`results` with the rows `which` replaced by `f` of those rows of `args`; costs in proportion to their number."""
    b = which.shape[0]
    rows = min(b, FALLBACK_ROWS)
    order = jnp.argsort(~which, stable=True).astype(jnp.int32)
    number = which.sum().astype(jnp.int32)

    def body(state: tuple[Array, Tree]) -> tuple[Array, Tree]:
        done, out = state
        index = jax.lax.dynamic_slice_in_dim(order, jnp.minimum(done, b - rows), rows)
        fresh = f(jax.tree.map(lambda v: v[index], args))
        replace = which[index]

        def put(old: Array, new: Array) -> Array:
            chosen = jnp.where(replace.reshape(rows, *(1,) * (old.ndim - 1)), new, old[index])
            return old.at[index].set(chosen.astype(old.dtype))

        return (done + rows).astype(jnp.int32), jax.tree.map(put, out, fresh)

    return jax.lax.while_loop(lambda state: state[0] < number, body, (jnp.int32(0), results))[1]


def as_samples(data: ArrayLike, name: str) -> Array:
    """`data` in a dtype that the implementations read, checked for NaN where it is concrete."""
    if not isinstance(data, jax.Array | np.ndarray):
        data = np.asarray(data)
    if np.issubdtype(data.dtype, np.complexfloating) or data.dtype.kind in "OSUV" and data.dtype != jnp.bfloat16:
        raise ValueError(f"{name} must be real numbers, got dtype {data.dtype}")
    if data.ndim < 1 or 0 in data.shape:
        raise ValueError(f"{name} must hold at least one sample of at least one number, got shape {data.shape}")
    values = jnp.asarray(data)
    if values.dtype not in (jnp.float32, jnp.bfloat16, jnp.uint8):
        values = values.astype(jnp.float32)
    if not isinstance(values, jax.core.Tracer) and values.dtype != jnp.uint8:
        bad = ~jnp.isfinite(values.reshape(values.shape[0], -1)).all(axis=1)
        if bad.any():
            raise ValueError(f"{name} has NaN or infinity in {int(bad.sum())} of {len(bad)} samples, the first at index {int(bad.argmax())}")
    return values


def _vector(v: ArrayLike, length: int, name: str, dtype: DTypeLike) -> Array:
    v = jnp.asarray(v).astype(dtype)
    if v.shape not in ((), (length,)):
        raise ValueError(f"{name} must be a scalar or of shape ({length},), got shape {v.shape}")
    return jnp.broadcast_to(v, (length,))
