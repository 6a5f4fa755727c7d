"""Sums over all samples about a pivot, one query at a time: the last resort, for queries that even float64 dot products leave unsettled.

Where many near-copies share the weight of a query whose noise is 10⁶ times smaller than the data, their log weights and their spread are
differences of numbers 10¹² times larger. So the log weight of every sample y is taken relative to that of the pivot p, the heaviest:

    log γ(y) - log γ(p) = α (y - p)·((x - α y) + (x - α p)) / 2σ² + log prior(y) - log prior(p)

which forms no large number. Equal samples have equal log weights to the bit, so that ties are exact. It costs an element-wise pass over
the data for each query, some ten times what a matrix product does.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kernels.float64 import to64
from kernels.posterior.distributed.collectives import Shards
from kernels.posterior.partial import NO_SAMPLE
from kernels.posterior.types import CentredQueries, Samples
from kernels.posterior.xla.refine import RefinedMoments, in_common, log_density_of

BLOCK = 2**20
"""Numbers of the data in one block of samples."""


class Sums(NamedTuple):
    """Sums over samples with weights w = exp(log weight - peak), of one query or, with a leading axis, of `B`; float64."""

    peak: Float[Array, "*B"]
    """Largest log weight beyond the pivot's likelihood; -inf for no samples."""
    weight: Float[Array, "*B"]
    weight_square: Float[Array, "*B"]
    weighted_log: Float[Array, "*B"]
    """Σ w (log weight - peak)."""
    away: Float[Array, "*B D"]
    """Σ w (y - p)."""
    square: Float[Array, "*B"]
    """Σ w ‖y - p‖²."""
    along: Float[Array, "*B D"]
    """Σ w (y - p) ((y - p)·v), for a vector v."""
    index: Int[Array, "*B"]  # type: ignore[assignment]  # a tuple's own `index` is not used
    """The caller's lowest index among the samples whose log weight is the peak."""
    mass: Float[Array, "*B"]
    """Σ of the prior weights of the samples that count."""


def no_sums(shape: tuple[int, ...], d: int) -> Sums:
    """The sums over no samples, for `shape` queries of `d` numbers."""
    zero, vector = jnp.zeros(shape, jnp.float64), jnp.zeros((*shape, d), jnp.float64)
    peak, index = jnp.full(shape, -jnp.inf, jnp.float64), jnp.full(shape, NO_SAMPLE, jnp.int32)
    return Sums(peak, zero, zero, zero, vector, zero, vector, index, zero)


def pivots_of(samples: Samples, pivot: Int[Array, " B"]) -> Float[Array, "B D"]:
    """The samples at these positions, float64; any sample for `NO_SAMPLE`."""
    return to64(samples.values[jnp.clip(pivot, 0, samples.n - 1)])


def add_samples(
    total: Sums, queries: CentredQueries, pivots: Float[Array, "B D"], vectors: Float[Array, "B D"], samples: Samples, rows_at_once: int
) -> Sums:
    """`total` and the sums over these samples, for each query."""

    def one(query: tuple[Sums, _Query]) -> Sums:
        starts = jnp.arange(0, samples.n, rows_at_once, dtype=jnp.int32)
        return jax.lax.scan(lambda sums, start: (_add_block(sums, query[1], samples, start, rows_at_once), None), query[0], starts)[0]

    return jax.lax.map(one, (total, _Query(queries.x, queries.alpha, queries.sigma, queries.label, pivots, vectors)))


class _Query(NamedTuple):
    """One query, or with a leading axis several."""

    x: Float[Array, "*B D"]
    alpha: Float[Array, "*B"]
    sigma: Float[Array, "*B"]
    label: Int[Array, "*B"]
    pivot: Float[Array, "*B D"]
    vector: Float[Array, "*B D"]


