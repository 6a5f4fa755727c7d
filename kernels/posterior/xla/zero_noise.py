"""The posterior in the limit σ → 0: all weight on the nearest sample, equal ones sharing it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kernels.float64 import to64
from kernels.posterior.distributed.collectives import Shards
from kernels.posterior.partial import NO_SAMPLE
from kernels.posterior.types import CentredQueries, Samples
from kernels.posterior.xla.refine import RefinedMoments

TIE = 1e-13
"""Squared distances that differ by less than this share are equal: the rounding of a float64 sum."""


def nearest(queries: CentredQueries, samples: Samples, full: bool, shards: Shards) -> RefinedMoments:
    """The σ → 0 posterior, one query at a time, from float64 differences. Used at t = 1 only, so it is simple rather than fast."""
    rows_at_once = max(1, min(samples.n, 2**20 // samples.d))
    center = to64(samples.center)
    no, nobody, infinite = jnp.asarray(False), jnp.asarray(NO_SAMPLE, jnp.int32), jnp.asarray(jnp.inf, jnp.float64)
    index = jnp.arange(samples.n, dtype=jnp.int32) if samples.index is None else samples.index
    prior = jnp.ones(samples.n) if samples.log_prior is None else jnp.exp(to64(samples.log_prior))

    def one(query: tuple[Array, Array, Array]) -> RefinedMoments:
        x, alpha, label = query
        distance = jax.lax.map(lambda y: jnp.sum((x - alpha * to64(y)) ** 2), samples.values, batch_size=rows_at_once)
        counts = prior > 0 if samples.labels is None else (prior > 0) & ((samples.labels == label) | (label == -1))
        distance = jnp.where(counts, distance, jnp.inf)
        shortest = shards.min(distance.min())
        tied: Bool[Array, " N"] = counts & (distance <= shortest * (1 + TIE))
        mine = jnp.where(tied, prior, 0)
        moment = _weighted_sum(mine, samples, rows_at_once) - jnp.sum(mine) * center
        means, totals = shards.mean(moment[None], jnp.sum(mine)[None], jnp.sqrt(samples.largest))
        mean, weights = means[0], mine / totals[0]
        if not full:
            return RefinedMoments(denoised=mean, log_total=infinite, pivot=nobody, keeps_rest=no, unsettled=no)
        deviation = jax.lax.map(lambda y: jnp.sum((to64(y) - center - mean) ** 2), samples.values, batch_size=rows_at_once)
        variance, square, entropy = shards.sum(
            jnp.sum(weights * deviation), jnp.sum(weights**2), -jnp.sum(jax.scipy.special.xlogy(weights, weights))
        )
        heaviest = shards.max(weights.max())
        return RefinedMoments(
            denoised=mean,
            log_density=jnp.where(shortest > 0, -infinite, infinite),
            top1_weight=heaviest,
            top1_index=shards.min(jnp.where(shards.rounded(weights) == heaviest, index, NO_SAMPLE).min()),
            entropy=entropy,
            effective_samples=1 / square,
            variance=variance,
            error_bound=jnp.zeros((), jnp.float64),
            log_total=infinite,
            pivot=nobody,
            keeps_rest=no,
            unsettled=no,
        )

    return jax.lax.map(one, (queries.x, queries.alpha, queries.label))


def _weighted_sum(weights: Float[Array, " N"], samples: Samples, rows_at_once: int) -> Float[Array, " D"]:
    starts = jnp.arange(0, samples.n, rows_at_once, dtype=jnp.int32)

    def add(total: Array, start: Array) -> tuple[Array, None]:
        first = jnp.minimum(start, samples.n - rows_at_once)
        index = first + jnp.arange(rows_at_once, dtype=jnp.int32)
        rows = to64(jax.lax.dynamic_slice_in_dim(samples.values, first, rows_at_once))
        return total + jnp.where(index >= start, weights[index], 0) @ rows, None

    return jax.lax.scan(add, jnp.zeros(samples.d, jnp.float64), starts)[0]
