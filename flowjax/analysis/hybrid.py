"""Hybrid sampling: along the oracle until t_switch, then along a model; and the share of training samples that it reproduces."""

import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from flowjax.analysis.statistics import Share, share
from flowjax.fields import Field, staged
from flowjax.metrics.copying import nearest
from flowjax.metrics.neighbours import NeighbourSearch, Rows
from flowjax.sampling import EULER, Solver, in_batches, sample, states
from flowjax.schedules import checked_times


class Hybrid(NamedTuple):
    """Samples for each t_switch, from the same noise and labels."""

    t_switch: Float[np.ndarray, " S"]
    samples: Float[np.ndarray, "S B *shape"]
    ends: Float[np.ndarray, "B *shape"]
    """Samples of the oracle alone."""


def checked_switches(t_switch: ArrayLike) -> Float[np.ndarray, " S"]:
    """Times to switch at.

    Raises:
      ValueError: none, not rising, or outside [0, 1].
    """
    return checked_times(np.asarray(t_switch, np.float64), "t_switch")


class Steps:
    """The grid of a solver, and the times at which hybrids switch.

    Args:
      t: `[T]`, of the solver. Each t_switch should lie on it: a step belongs to the field at its beginning.
      t_switch: `[S]`, in [0, 1], rising.

    Raises:
      ValueError: t_switch that is empty, not rising, or outside [0, 1]; t as in `flowjax.sampling.sample`.
    """

    def __init__(self, t: ArrayLike, t_switch: ArrayLike):
        self.t_switch: Float[np.ndarray, " S"] = checked_switches(t_switch)
        self.t: Float[np.ndarray, " T"] = checked_times(np.asarray(t, np.float32), at_least=2)

    def done(self, switch: float) -> int:
        """The number of steps before t_switch: `t[done]` is where the model begins."""
        return int(np.searchsorted(self.t[:-1], np.float32(switch)))


def followed_from(model: Field, steps: Steps, switch: float, solver: Solver = EULER) -> Callable[[ArrayLike, ArrayLike | None], Array]:
    """The program of (x, label) that follows a model from t_switch to the end, from x at that time; compiled once for all t_switch."""
    done = steps.done(switch)
    edges, field = steps.t.copy(), staged([_STILL, model], [switch])  # in the steps before t_switch there is no velocity
    if done:  # a solver may evaluate the end of the last of these steps, where the model begins: that step is nearly empty
        edges[done - 1] = steps.t[done] - _SHORT
    return lambda x, label: sample(field, x, edges, label, solver=solver)


def hybrid_samples(
    oracle: Field,
    model: Field,
    x_0: Float[np.ndarray, "B *shape"],
    steps: Steps,
    label: Int[np.ndarray, " B"] | None = None,
    *,
    solver: Solver = EULER,
    batch_size: int = 256,
    progress: Callable[[Iterable[float]], Iterable[float]] = iter,
) -> Hybrid:
    """Follow the oracle where t < t_switch and the model from there on, for each t_switch: 0 is the model alone, 1 the oracle alone.

    The oracle is followed to the end once, and left at each t_switch.

    References:
      arXiv 2512.02826, finding 3.
    """
    switches, grid = steps.t_switch, steps.t

    def batched(program: Callable[..., Any], x: np.ndarray) -> np.ndarray:
        return np.concatenate(list(in_batches(program, x, label, min(batch_size, len(x)))))

    followed = batched(lambda x, y: jnp.moveaxis(states(oracle, x, grid, y, solver=solver), 1, 0), x_0)

    def at(switch: float) -> np.ndarray:
        return batched(followed_from(model, steps, switch, solver), followed[:, steps.done(switch)])

    samples = [at(float(switch)) for switch in progress(switches.tolist())]
    return Hybrid(switches, np.stack(samples), followed[:, -1])


_STILL: Field = jax.tree_util.Partial(lambda x, t, label: jnp.zeros_like(x))
"""The velocity 0, over the steps that the oracle has made."""
_SHORT = np.float32(1e-5)


class Memorized(NamedTuple):
    """Reproduction of the training set by samples of each t_switch."""

    copies: Bool[np.ndarray, "S B"]
    """Whether each sample is a copy: `copying.Nearest.below_a_third`."""
    nearest: Float[np.ndarray, "S B"]
    """Distance to the nearest training sample, over the mean distance of held-out samples from theirs: 1 is as far as unseen data."""
    own: Float[np.ndarray, "S B"]
    """The same distance to the training sample at which the oracle, followed to the end, arrives."""
    row: Int[np.ndarray, "S B"]
    """The nearest training sample."""
    own_row: Int[np.ndarray, " B"]
    """The training sample at which the oracle arrives."""
    baseline: Share
    """The share of copies among held-out samples."""

    def shares(self) -> list[Share]:
        """The share of copies for each t_switch."""
        return [share(row) for row in self.copies]


def memorized(
    found: Hybrid,
    training: Float[np.ndarray, "N *shape"],
    heldout: Float[np.ndarray, "M *shape"],
) -> Memorized:
    """Measure hybrid samples against the training set, with held-out samples as the baseline.

    Raises:
      ValueError: as `copying.nearest`.
    """
    sets = [np.asarray(part, np.float32).reshape(len(part), -1) for part in (heldout, found.ends, *found.samples)]
    near = nearest(NeighbourSearch(Rows.of(training)), np.concatenate(sets))
    ends = np.cumsum([0, *map(len, sets)])
    unseen, arrived, *switched = (near.part(slice(*pair)) for pair in itertools.pairwise(ends))
    unit = float(unseen.distance.mean())
    rows = np.asarray(training, np.float64).reshape(len(training), -1)[arrived.row]
    own = [np.sqrt(((samples - rows) ** 2).sum(1)) for samples in sets[2:]]
    return Memorized(
        np.stack([one.below_a_third for one in switched]),
        np.stack([one.distance for one in switched]) / unit,
        np.stack(own) / unit,
        np.stack([one.row for one in switched]),
        arrived.row,
        share(unseen.below_a_third),
    )