def _add_block(total: Sums, query: _Query, samples: Samples, start: Int[Array, ""], size: int) -> Sums:
    """`total` and one block, for one query; the last block is moved back to fit, and rows of the block before it do not count."""
    x, alpha, sigma, label, pivot, vector = query
    first = jnp.minimum(start, samples.n - size)

    def cut(v: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(v, first, size)

    position = first + jnp.arange(size, dtype=jnp.int32)
    rows = to64(cut(samples.values))
    log_prior = jnp.zeros(size, jnp.float64) if samples.log_prior is None else to64(cut(samples.log_prior))
    counts = (position >= start) & ~jnp.isneginf(log_prior)
    if samples.labels is not None:
        counts &= (cut(samples.labels) == label) | (label == -1)
    gap, toward = rows - pivot, (x - alpha * rows) + (x - alpha * pivot)
    variance = jnp.where(sigma > 0, sigma, 1) ** 2
    log_weight = jnp.where(counts, alpha * jnp.sum(gap * toward, axis=1) / (2 * variance) + log_prior, -jnp.inf)
    peak = jnp.maximum(total.peak, log_weight.max())
    finite = jnp.where(jnp.isneginf(peak), 0, peak)
    fall = jnp.where(jnp.isneginf(total.peak), 0, total.peak - finite)
    old = jnp.where(jnp.isneginf(total.peak), 0, jnp.exp(fall))
    z = jnp.where(counts, log_weight - finite, 0)
    w = jnp.where(counts, jnp.exp(z), 0)
    index = position if samples.index is None else cut(samples.index)
    lowest = jnp.where(counts & (log_weight == peak), index, NO_SAMPLE).min()
    kept = jnp.where(total.peak == peak, total.index, NO_SAMPLE)
    return Sums(
        peak=peak,
        weight=old * total.weight + w.sum(),
        weight_square=old**2 * total.weight_square + (w * w).sum(),
        weighted_log=old * (total.weighted_log + fall * total.weight) + (w * z).sum(),
        away=old * total.away + jnp.sum(w[:, None] * gap, axis=0),
        square=old * total.square + jnp.sum(w * jnp.sum(gap * gap, axis=1)),
        along=old * total.along + jnp.sum((w * jnp.sum(gap * vector, axis=1))[:, None] * gap, axis=0),
        index=jnp.minimum(kept, lowest),
        mass=total.mass + jnp.where(counts, jnp.exp(log_prior), 0).sum(),
    )


def moments_of_sums(total: Sums, queries: CentredQueries, pivots: Float[Array, "B D"], samples: Samples, shards: Shards) -> RefinedMoments:
    """Exact moments from sums over all samples, each shard about a pivot of its own. `samples` gives the centre and the largest norm."""
    some = ~jnp.isneginf(total.peak)
    no_prior = jnp.zeros(pivots.shape[0], jnp.float64)
    common = in_common(queries, pivots, no_prior, some, samples, shards)
    own_peak = jnp.where(some, shards.rounded(total.peak + common.fall), -jnp.inf)
    highest = shards.max(own_peak)
    peak = jnp.where(jnp.isneginf(highest), 0, highest)
    fall = jnp.where(some, total.peak + common.fall - peak, 0)
    scale = jnp.where(some, jnp.exp(fall), 0)
    weight = scale * total.weight
    moment = weight[:, None] * (pivots - to64(samples.center)) + scale[:, None] * total.away
    mean, whole = shards.mean(moment, weight, jnp.sqrt(samples.largest))
    apart = mean - (pivots - to64(samples.center))  # E[y | x] - p
    about_mean = total.square - 2 * jnp.sum(total.away * apart, axis=1) + total.weight * jnp.sum(apart**2, axis=1)
    second, square, log, mass = shards.sum(
        scale * jnp.maximum(about_mean, 0),
        scale**2 * total.weight_square,
        scale * (total.weighted_log + fall * total.weight),
        total.mass,
    )
    no = jnp.zeros(pivots.shape[0], bool)
    log_total = peak + jnp.log(whole)
    return RefinedMoments(
        denoised=mean,
        log_density=log_density_of(common.log_weight + log_total, mass, queries),
        top1_weight=jnp.where(whole > 0, 1 / whole, jnp.nan),  # of one sample: counts are in its log weight
        top1_index=shards.min(jnp.where(own_peak == highest, total.index, NO_SAMPLE)),
        entropy=jnp.maximum(jnp.log(whole) - log / whole, 0),
        effective_samples=whole**2 / square,
        variance=second / whole,
        error_bound=jnp.zeros(pivots.shape[0], jnp.float64),
        log_total=log_total,
        pivot=jnp.full(pivots.shape[0], NO_SAMPLE, jnp.int32),
        keeps_rest=no,
        unsettled=no,
    )


def from_differences(queries: CentredQueries, pivot: Int[Array, " B"], samples: Samples, full: bool, shards: Shards) -> RefinedMoments:
    """Exact moments of a few queries, all with σ > 0: see the head of this file.

    Args:
      pivot: `[B]` position of the heaviest sample of each query, or one nearly as heavy, on this shard.
      full: keep all moments; False: only what the velocity needs.
    """
    moments = moments_of_sums(*_sums(queries, pivot, jnp.zeros_like(queries.x), samples), samples, shards)
    return moments if full else moments.velocity_only()


def _sums(
    queries: CentredQueries, pivot: Int[Array, " B"], vectors: Float[Array, "B D"], samples: Samples
) -> tuple[Sums, CentredQueries, Float[Array, "B D"]]:
    pivots = pivots_of(samples, pivot)
    start = no_sums(pivots.shape[:1], samples.d)
    size = max(1, min(samples.n, BLOCK // samples.d))
    return add_samples(start, queries, pivots, vectors, samples, size), queries, pivots


def covariance_from_differences(
    queries: CentredQueries, pivot: Int[Array, " B"], vectors: Float[Array, "B D"], samples: Samples, shards: Shards
) -> Float[Array, "B D"]:
    """`Cov[y | x] v` of a few queries, from differences as in `from_differences`."""
    total, _, pivots = _sums(queries, pivot, vectors, samples)
    moments = moments_of_sums(total, queries, pivots, samples, shards)
    common = in_common(queries, pivots, jnp.zeros(pivots.shape[0], jnp.float64), ~jnp.isneginf(total.peak), samples, shards)
    scale = jnp.where(jnp.isneginf(total.peak), 0, jnp.exp(total.peak + common.fall - moments.log_total))
    apart = moments.denoised - (pivots - to64(samples.center))
    # Σ w (g - a) ((g - a)·v), g = y - p and a = E[y | x] - p
    along_mean = jnp.sum(apart * vectors, axis=1)
    along_away = jnp.sum(total.away * vectors, axis=1)
    product = total.along - apart * along_away[:, None] - total.away * along_mean[:, None]
    product += apart * (total.weight * along_mean)[:, None]
    (whole,) = shards.sum(scale[:, None] * product)
    return whole
