"""A field whose solution is known, a grid, and a small model."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flowjax.models import Architecture, LightningDiT
from flowjax.schedules import uniform_timesteps


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Growth:
    """dx/dt = (rate + label) cos(3t) x: the solution is known."""

    rate: Any

    def __call__(self, x: jax.Array, t: jax.Array, label: jax.Array | None) -> jax.Array:
        rate = self.rate + (jnp.zeros(len(x)) if label is None else label.astype(jnp.float32))
        return rate.reshape(-1, *[1] * (x.ndim - 1)) * jnp.cos(3 * t) * x


ONE = Growth(jnp.float32(1))
TWO = Growth(jnp.float32(2))


def grid(n: int) -> jax.Array:
    return jnp.asarray(uniform_timesteps(n), jnp.float32)


def solve_by_hand(rate: Any, edges: np.ndarray, solver: str = "euler") -> float:
    """In float64, from 1: the last step is Euler's."""

    def slope(t: float, x: float) -> float:
        return rate(t) * np.cos(3 * t) * x

    x = 1.0
    for i, (t, end) in enumerate(itertools.pairwise(edges)):
        h, first = end - t, slope(t, x)
        if solver == "heun" and i < len(edges) - 2:
            x += h * (first + slope(end, x + h * first)) / 2
        elif solver == "midpoint" and i < len(edges) - 2:
            x += h * slope(t + h / 2, x + h / 2 * first)
        else:
            x += h * first
    return x


def small_model() -> LightningDiT:
    """With a last layer that is not all 0, as it is at first."""
    model = LightningDiT(Architecture((4, 4, 1), 2, 1, 16, 2, num_classes=3), rngs=nnx.Rngs(0))
    state = nnx.state(model, nnx.Param)
    rng = np.random.default_rng(0)
    nnx.update(model, jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape) / 4, jnp.float32), state))
    return model
