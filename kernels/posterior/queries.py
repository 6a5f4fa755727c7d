"""Queries, rewritten so that a score is one dot product: what every implementation of the posterior is given."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kernels.float64 import to64
from kernels.posterior.samples import Samples

LARGEST_SCORE = 1e30
"""A score, or a product on the way to it, that float32 surely holds."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Queries:
    """`B` queries of a posterior, in float64 (made and used inside `float64_scope`), in the unit of the samples.

    The score of sample i, `direction · (y_i - center) - curvature · ‖y_i - center‖² + log prior_i`, is its log weight
    `-‖x - α y_i‖² / 2σ² + log prior_i` plus `offset`: the query's own norm has dropped out of what float32 must resolve.
    Rows with σ = 0 have no scores (theirs are all equal); `nearest` answers them.
    """

    x: Float[Array, "B D"]
    alpha: Float[Array, " B"]
    sigma: Float[Array, " B"]
    label: Int[Array, " B"]
    """-1: all samples."""
    velocity_center: Float[Array, " B"]
    """κ in the velocity `A (E[y | x] - κ x)` that the mean is wanted for, and that says how exact it must be."""
    direction: Float[Array, "B D"]
    """(α/σ²)(x - α center)."""
    curvature: Float[Array, " B"]
    """α²/2σ²."""
    offset: Float[Array, " B"]
    """‖x - α center‖² / 2σ²."""

    @classmethod
    def of(cls, x: Array, alpha: Array, sigma: Array, label: Array, samples: Samples, velocity_center: Array | None = None) -> "Queries":
        """From the caller's numbers, in float64: at t = 0.999 scores are 10⁶ times the distances. `velocity_center`: 1/α by default."""
        x, alpha, sigma = to64(x), to64(alpha), to64(sigma)
        if samples.unit is not None:
            x, sigma = x / to64(samples.unit), sigma / to64(samples.unit)
        velocity_center = 1 / jnp.maximum(alpha, 1e-30) if velocity_center is None else to64(velocity_center)
        variance = jnp.where(sigma > 0, sigma, 1) ** 2
        rate = jnp.where(sigma > 0, alpha / variance, 0)
        centred = x - alpha[:, None] * to64(samples.center)
        return cls(
            x=x,
            alpha=alpha,
            sigma=sigma,
            label=label,
            velocity_center=velocity_center,
            direction=rate[:, None] * centred,
            curvature=rate * alpha / 2,
            offset=jnp.sum(centred**2, axis=1) / (2 * variance),
        )

    def fit_float32(self, samples: Samples) -> Bool[Array, " B"]:
        """Whether float32 holds the scores, and the sums on the way to them; not for data that are 10¹² times larger than the noise."""
        reach = jnp.sqrt(to64(samples.largest)) + jnp.sqrt(jnp.sum(to64(samples.center) ** 2))
        size = jnp.sqrt(jnp.sum(self.direction**2, axis=1)) * jnp.maximum(reach, 1) + self.curvature * jnp.maximum(reach**2, 1)
        return size < LARGEST_SCORE

    def where(self, keep: Bool[Array, " B"]) -> "Queries":
        """The same, but with all scores 0 in the other rows."""
        direction, curvature = jnp.where(keep[:, None], self.direction, 0), jnp.where(keep, self.curvature, 0)
        return dataclasses.replace(self, direction=direction, curvature=curvature)
