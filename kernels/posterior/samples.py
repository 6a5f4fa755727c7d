"""A data set, prepared once for many posteriors: its centre, its norms, its prior weights."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from kernels.double import float64_scope, to32, to64


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Samples:
    """`N` samples as every implementation reads them.

    `values` stay in the caller's dtype (float32, bfloat16 or uint8: each converts to float32 without rounding) and are the
    only array of size N·D. Distances are taken about `center`, the data's mean: the query is moved there in float64 and the
    norms are about it, while `values` enter the matmul as they are. Only where the data lie far from the origin, so that
    their own norm would drown the differences (`shifted`), are blocks moved on the fly as well.
    """

    values: Num[Array, "N D"]
    center: Float[Array, " D"]
    square_norms: Float[Array, " N"]
    """‖y_i - center‖²."""
    log_prior: Float[Array, " N"] | None
    """log of how often each sample counts; None: once each."""
    labels: Int[Array, " N"] | None
    shifted: bool = dataclasses.field(metadata={"static": True})

    @property
    def n(self) -> int:
        return self.values.shape[0]

    @property
    def d(self) -> int:
        return self.values.shape[1]


@jax.jit
def _statistics(values: Num[Array, "N D"]) -> tuple[Array, Array, Array]:
    """Centre, square norms about it, and ‖centre‖² over the mean square norm; accumulated in float64 block by block."""
    n, d = values.shape
    block = max(1, min(n, 2**21 // d))
    with float64_scope():
        starts = jnp.arange(0, n, block, dtype=jnp.int32)

        def rows(start: Array) -> tuple[Array, Array]:
            """A block of rows in float64, and which of them no block before has held (the last one is moved back to fit)."""
            first = jnp.minimum(start, n - block)
            return to64(jax.lax.dynamic_slice_in_dim(values, first, block)), first + jnp.arange(block, dtype=jnp.int32) >= start

        def add(total: Array, start: Array) -> tuple[Array, None]:
            block_rows, fresh = rows(start)
            return total + to64(fresh) @ block_rows, None

        center = to32(jax.lax.scan(add, jnp.zeros(d, jnp.float64), starts)[0] / n)

        def norms_of(norms: Array, start: Array) -> tuple[Array, None]:
            block_rows, _ = rows(start)
            square = to32(jnp.sum((block_rows - to64(center)) ** 2, axis=1))
            return jax.lax.dynamic_update_slice_in_dim(norms, square, jnp.minimum(start, n - block), 0), None

        norms, _ = jax.lax.scan(norms_of, jnp.zeros(n, jnp.float32), starts)
        ratio = jnp.sum(to64(center) ** 2) / jnp.maximum(jnp.mean(to64(norms)), 1e-300)
        return center, norms, to32(jnp.minimum(ratio, 1e30))


def prepare(
    data: Num[Array, "N D"], labels: Int[Array, " N"] | None = None, counts: Num[Array, " N"] | None = None, shift: bool | None = None
) -> Samples:
    """Prepare `data` for `posterior`: one pass over it, in float64.

    Args:
      data: `[N, D]`, float32, bfloat16 or uint8.
      labels: `[N]` integers, or None.
      counts: `[N]` positive: how often each sample counts; None: once each.
      shift: move blocks to the centre on the fly. Default: where ‖centre‖² exceeds 4 times the mean ‖y - centre‖², and always
        under tracing, where that cannot be known.
    """
    center, norms, ratio = _statistics(data)
    if shift is None:
        shift = True if isinstance(ratio, jax.core.Tracer) else bool(ratio > 4)
    log_prior = None if counts is None else jnp.log(counts.astype(jnp.float32))
    return Samples(data, center, norms, log_prior, labels, shift)
