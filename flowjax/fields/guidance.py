"""Guidance: a field pushed away from a weaker one, by class or by model, and the interval in which it is pushed."""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flowjax.fields.field import Field, Label
from flowjax.path import Path

Channels = Literal["all"] | int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Guided:
    """Classifier-free guidance `u(x, t, ∅) + w (u(x, t, y) - u(x, t, ∅))` where `t_low <= t < t_high`, and u(x, t, y) elsewhere.

    Made by `guided`. Where it is not guided the field is evaluated once.

    References:
      Ho and Salimans 2022; the interval: Kynkäänniemi et al. 2024; arXiv 2512.02826, Table 3.
    """

    field: Field
    scale: Float[Array, ""]
    interval: Float[Array, "2"]
    channels: Channels = dataclasses.field(metadata={"static": True})

    def __call__(self, x: Float[Array, "B *shape"], t: Float[Array, ""], label: Label) -> Float[Array, "B *shape"]:
        def guide(x: Array, t: Array, label: Array) -> Array:
            conditional, unconditional = self.field(x, t, label), self.field(x, t, None)
            pushed = unconditional + self.scale * (conditional - unconditional)
            if self.channels == "all":
                return pushed
            return jnp.concatenate([pushed[..., : self.channels], conditional[..., self.channels :]], axis=-1)

        if label is None:
            raise ValueError("guidance needs labels: a field that is conditioned on nothing cannot be pushed towards anything")
        inside = (t >= self.interval[0]) & (t < self.interval[1])
        return jax.lax.cond(inside, guide, lambda *at: self.field(*at), x, t, label)


def guided(field: Field, scale: float, interval: tuple[float, float] = (0.0, 1.0), channels: Channels = "all") -> Guided:
    """A guided field.

    Args:
      scale: w; 1 changes nothing.
      interval: (t_low, t_high), in t; `convert_interval` makes it of σ or log-SNR.
      channels: how many of the first channels are guided, or "all". LightningDiT's own sampler guides 3, whatever their number.

    Raises:
      ValueError: a scale that is not finite; an interval that is empty, reversed or outside [0, 1]; channels below 1.
    """
    _check(scale, interval)
    if channels != "all" and (isinstance(channels, bool) or not isinstance(channels, int) or channels < 1):
        raise ValueError(f"guidance channels = {channels!r}: expected 'all' or how many of the first ones, at least 1")
    return Guided(field, jnp.float32(scale), jnp.asarray(interval, jnp.float32), channels)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AutoGuided:
    """Autoguidance `u_weak + w (u - u_weak)` where `t_low <= t < t_high`, and u elsewhere. Made by `autoguided`.

    The weaker model is told the same label: what is pushed away from is its lack of capacity or training, not another class.

    References:
      Karras et al. 2024, Guiding a diffusion model with a bad version of itself, equation 3.
    """

    field: Field
    weaker: Field
    scale: Float[Array, ""]
    interval: Float[Array, "2"]

    def __call__(self, x: Float[Array, "B *shape"], t: Float[Array, ""], label: Label) -> Float[Array, "B *shape"]:
        def guide(x: Array, t: Array, label: Label) -> Array:
            weak = self.weaker(x, t, label)
            return weak + self.scale * (self.field(x, t, label) - weak)

        inside = (t >= self.interval[0]) & (t < self.interval[1])
        return jax.lax.cond(inside, guide, lambda *at: self.field(*at), x, t, label)


def autoguided(field: Field, weaker: Field, scale: float, interval: tuple[float, float] = (0.0, 1.0)) -> AutoGuided:
    """A field guided by a weaker one of the same data: a smaller model, or the same one earlier in its training.

    Args:
      scale: w; 1 changes nothing.
      interval: (t_low, t_high), in t.

    Raises:
      ValueError: a scale that is not finite; an interval that is empty, reversed or outside [0, 1].
    """
    _check(scale, interval)
    return AutoGuided(field, weaker, jnp.float32(scale), jnp.asarray(interval, jnp.float32))


def _check(scale: float, interval: tuple[float, float]) -> None:
    low, high = interval
    if not math.isfinite(scale):
        raise ValueError(f"guidance scale = {scale}: expected a finite number; 1 is no guidance")
    if not 0 <= low < high <= 1:
        raise ValueError(f"guidance interval = [{low}, {high}]: expected 0 <= t_low < t_high <= 1; for no guidance set the scale to 1")


COORDINATES = ("t", "sigma", "log_snr")


def convert_interval(interval: tuple[float, float], source: str, target: str, path: Path) -> tuple[float, float]:
    """An interval of noise levels in another coordinate, low end first.

    `t`; `sigma` = σ_t / α_t, the noise of EDM's convention, which falls as t rises; `log_snr` = log(α_t² / σ_t²), which rises with it.

    Raises:
      ValueError: an unknown coordinate; an interval that is empty or reversed, or lies outside the coordinate's range.
    """
    for name in (source, target):
        if name not in COORDINATES:
            raise ValueError(f"coordinate {name!r}: expected one of {', '.join(COORDINATES)}")
    low, high = (float(end) for end in interval)
    if not low < high:
        raise ValueError(f"interval in {source} = [{low}, {high}]: expected its lower end first, and not empty")
    if (source != "log_snr" and low < 0) or (source == "t" and high > 1):
        raise ValueError(f"interval in {source} = [{low}, {high}]: expected {'times in [0, 1]' if source == 't' else 'noise of 0 or more'}")
    times = [_time(end, source, path) for end in (low, high)]
    ends = [_coordinate(time, target, path) for time in times] if source != target else [low, high]
    return min(ends), max(ends)


def _time(value: float, coordinate: str, path: Path) -> float:
    if coordinate == "t":
        return value
    with np.errstate(divide="ignore"):
        log_snr = value if coordinate == "log_snr" else float(-2 * np.log(value))
    return float(path.time_of_log_snr(jnp.float32(log_snr)))


def _coordinate(time: float, coordinate: str, path: Path) -> float:
    if coordinate == "t":
        return time
    log_snr = float(path.log_snr(jnp.float32(time)))
    return log_snr if coordinate == "log_snr" else math.exp(-log_snr / 2) if log_snr > -1400 else math.inf
