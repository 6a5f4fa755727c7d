"""An oracle followed through time: the same pairs of noise and data at every t, and what the posterior says of each."""

import dataclasses
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from flowjax.oracle import Oracle

COLUMNS = ("top1_weight", "cfm_gap", "monte_carlo_gap", "entropy", "effective_samples")
"""What a sweep keeps for each pair and t: fields of `OracleOutput`, and `monte_carlo_gap` = ‖u_cond - u*‖² of the pair itself."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pairs:
    """Q pairs of noise and data; each gives one query x_t = α x_1 + σ x_0 at every t."""

    x_0: Float[Array, "Q *shape"]
    x_1: Float[Array, "Q *shape"]
    labels: Int[Array, " Q"] | None
    """The class that the oracle is conditioned on for each pair; None: on nothing."""


def draw_pairs(
    samples: ArrayLike, num: int, seed: int, *, labels: ArrayLike | None = None, counts: ArrayLike | None = None, exhaust: bool = False
) -> Pairs:
    """`num` pairs: x_1 drawn uniformly from the samples, x_0 ~ N(0, I).

    Args:
      samples: `[M, *shape]`.
      seed: of both draws.
      labels: `[M]`: keep each sample's label, to condition on; None: do not condition.
      counts: `[M]`: draw in proportion to these instead of uniformly.
      exhaust: draw without replacement as long as there are samples left: for sets given to be looked at, not sampled from.

    Raises:
      ValueError: num is below 1.
    """
    if num < 1:
        raise ValueError(f"the number of queries must be at least 1, got {num}")
    samples = jnp.asarray(samples)
    index_key, noise_key = jax.random.split(jax.random.key(seed))
    if exhaust:
        rounds = -(-num // len(samples))
        index = jnp.concatenate([jax.random.permutation(key, len(samples)) for key in jax.random.split(index_key, rounds)])[:num]
    else:
        p = None if counts is None else jnp.asarray(counts, jnp.float32) / jnp.asarray(counts, jnp.float32).sum()
        index = jax.random.choice(index_key, len(samples), (num,), p=p)
    x_1 = samples[index].astype(jnp.float32)
    chosen = None if labels is None else jnp.asarray(labels)[index].astype(jnp.int32)
    return Pairs(jax.random.normal(noise_key, x_1.shape), x_1, chosen)


def sweep(
    oracle: Oracle, pairs: Pairs, t: ArrayLike, *, progress: Callable[[Iterable[float]], Iterable[float]] = iter
) -> dict[str, Float[np.ndarray, "T Q"]]:
    """`COLUMNS` of every pair at every t.

    One program, compiled once, is called for each t, so a long sweep can report its progress.

    Args:
      t: `[T]` times in [0, 1).
      progress: wraps the iterator over t (`tqdm.tqdm`, for one).

    Returns:
      A float64 array `[T, Q]` for each name in `COLUMNS`.
    """
    rows = [_at(oracle, pairs, jnp.float32(time)) for time in progress([float(time) for time in np.asarray(t)])]
    return {name: np.stack([np.asarray(row[name], np.float64) for row in rows]) for name in COLUMNS}


@jax.jit
def _at(oracle: Oracle, pairs: Pairs, t: Float[Array, ""]) -> dict[str, Float[Array, " Q"]]:
    out = oracle(oracle.path.interpolate(pairs.x_0, pairs.x_1, t), t, pairs.labels)
    off = out.velocity - oracle.path.conditional_velocity(pairs.x_0, pairs.x_1, t)
    known = {name: getattr(out, name) for name in COLUMNS if name != "monte_carlo_gap"}
    return known | {"monte_carlo_gap": jnp.sum(off.reshape(len(off), -1) ** 2, axis=1)}


def one_step(oracle: Oracle, pairs: Pairs, t: ArrayLike) -> tuple[Float[np.ndarray, "Q T *shape"], Float[np.ndarray, "Q T *shape"]]:
    """Queries x_t, and where one Euler step from t to 1 along the oracle leads: `x_t + (1 - t) u*(x_t, t)`.

    For rectified flow that is E[x_1 | x_t] itself: the class mean at t = 0, a single sample late (arXiv 2512.02826, finding 4).
    """
    seen = [_one_step(oracle, pairs, jnp.float32(time)) for time in np.asarray(t)]
    queries, predictions = (np.stack([np.asarray(row[part]) for row in seen], axis=1) for part in (0, 1))
    return queries, predictions


@jax.jit
def _one_step(oracle: Oracle, pairs: Pairs, t: Float[Array, ""]) -> tuple[Array, Array]:
    x_t = oracle.path.interpolate(pairs.x_0, pairs.x_1, t)
    return x_t, x_t + (1 - t) * oracle(x_t, t, pairs.labels, moments="velocity").velocity
