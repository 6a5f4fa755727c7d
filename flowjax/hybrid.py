"""Hybrid sampling: along the oracle until t_switch, then along a model; and how much of the training set comes back."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from flowjax.fields import Field, staged
from flowjax.metrics.memorization import Nearest, NearestSamples, Share, share
from flowjax.sampling import EULER, Solver, in_batches, sample


class Hybrid(NamedTuple):
    """Samples for each t_switch, from the same noise and labels."""

    t_switch: Float[np.ndarray, " S"]
    samples: Float[np.ndarray, "S B *shape"]
    ends: Float[np.ndarray, "B *shape"]
    """Where the oracle alone arrives."""


def checked_switches(t_switch: ArrayLike) -> Float[np.ndarray, " S"]:
    """Times to switch at.

    Raises:
      ValueError: none, not rising, or outside [0, 1].
    """
    switches = np.asarray(t_switch, np.float64)
    if switches.ndim != 1 or not switches.size or (np.diff(switches) <= 0).any() or not ((switches >= 0) & (switches <= 1)).all():
        raise ValueError(f"t_switch = {switches.tolist()}: expected times in [0, 1], rising")
    return switches


def hybrid_samples(
    oracle: Field,
    model: Field,
    x_0: Float[np.ndarray, "B *shape"],
    t: Float[np.ndarray, " T"],
    t_switch: Float[np.ndarray, " S"],
    label: Int[np.ndarray, " B"] | None = None,
    *,
    solver: Solver = EULER,
    batch_size: int = 256,
    progress: Callable[[Iterable[float]], Iterable[float]] = iter,
) -> Hybrid:
    """Follow the oracle where t < t_switch and the model from there on, for each t_switch: 0 is the model alone, 1 the oracle alone.

    Args:
      t: `[T]` the grid of the solver. Each t_switch should lie on it: a step belongs to the field at its beginning.
      t_switch: `[S]`, in [0, 1], rising.

    Raises:
      ValueError: t_switch that is empty, not rising, or outside [0, 1].

    References:
      arXiv 2512.02826, finding 3.
    """
    switches = checked_switches(t_switch)
    grid = np.asarray(t, np.float32)

    def at(switch: float) -> np.ndarray:
        field = staged([oracle, model], [switch])
        program = lambda x, y: sample(field, x, grid, y, solver=solver)  # noqa: E731
        return np.concatenate(list(in_batches(program, x_0, label, min(batch_size, len(x_0)))))

    samples = [at(float(switch)) for switch in progress(switches.tolist())]
    return Hybrid(switches, np.stack(samples), samples[-1] if switches[-1] == 1 else at(1.0))


class Memorized(NamedTuple):
    """What of the training set comes back, for each t_switch."""

    copies: Bool[np.ndarray, "S B"]
    """Whether each sample is a copy: `Nearest.copies`."""
    nearest: Float[np.ndarray, "S B"]
    """Distance to the nearest training sample, over the mean distance of held-out samples from theirs: 1 is as far as unseen data."""
    own: Float[np.ndarray, "S B"]
    """The same to the training sample at which the oracle, followed to the end, arrives."""
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
    """Measure hybrid samples against the training set, with held-out samples as the baseline."""
    look = NearestSamples(training)
    unseen, own_rows = look(heldout), look(found.ends).row
    unit = float(unseen.distance.mean())
    near: list[Nearest] = [look(samples) for samples in found.samples]
    rows = np.asarray(training, np.float64).reshape(len(training), -1)[own_rows]
    own = [np.sqrt(((np.asarray(samples, np.float64).reshape(len(rows), -1) - rows) ** 2).sum(1)) for samples in found.samples]
    return Memorized(
        np.stack([one.copies for one in near]),
        np.stack([one.distance for one in near]) / unit,
        np.stack(own) / unit,
        np.stack([one.row for one in near]),
        own_rows,
        share(unseen.copies),
    )
