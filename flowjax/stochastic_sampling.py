"""Sampling along a stochastic differential equation that has the marginals of a flow: noise is added, and removed by later steps."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flowjax.fields import Field, Label
from flowjax.path import Path, RectifiedFlow, expand_like
from flowjax.sampling import checked_edges

DIFFUSIONS: dict[str, Callable[[Array, Path], Array]] = {
    "constant": lambda t, path: jnp.ones_like(t),
    "sigma": lambda t, path: path.sigma(t),
    "linear": lambda t, path: 1 - t,
    "decreasing": lambda t, path: (1 + jnp.cos(jnp.pi * t)) ** 2 / 4,
    "increasing_decreasing": lambda t, path: jnp.sin(jnp.pi * t) ** 2,
}
"""Forms of the diffusion coefficient w_t, as SiT has them; each is bounded on [0, 1]."""


def score_of_velocity(
    velocity: Float[Array, "B *shape"], x: Float[Array, "B *shape"], t: Float[Array, ""], path: Path | None = None
) -> Float[Array, "B *shape"]:
    """∇ log p_t(x) of a velocity field: `(α u - α' x) / (σ (α' σ - α σ'))`, for rectified flow (t u - x) / (1 - t).

    Args:
      path: None: rectified flow.

    References:
      Ma et al. 2024 (SiT), equation 9.
    """
    path = path or RectifiedFlow()
    alpha, sigma, alpha_dot, sigma_dot = (expand_like(part(t), x) for part in (path.alpha, path.sigma, path.alpha_dot, path.sigma_dot))
    return (alpha * velocity - alpha_dot * x) / (sigma * (alpha_dot * sigma - alpha * sigma_dot))


def check_diffusion(diffusion: str, scale: float) -> None:
    """Raise a ValueError unless `diffusion` is the form of a diffusion coefficient and `scale` a factor of it."""
    if diffusion not in DIFFUSIONS:
        raise ValueError(f"diffusion = {diffusion!r}: expected one of {', '.join(DIFFUSIONS)}")
    if not 0 <= scale < float("inf"):
        raise ValueError(f"diffusion scale = {scale}: expected 0, for the flow itself, or more")


def sample_stochastic(
    field: Field,
    x_0: Float[Array, "B *shape"],
    t: Float[Array, " T"],
    label: Label = None,
    *,
    diffusion: str = "sigma",
    scale: float = 1.0,
    seed: int = 0,
    path: Path | None = None,
) -> Float[Array, "B *shape"]:
    """Follow `dx = (u + w_t ∇ log p_t) dt + √(2 w_t) dW` from x_0 at t[0] to t[-1], by Euler-Maruyama; w = 0 is the flow itself.

    For every w the distribution of x at each t is that of the flow; what changes is how errors of the model are carried on. The last step
    is Euler's along u alone, so that no noise is left in the samples.

    Args:
      field: the velocity u; ∇ log p_t follows from it (`score_of_velocity`).
      t: `[T]` the edges of T - 1 steps, rising. The noise that a step adds is to be removed by later ones: the last step should be short.
      diffusion: the form of w_t, one of `DIFFUSIONS`.
      scale: by which it is multiplied, 0 or more.
      seed: of the noise.
      path: None: rectified flow.

    Returns:
      x at t[-1], float32.

    Raises:
      ValueError: an unknown form, a scale below 0; t as in `flowjax.sampling.sample`.

    References:
      Ma et al. 2024 (SiT), section 2.4; Albergo et al. 2023, section 2.
    """
    check_diffusion(diffusion, scale)
    return _followed(field, x_0, checked_edges(t), label, jnp.float32(scale), jax.random.key(seed), diffusion, path or RectifiedFlow())


@functools.partial(jax.jit, static_argnames=("diffusion", "path"))
def _followed(
    field: Field, x_0: Array, t: Array, label: Label, scale: Array, key: Array, diffusion: str, path: Path
) -> Float[Array, "B *shape"]:
    def step(x: Array, at: tuple[Array, Array, Array]) -> tuple[Array, None]:
        time, length, key = at
        weight = scale * DIFFUSIONS[diffusion](time, path)
        velocity = field(x, time, label)
        drift = velocity + weight * score_of_velocity(velocity, x, time, path)
        return x + length * drift + jnp.sqrt(2 * weight * length) * jax.random.normal(key, x.shape, x.dtype), None

    lengths = jnp.diff(t)
    # A scan of its own: diffrax's Brownian paths take several times as long to compile.
    before, _ = jax.lax.scan(step, x_0, (t[:-2], lengths[:-1], jax.random.split(key, len(t) - 2)))
    return before + lengths[-1] * field(before, t[-2], label)
