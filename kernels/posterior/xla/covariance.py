"""The posterior covariance times a vector: one more pass over the data, and never a D x D matrix."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kernels.float64 import to64
from kernels.posterior.distributed.collectives import Shards
from kernels.posterior.partial import Partial
from kernels.posterior.settings import BlockSizes
from kernels.posterior.types import CentredQueries, Samples
from kernels.posterior.xla.refine import candidates_of, refine, weighted_sum
from kernels.posterior.xla.streaming import over_blocks, read_block
from kernels.precision import LAX_PRECISION, Precision


def covariance_product(
    queries: CentredQueries,
    vector: Float[Array, "B D"],
    partial: Partial,
    samples: Samples,
    *,
    blocks: BlockSizes,
    precision: Precision,
    shards: Shards,
) -> tuple[Float[Array, "B D"], Bool[Array, " B"], Int[Array, " B"]]:
    """`Cov[y | x] v = Σ γ_i (y_i - ȳ) ((y_i - ȳ)·v)`, which queries this dtype leaves unsettled, and the pivot of each.

    `partial`, of a first pass, holds ȳ and the normaliser of the weights. A second pass sums, in the same dtype. As in `refine`, the
    candidates are taken out of the sum and put back exactly. Over shards it takes the collectives of `refine`, and one of 4·B·D bytes.
    """
    dtype = partial.weight.dtype
    moments = refine(partial, queries, samples, shards)
    mean = moments.denoised.astype(dtype)
    v = vector.astype(dtype)
    some = partial.weight > 0  # a shard may have no sample of a query's class
    log_total = jnp.where(some, partial.peak + jnp.log(jnp.where(some, partial.weight, 1)), 0).astype(dtype)
    lax_precision = LAX_PRECISION[precision]

    def step(total: Array, start: Array) -> Array:
        block = read_block(queries, samples, start, dtype=dtype, blocks=blocks, precision=precision)
        along = jnp.dot(v, block.rows.T, precision=lax_precision) - jnp.sum(v * (block.rows_center + mean), axis=1, keepdims=True)
        gamma = jnp.exp(block.scores - log_total[:, None])
        moment = gamma * along
        return total + jnp.dot(moment, block.rows, precision=lax_precision) - moment.sum(axis=1)[:, None] * (block.rows_center + mean)

    approximate = to64(over_blocks(step, jnp.zeros(v.shape, dtype), queries, samples, blocks))

    top = candidates_of(partial, queries, samples, shards)
    deviation = top.rows - moments.denoised[:, None]
    along = jnp.sum(deviation * vector[:, None], axis=-1)

    def candidates_sum(log_weight: Array, log_norm: Array) -> Array:
        return weighted_sum(jnp.exp(log_weight - log_norm[:, None]) * along, deviation)

    log_rest = to64(log_total) - top.common.frame
    rest = (approximate - candidates_sum(top.approximate, log_rest)) * jnp.exp(log_rest - moments.log_total)[:, None]
    rest_matters = moments.keeps_rest[:, None]
    (product,) = shards.sum(candidates_sum(top.exact, moments.log_total) + jnp.where(rest_matters, rest, 0))
    return product, moments.unsettled, moments.pivot
