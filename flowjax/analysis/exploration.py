"""A few queries followed through t: x_t, where one step along the oracle and along a model leads, and the samples that carry the weight."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from flowjax.analysis.sweep import Pairs
from flowjax.data.dataset import Rows
from flowjax.fields import Field
from flowjax.oracle import Oracle
from flowjax.path import Path

BLOCK = 2**24
"""Numbers of the data that are read at once, in float64."""


class Heaviest(NamedTuple):
    """The K heaviest samples of Q queries at T times, the heaviest first; equal weights in the order of the samples."""

    sample: Int[np.ndarray, "T Q K"]
    weight: Float[np.ndarray, "T Q K"]
    """γ, float64; 0 where a class has fewer than K samples."""


def heaviest_samples(
    data: Rows,
    pairs: Pairs,
    t: Float[np.ndarray, " T"],
    k: int,
    *,
    labels: Int[np.ndarray, " N"] | None = None,
    counts: Float[np.ndarray, " N"] | None = None,
    path: Path,
) -> Heaviest:
    """The samples that carry the posterior weight of x_t = α x_1 + σ x_0, and how much of it each has.

    With ρ = α/σ the score of a sample y is `ρ² (x_1·y - ½‖y‖²) + ρ x_0·y`, plus the logarithm of its count: two products with the data,
    whatever t. Computed in float64, for a few queries: 16 bytes a sample are held for each.

    Args:
      data: `[N, *shape]`, read in blocks.
      pairs: Q pairs; with labels, each query competes within its own class.
      t: times in [0, 1).
      k: how many samples.
      labels: `[N]`, needed where the pairs have labels.
      counts: `[N]`, how often each sample counts; None: once.
    """
    n, num = data.shape[0], len(pairs.x_0)
    x_0, x_1 = (np.asarray(part, np.float64).reshape(num, -1) for part in (pairs.x_0, pairs.x_1))
    ours, noise = np.empty((num, n)), np.empty((num, n))  # x_1·y - ½‖y‖², x_0·y
    rows = max(1, BLOCK // x_0.shape[1])
    for start in range(0, n, rows):
        block = np.arange(start, min(start + rows, n))
        y = np.asarray(data[block]).reshape(len(block), -1).astype(np.float64)
        ours[:, block] = x_1 @ y.T - 0.5 * (y * y).sum(1)
        noise[:, block] = x_0 @ y.T
    prior = np.zeros(n) if counts is None else np.log(counts)
    ratio = np.asarray(path.alpha(t), np.float64) / np.asarray(path.sigma(t), np.float64)
    index, weight = np.zeros((len(ratio), num, k), np.int64), np.zeros((len(ratio), num, k))
    for q in range(num):
        own = np.arange(n) if pairs.labels is None or labels is None else np.flatnonzero(labels == int(pairs.labels[q]))
        for i, rho in enumerate(ratio):
            scores = rho**2 * ours[q, own] + rho * noise[q, own] + prior[own]
            first = _largest(scores, k)
            index[i, q, : len(first)] = own[first]
            weight[i, q, : len(first)] = np.exp(scores[first] - logsumexp(scores))
    return Heaviest(index, weight)


def _largest(scores: Float[np.ndarray, " M"], k: int) -> Int[np.ndarray, " _"]:
    """Where the k largest are, or all, the largest first; equal ones in their order."""
    least = -np.inf if len(scores) <= k else np.partition(scores, len(scores) - k)[len(scores) - k]
    some = np.flatnonzero(scores >= least)
    return some[np.argsort(-scores[some], kind="stable")][:k]


@dataclasses.dataclass(frozen=True)
class Exploration:
    """Q queries at T times.

    Attributes:
      t: the times.
      pairs: what the queries are made of.
      x_t: the queries.
      one_step: where one Euler step from t to 1 leads, `x_t + (1 - t) u(x_t, t)`: "oracle", and "model" if there is one.
      heaviest: the samples of the oracle that carry the weight.
      effective_samples: 1 / Σ γ².
    """

    t: Float[np.ndarray, " T"]
    pairs: Pairs
    x_t: Float[np.ndarray, "T Q *shape"]
    one_step: dict[str, Float[np.ndarray, "T Q *shape"]]
    heaviest: Heaviest
    effective_samples: Float[np.ndarray, "T Q"]


def explore(oracle: Oracle, pairs: Pairs, t: Float[np.ndarray, " T"], k: int, field: Field | None = None) -> Exploration:
    """Follow a few queries through t.

    Args:
      oracle: in memory. Where the pairs have labels, it has too.
      pairs: as `draw_pairs` or `shown_pairs` makes them.
      t: times in [0, 1).
      k: how many of the heaviest samples to find.
      field: of a model, to step along too.
    """
    labels = None if oracle.labels is None else np.asarray(oracle.labels)
    counts = None if oracle.counts is None else np.asarray(oracle.counts, np.float64)
    heaviest = heaviest_samples(np.asarray(oracle.data), pairs, t, k, labels=labels, counts=counts, path=oracle.path)
    along = None if field is None else jax.jit(lambda field, x, t, label: field(x, t, label))
    x_t, steps, effective = [], dict[str, list[np.ndarray]](oracle=[]) | ({} if field is None else {"model": []}), []
    for time in jnp.asarray(t, jnp.float32):
        x = oracle.path.interpolate(pairs.x_0, pairs.x_1, time)
        out = oracle(x, time, pairs.labels)
        assert out.effective_samples is not None
        velocities: dict[str, Any] = {"oracle": out.velocity} | ({} if along is None else {"model": along(field, x, time, pairs.labels)})
        x_t.append(np.asarray(x))
        effective.append(np.asarray(out.effective_samples, np.float64))
        for name, velocity in velocities.items():
            steps[name].append(np.asarray(x + (1 - time) * velocity))
    return Exploration(
        np.asarray(t, np.float64),
        pairs,
        np.stack(x_t),
        {name: np.stack(step) for name, step in steps.items()},
        heaviest,
        np.stack(effective),
    )


def shown_pairs(
    samples: Rows, num: int, seed: int, *, labels: Int[np.ndarray, " N"] | None = None, classes: Sequence[int] = (), condition: bool = True
) -> tuple[Pairs, Int[np.ndarray, " Q"]]:
    """Pairs to look at, the classes by turns; and the rows of the samples that they are made of.

    Args:
      samples: `[N, *shape]`.
      num: how many pairs.
      seed: of the samples and of the noise.
      labels: `[N]`, or None: then samples are drawn from all of them.
      classes: those to show; empty: all.
      condition: keep the labels in the pairs.

    Raises:
      ValueError: num is below 1; a class without samples; classes where there are no labels.
    """
    if num < 1:
        raise ValueError(f"num_shown = {num}: expected at least 1")
    if labels is None:
        if len(classes):
            raise ValueError(f"classes = {tuple(classes)}: the data have no labels; leave classes empty, or give the data's labels")
        of_class = {0: np.arange(samples.shape[0])}
    else:
        of_class = {int(label): np.flatnonzero(labels == label) for label in (classes or np.unique(labels))}
        empty = [label for label, rows in of_class.items() if not len(rows)]
        if empty:
            raise ValueError(f"classes = {tuple(classes)}: the data have no samples of class {empty[0]}")
    rng = np.random.default_rng(seed)
    order = {label: rng.permutation(rows) for label, rows in of_class.items()}
    names = rng.permutation(sorted(order))[:num] if not len(classes) and len(order) > num else np.array(list(order))
    turns = (order[int(names[i % len(names)])][(i // len(names)) % len(order[int(names[i % len(names)])])] for i in range(num))
    rows = np.sort(np.fromiter(turns, np.int64, num)) if labels is None else _by_class(np.fromiter(turns, np.int64, num), labels)
    x_1 = np.asarray(samples[rows]).astype(np.float32)
    x_0 = rng.standard_normal(x_1.shape, np.float32)
    told = jnp.asarray(labels[rows], jnp.int32) if condition and labels is not None else None
    return Pairs(jnp.asarray(x_0), jnp.asarray(x_1), told), rows


def _by_class(rows: Int[np.ndarray, " Q"], labels: Int[np.ndarray, " N"]) -> Int[np.ndarray, " Q"]:
    return rows[np.lexsort((rows, labels[rows]))]
