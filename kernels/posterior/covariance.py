"""The posterior covariance times a vector: one more pass over the data, and never a D x D matrix."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from kernels.double import to64
from kernels.posterior.blocks import LAX_PRECISION, BlockSizes, Precision
from kernels.posterior.queries import Queries
from kernels.posterior.samples import Samples
from kernels.posterior.settle import candidates_of, settle
from kernels.posterior.streaming import block_starts, read_block, streaming


def covariance_product(
    queries: Queries, vector: Float[Array, "B D"], samples: Samples, *, dtype: DTypeLike, blocks: BlockSizes, precision: Precision
) -> tuple[Float[Array, "B D"], Bool[Array, " B"]]:
    """`Cov[y | x] v = Σ γ_i (y_i - ȳ) ((y_i - ȳ)·v)`, and which queries float32 leaves unsettled.

    The first pass finds ȳ and the weights' normaliser, the second sums. As in `settle`, the candidates are taken out of the sum and
    put back exactly.
    """
    partial = streaming(queries, samples, full=True, dtype=dtype, blocks=blocks, precision=precision)
    found = settle(partial, queries, samples)
    mean = found.mean.astype(dtype)
    v = vector.astype(dtype)
    log_total = (partial.peak + jnp.log(partial.weight)).astype(dtype)
    lax_precision = LAX_PRECISION[precision]

    def step(total: Float[Array, "B D"], start: Array) -> tuple[Array, None]:
        block = read_block(queries, samples, start, dtype=dtype, blocks=blocks, precision=precision)
        along = jnp.dot(v, block.rows.T, precision=lax_precision) - jnp.sum(v * (block.rows_center + mean), axis=1, keepdims=True)
        gamma = jnp.exp(block.scores - log_total[:, None])
        moment = gamma * along
        return total + jnp.dot(moment, block.rows, precision=lax_precision) - moment.sum(axis=1)[:, None] * (block.rows_center + mean), None

    approximate = to64(jax.lax.scan(step, jnp.zeros(v.shape, dtype), block_starts(samples, blocks))[0])

    top = candidates_of(partial, queries, samples)
    deviation = top.rows - found.mean[:, None]
    along = jnp.einsum("bkd,bd->bk", deviation, vector)

    def candidates_sum(log_weight: Array, log_norm: Array) -> Array:
        return jnp.einsum("bk,bkd->bd", jnp.exp(log_weight - log_norm[:, None]) * along, deviation)

    rest = (approximate - candidates_sum(top.approximate, to64(log_total))) * jnp.exp(to64(log_total) - found.log_weight)[:, None]
    rest_matters = found.keeps_rest[:, None]
    return candidates_sum(top.exact, found.log_weight) + jnp.where(rest_matters, rest, 0), found.unsettled
