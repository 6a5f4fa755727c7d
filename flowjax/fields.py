"""Velocity fields to sample along: an oracle, a model, several of them one after the other in t, guidance.

A field is a pytree: pass it to a jitted function as an argument. What can be set (edges in t, scale, interval) are its leaves, so that a
sweep over them compiles once.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from flowjax.oracle import Oracle
from flowjax.path import Path

Label = Int[Array, " B"] | None
Channels = Literal["all"] | int


@runtime_checkable
class Field(Protocol):
    """`dx/dt = field(x, t, label)`."""

    def __call__(self, x: Float[Array, "B *shape"], t: Float[Array, ""], label: Label) -> Float[Array, "B *shape"]:
        """The velocity `[B, *shape]` at x `[B, *shape]` and one time t; label `[B]`, None: conditioned on nothing."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OracleField:
    """The exact marginal velocity of a data set."""

    oracle: Oracle

    def __call__(self, x: Float[Array, "B *shape"], t: Float[Array, ""], label: Label) -> Float[Array, "B *shape"]:
        return self.oracle(x, t, label, moments="velocity").velocity

    def divergence(self, x: Float[Array, "B *shape"], t: Float[Array, ""], label: Label) -> Float[Array, " B"]:
        """∇·u*, exactly."""
        found = self.oracle(x, t, label).divergence
        assert found is not None
        return found


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ModelField:
    """A trained model, `model(x, t, label)`; its parameters are leaves. Made by `model_field`."""

    parameters: Any
    definition: Any = dataclasses.field(metadata={"static": True})
    null_label: int = dataclasses.field(metadata={"static": True})
    """What the model is told where it is conditioned on nothing."""

    def __call__(self, x: Float[Array, "B *shape"], t: Float[Array, ""], label: Label) -> Float[Array, "B *shape"]:
        told = jnp.full(len(x), self.null_label, jnp.int32) if label is None else label
        return nnx.merge(self.definition, self.parameters)(x, jnp.full(len(x), t), told)


def model_field(model: nnx.Module, num_classes: int) -> ModelField:
    """The field of a model that takes `num_classes` as its null label (`LightningDiT` does)."""
    definition, parameters = nnx.split(model)
    return ModelField(parameters, definition, num_classes)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Staged:
    """Several fields, one after the other in t: `fields[k]` where `edges[k-1] <= t < edges[k]`. Made by `staged`.

    A solver's step that begins before an edge and looks beyond it (Heun's, midpoint's) sees both fields; put edges on its grid.
    """

    fields: tuple[Field, ...]
    edges: Float[Array, " K"]

    def __call__(self, x: Float[Array, "B *shape"], t: Float[Array, ""], label: Label) -> Float[Array, "B *shape"]:
        return self._switch([lambda *at, field=field: field(*at) for field in self.fields], x, t, label)

    def divergence(self, x: Float[Array, "B *shape"], t: Float[Array, ""], label: Label) -> Float[Array, " B"]:
        """That of the field whose turn it is."""
        return self._switch([lambda *at, field=field: divergence(field, *at) for field in self.fields], x, t, label)

    def _switch(self, branches: Sequence[Callable[..., Array]], x: Array, t: Array, label: Label) -> Array:
        return jax.lax.switch(jnp.sum(t >= self.edges), branches, x, t, label)


def staged(fields: Sequence[Field], edges: Sequence[float]) -> Staged:
    """Fields, and the t at which each but the first takes over.

    Raises:
      ValueError: edges that are not one fewer than fields, outside [0, 1], or falling. Equal ones leave a field without a turn.
    """
    times = np.asarray(edges, np.float64)
    if len(fields) != len(times) + 1 or not ((times >= 0) & (times <= 1)).all() or (np.diff(times) < 0).any():
        raise ValueError(
            f"edges = {list(edges)}: expected {len(fields) - 1} for {len(fields)} fields, in [0, 1], none below the one before"
        )
    return Staged(tuple(fields), jnp.asarray(times, jnp.float32))


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
    low, high = interval
    if not math.isfinite(scale):
        raise ValueError(f"guidance scale = {scale}: expected a finite number; 1 is no guidance")
    if not 0 <= low < high <= 1:
        raise ValueError(f"guidance interval = [{low}, {high}]: expected 0 <= t_low < t_high <= 1; for no guidance set the scale to 1")
    if channels != "all" and (isinstance(channels, bool) or not isinstance(channels, int) or channels < 1):
        raise ValueError(f"guidance channels = {channels!r}: expected 'all' or how many of the first ones, at least 1")
    return Guided(field, jnp.float32(scale), jnp.asarray(interval, jnp.float32), channels)


def divergence(
    field: Field, x: Float[Array, "B *shape"], t: Float[Array, ""], label: Label, probes: Float[Array, "P B *shape"] | None = None
) -> Float[Array, " B"]:
    """∇·u: exact where the field knows it, or without probes (D products with the Jacobian); else Hutchinson's mean of `vᵀ (∂u/∂x) v`.

    Args:
      probes: v, of mean 0 and identity covariance; signs have the least variance.

    References:
      Hutchinson 1989; Grathwohl et al. 2019 for its use on flows.
    """
    own = getattr(field, "divergence", None)
    if own is not None:
        return own(x, t, label)
    _, pull = jax.vjp(lambda y: field(y, t, label), x)
    if probes is not None:
        return jnp.mean(jax.lax.map(lambda v: _dot(v, pull(v)[0]), probes), axis=0)
    d = math.prod(x.shape[1:])
    units = jnp.broadcast_to(jnp.eye(d, dtype=x.dtype)[:, None], (d, len(x), d)).reshape(d, *x.shape)
    return jnp.sum(jax.lax.map(lambda v: _dot(v, pull(v)[0]), units), axis=0)


def _dot(a: Float[Array, "B *shape"], b: Float[Array, "B *shape"]) -> Float[Array, " B"]:
    return jnp.sum((a * b).reshape(len(a), -1), axis=1)


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
