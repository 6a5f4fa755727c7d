"""Queries, rewritten so that a score is one dot product: what every implementation of the posterior is given."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kernels.double import to64
from kernels.posterior.samples import Samples


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Queries:
    """`B` queries of a posterior, in float64 (made and used inside `float64_scope`).

    The score of sample i, `direction · (y_i - center) - curvature · ‖y_i - center‖² + log prior_i`, is its log weight
    `-‖x - α y_i‖² / 2σ² + log prior_i` plus `offset`: the query's own norm has dropped out of what float32 must resolve.
    Rows with σ = 0 have no scores (theirs are all equal); `nearest` answers them.
    """

    x: Float[Array, "B D"]
    alpha: Float[Array, " B"]
    sigma: Float[Array, " B"]
    label: Int[Array, " B"]
    """-1: all samples."""
    still: Float[Array, " B"]
    """κ in the velocity `A (E[y | x] - κ x)` that the mean is wanted for, and that says how exact it must be."""
    direction: Float[Array, "B D"]
    """(α/σ²)(x - α center)."""
    curvature: Float[Array, " B"]
    """α²/2σ²."""
    offset: Float[Array, " B"]
    """‖x - α center‖² / 2σ²."""

    @classmethod
    def of(cls, x: Array, alpha: Array, sigma: Array, label: Array, samples: Samples, still: Array | None = None) -> "Queries":
        """Float64 arithmetic: at t = 0.999 the scores are 10⁶ times the distances. `still` is 1/α, that of the noise, by default."""
        x, alpha, sigma = to64(x), to64(alpha), to64(sigma)
        still = 1 / jnp.maximum(alpha, 1e-30) if still is None else to64(still)
        variance = jnp.where(sigma > 0, sigma, 1) ** 2
        rate = jnp.where(sigma > 0, alpha / variance, 0)
        centred = x - alpha[:, None] * to64(samples.center)
        return cls(
            x=x,
            alpha=alpha,
            sigma=sigma,
            label=label,
            still=still,
            direction=rate[:, None] * centred,
            curvature=rate * alpha / 2,
            offset=jnp.sum(centred**2, axis=1) / (2 * variance),
        )

    def log_weights_of(self, rows: Float[Array, "B k D"], log_prior: Float[Array, "B k"] | float) -> Float[Array, "B k"]:
        """The exact log weights of a few samples of each query, from differences."""
        residual = self.x[:, None] - self.alpha[:, None, None] * rows
        variance = jnp.where(self.sigma > 0, self.sigma, 1) ** 2
        return log_prior - jnp.sum(residual**2, axis=-1) / (2 * variance[:, None])
