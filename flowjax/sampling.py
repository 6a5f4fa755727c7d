"""From noise to data along a velocity field."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Field = Callable[[Array, Array, Array | None], Array]


def heun(
    field: Field, x_0: Float[Array, "B *shape"], t: Float[Array, " T"], label: Int[Array, " B"] | None = None
) -> Float[Array, "B *shape"]:
    """Integrate `dx/dt = field(x, t, label)` by Heun's method, of second order; the last step is Euler's: t[-1] is never evaluated.

    Args:
      field: takes x `[B, *shape]`, t `[B]`, label.
      x_0: where to start.
      t: `[T]` the edges of T - 1 steps, rising.

    Returns:
      x at t[-1].
    """

    def at(x: Array, time: Array) -> Array:
        return field(x, jnp.full(len(x), time), label)

    def step(x: Array, edges: tuple[Array, Array]) -> tuple[Array, None]:
        start, end = edges
        slope = at(x, start)
        return x + (end - start) * (slope + at(x + (end - start) * slope, end)) / 2, None

    x, _ = jax.lax.scan(step, x_0, (t[:-2], t[1:-1]))
    return x + (t[-1] - t[-2]) * at(x, t[-2])
