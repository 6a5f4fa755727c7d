"""Sampling resumed from noised samples: a model continues from α_t x_1 + σ_t x_0 of given originals; and how faithful it is to them."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from flowjax.analysis.hybrid import Steps, followed_from
from flowjax.analysis.statistics import Share, share
from flowjax.fields import Field
from flowjax.metrics.copying import Nearest, nearest
from flowjax.metrics.neighbours import NeighbourSearch
from flowjax.path import Path
from flowjax.sampling import EULER, Solver, in_batches


class Originals(NamedTuple):
    """Samples to resume from, each with its noise."""

    x_1: Float[np.ndarray, "B *shape"]
    x_0: Float[np.ndarray, "B *shape"]
    label: Int[np.ndarray, " B"] | None = None


def resumed_samples(
    model: Field,
    path: Path,
    originals: Originals,
    steps: Steps,
    *,
    solver: Solver = EULER,
    batch_size: int = 256,
    progress: Callable[[Iterable[float]], Iterable[float]] = iter,
) -> Float[np.ndarray, "S B *shape"]:
    """Where a model leads from `α_t x_1 + σ_t x_0`, for each t_switch t: from pure noise at 0, from the original itself at 1.

    References:
      arXiv 2512.02826, project page, Fig. 6.
    """
    x_1, x_0 = jnp.asarray(originals.x_1, jnp.float32), jnp.asarray(originals.x_0, jnp.float32)

    def at(switch: float) -> np.ndarray:
        noised = np.asarray(path.interpolate(x_0, x_1, steps.t[steps.done(switch)]))
        program = followed_from(model, steps, switch, solver)
        return np.concatenate(list(in_batches(program, noised, originals.label, min(batch_size, len(noised)))))

    return np.stack([at(float(switch)) for switch in progress(steps.t_switch.tolist())])


class Faithful(NamedTuple):
    """Distances of resumed samples from their originals and from the training set, over the mean distance of held-out samples from their
    nearest training sample: 1 is as far as unseen data are."""

    own: Float[np.ndarray, "S B"]
    """To the original."""
    other: Float[np.ndarray, "S B"]
    """To the nearest training sample that is not the original itself."""
    row: Int[np.ndarray, "S B"]
    """The nearest training sample."""
    copies: Bool[np.ndarray, "S B"]
    """Whether each is a copy of a training sample: `Nearest.below_a_third`."""

    @property
    def kept(self) -> Bool[np.ndarray, "S B"]:
        """Whether the original is nearer than any other training sample."""
        return self.own < self.other

    def shares(self) -> list[Share]:
        """The share of `kept` for each t_switch."""
        return [share(row) for row in self.kept]


class Baseline(NamedTuple):
    """The unit of distances, and how often held-out samples look like copies."""

    unit: float
    copies: Share


def baseline_of(look: NeighbourSearch, heldout: Float[np.ndarray, "M *shape"]) -> Baseline:
    """Of samples that were not trained on."""
    found = nearest(look, _flat(heldout))
    return Baseline(float(found.distance.mean()), share(found.below_a_third))


def faithfulness(
    samples: Float[np.ndarray, "S B *shape"],
    originals: Float[np.ndarray, "B *shape"],
    look: NeighbourSearch,
    unit: float,
    own_row: Int[np.ndarray, " B"] | None = None,
) -> Faithful:
    """Measure resumed samples.

    Args:
      look: of the training set.
      unit: of `baseline_of`.
      own_row: rows of the originals in the training set, where they are of it.
    """
    flat = np.asarray(originals, np.float64).reshape(len(originals), -1)
    own, found = [], list[Nearest]()
    for part in samples:
        own.append(np.sqrt(((np.asarray(part, np.float64).reshape(len(flat), -1) - flat) ** 2).sum(1)))
        found.append(nearest(look, _flat(part)))
    row = np.stack([near.row for near in found])
    first = np.stack([near.distance for near in found])
    second = np.stack([near.second for near in found])
    other = first if own_row is None else np.where(row == own_row, second, first)
    return Faithful(np.stack(own) / unit, other / unit, row, np.stack([near.below_a_third for near in found]))


def _flat(samples: Float[np.ndarray, "B *shape"]) -> Float[np.ndarray, "B D"]:
    return np.asarray(samples, np.float32).reshape(len(samples), -1)
