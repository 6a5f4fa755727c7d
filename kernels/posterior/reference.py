"""The definition, in ten lines: no blocks, no tricks, every difference formed. Slow, and right in float64."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def reference_log_weights(
    queries: Float[Array, "B D"], alpha: Float[Array, " B"], sigma: Float[Array, " B"], data: Float[Array, "N D"]
) -> Float[Array, "B N"]:
    """`log N(x; α y_i, σ² I)` for every query and sample, nats, from explicit differences; in the dtype of its arguments."""
    residual = queries[:, None, :] - alpha[:, None, None] * data[None, :, :]
    variance = sigma[:, None] ** 2
    return -jnp.sum(residual**2, axis=-1) / (2 * variance) - data.shape[1] / 2 * jnp.log(2 * jnp.pi * variance)


def reference(
    queries: Float[Array, "B D"], alpha: Float[Array, " B"], sigma: Float[Array, " B"], data: Float[Array, "N D"]
) -> dict[str, Array]:
    """The posterior's moments as `kernels.posterior.Moments` names them, σ > 0; in the dtype of its arguments.

    `γ_i = softmax_i(-‖x - α y_i‖² / 2σ²)` (arXiv 2512.02826, Theorem 2.1).
    """
    log_weights = reference_log_weights(queries, alpha, sigma, data)
    gamma = jax.nn.softmax(log_weights, axis=-1)
    mean = gamma @ data
    deviations = jnp.sum((data[None] - mean[:, None]) ** 2, axis=-1)
    return {
        "denoised": mean,
        "log_density": jax.nn.logsumexp(log_weights, axis=-1) - jnp.log(jnp.asarray(data.shape[0], data.dtype)),
        "top1_weight": gamma.max(axis=-1),
        "top1_index": gamma.argmax(axis=-1),
        "entropy": -jnp.sum(jax.scipy.special.xlogy(gamma, gamma), axis=-1),
        "effective_samples": 1 / jnp.sum(gamma**2, axis=-1),
        "variance": jnp.sum(gamma * deviations, axis=-1),
    }
