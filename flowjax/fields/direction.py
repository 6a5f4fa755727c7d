"""A check that a field points from noise to data: near the data a wrong direction of time or sign is worse than no field."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flowjax.fields.external import ExternalField
from flowjax.fields.field import Field
from flowjax.fields.predictions import PREDICTIONS

AT = (0.5, 0.9)
"""Times at which the field is checked."""
FITS = 0.8
"""Largest error of another direction, as a share of the error of no field, at which it is taken to be the right one."""


class Direction(NamedTuple):
    """Errors of a field's direction, and a remedy; 1 is the error of the best constant, `E[x_1]`."""

    t: tuple[float, ...]
    error: tuple[float, ...]
    """E‖u - (x_1 - x_0)‖² at each t, over that of the best constant. The oracle's is the least there is, and below 1."""
    remedy: str | None
    """The setting that fits; None where the field is right, or no setting that was tried fits."""

    @property
    def wrong(self) -> bool:
        """Whether it is worse than no field at one of the times."""
        return not max(self.error) <= 1  # NaN is wrong, too

    @property
    def sentence(self) -> str:
        """The errors in one line."""
        t, error = max(zip(self.t, self.error, strict=True), key=lambda pair: (np.isnan(pair[1]), pair[1]))
        if not self.wrong:
            return f"the velocity is right in direction: at t = {t:g} its squared error is {error:.2f} of that of no model"
        cause = self.remedy or (
            "no other time=, prediction= or sign fits: is it trained, and on these data in these values (range, normalisation)?"
        )
        return f"the velocity is worse than none: at t = {t:g} its squared error is {error:.2f} times that of no model; {cause}"


def measure_direction(
    field: Field,
    x_1: Float[np.ndarray, "N *shape"],
    label: Int[np.ndarray, " N"] | None = None,
    *,
    num_samples: int = 64,
    seed: int = 0,
) -> Direction:
    """Compare a field with the velocities x_1 - x_0 of pairs of noise and data. If it is worse than a constant, try other settings.

    Args:
      x_1: the data that the field is of; `num_samples` of them are drawn.
      label: their labels, if the field is told them.
    """
    rng = np.random.default_rng([seed, 2])
    chosen = rng.choice(len(x_1), min(num_samples, len(x_1)), replace=False)
    data = np.asarray(x_1[chosen], np.float32)
    told = None if label is None else jnp.asarray(np.asarray(label)[chosen], jnp.int32)
    noise = rng.standard_normal(data.shape, np.float32)
    scale = float(np.mean((data - data.mean(0)) ** 2)) + 1

    def errors(tried: Callable[..., Array]) -> tuple[float, ...]:
        found = []
        for t in AT:
            x = jnp.asarray(np.float32(t) * data + np.float32(1 - t) * noise)
            velocity = np.asarray(tried(x, jnp.float32(t), told), np.float64)
            found.append(float(np.mean((velocity - (data - noise)) ** 2)) / scale)
        return tuple(found)

    own = Direction(AT, errors(field), None)
    if not own.wrong:
        return own
    tried = ((max(errors(other)), remedy) for other, remedy in _others(field))
    fitting = sorted((error, remedy) for error, remedy in tried if error < FITS)
    return own._replace(remedy=fitting[0][1]) if fitting else own


def check_direction(
    field: Field, x_1: Float[np.ndarray, "N *shape"], label: Int[np.ndarray, " N"] | None = None, *, num_samples: int = 64, seed: int = 0
) -> Direction:
    """Measure the direction of a field, and refuse one that is worse than no field.

    Raises:
      ValueError: the velocity is worse than none at t = 0.5 or 0.9; with the time, prediction or sign that fits, if one does.
    """
    found = measure_direction(field, x_1, label, num_samples=num_samples, seed=seed)
    if found.wrong:
        raise ValueError(found.sentence)
    return found


def _others(field: Field) -> Iterator[tuple[Callable[..., Array], str]]:
    """The same model with other settings, and these settings in words."""
    yield _negated(field), "its negative fits: let the model's function return the negative (diffusers' flow models return noise - data)"
    if not isinstance(field, ExternalField):
        yield _reversed(field), "it fits with time reversed: tell the model 1 - t"
        yield _negated(_reversed(field)), "its negative fits with time reversed: it goes from data to noise"
        return
    for time in field.levels.times:
        if time != field.levels.time:
            other = field.told_otherwise(field.prediction, time)
            yield other, f"it fits with time={time!r}"
            yield _negated(other), f"its negative fits with time={time!r}: let the model's function return the negative, too"
    for prediction in PREDICTIONS:
        try:
            other = field.told_otherwise(prediction, field.levels.time)
        except ValueError:  # not defined on this schedule
            continue
        if prediction != field.prediction:
            yield other, f"it fits with prediction={prediction!r}"


def _negated(field: Callable[..., Array]) -> Callable[..., Array]:
    return lambda x, t, label: -field(x, t, label)


def _reversed(field: Callable[..., Array]) -> Callable[..., Array]:
    return lambda x, t, label: field(x, 1 - t, label)
