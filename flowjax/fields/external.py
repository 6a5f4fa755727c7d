"""Models of any framework as fields: for every kind of prediction, training schedule and time input."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flowjax.fields.field import Label
from flowjax.fields.frameworks import ForeignFunction
from flowjax.fields.noise_levels import NoiseLevels, noise_levels, rescaled
from flowjax.fields.predictions import PREDICTIONS, data_and_noise
from flowjax.path import Path, RectifiedFlow, expand_like


@dataclasses.dataclass(frozen=True, eq=False)
class Schedule:
    """Settings that `external_field` was given."""

    schedule: str | Path
    alphas_cumprod: Any
    noise_scale: float


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ExternalField:
    """The rectified-flow velocity that a model from elsewhere amounts to. Made by `external_field`. It has no leaves."""

    model: ForeignFunction = dataclasses.field(metadata={"static": True})
    prediction: str = dataclasses.field(metadata={"static": True})
    schedule: Schedule = dataclasses.field(metadata={"static": True})
    levels: NoiseLevels = dataclasses.field(metadata={"static": True})
    null_label: int | None = dataclasses.field(metadata={"static": True})

    def __call__(self, x: Float[Array, "B *shape"], t: Float[Array, ""] | Float[Array, " B"], label: Label) -> Float[Array, "B *shape"]:
        told = self._told(len(x), label)
        factor, time = rescaled(t, self.levels, x.dtype)
        x = expand_like(factor, x) * x
        levels = self.levels.levels(time)
        own = [expand_like(level.scale, x) * x for level in levels]
        predicted = [self.model(y, jnp.broadcast_to(level.told, len(x)), told) for y, level in zip(own, levels, strict=True)]
        if self.levels.straight and self.prediction == "velocity":
            return predicted[0]
        found = [data_and_noise(self.prediction, p, y, level.coefficients) for p, y, level in zip(predicted, own, levels, strict=True)]
        if self.levels.exact:
            return found[0].data - found[0].noise
        data = sum(expand_like(level.weight, x) * one.data for level, one in zip(levels, found, strict=True))
        return (data - x) / (1 - expand_like(time, x))  # the noise that is in x at t itself, not at the levels near it

    def told_otherwise(self, prediction: str, time: str) -> "ExternalField":
        """The same model with another prediction or time setting."""
        return _field(self.model, prediction, time, self.schedule, self.null_label)

    def _told(self, n: int, label: Label) -> Label:
        if self.null_label is None:
            return label
        null = jnp.int32(self.null_label)
        return jnp.full(n, null) if label is None else jnp.where(label < 0, null, label.astype(jnp.int32))


def external_field(  # noqa: PLR0913  # how a model speaks: each of these a caller may have to say
    fn: Callable[..., Any],
    *,
    prediction: str = "velocity",
    schedule: str | Path = "rectified_flow",
    time: str | None = None,
    layout: str = "NHWC",
    alphas_cumprod: Any = None,
    null_label: int | None = None,
    noise_scale: float = 1.0,
    batch_size: int | None = None,
    framework: str | None = None,
    device: str | None = None,
) -> ExternalField:
    """A model of any framework as the velocity field of rectified flow.

    At (x, t), where x = t x_1 + (1 - t) x_0, the model is asked at the noise level of its own schedule at which noise is to data as it is
    in x, `σ / α = (1 - t) / t`, at x times its own α / t. From what it predicts follow the data D and the noise E in x; the velocity is
    D - E. Where the schedule has no such level (a DDPM's last step still holds some data, EDM's σ ends at 80), the nearest one is asked.

    Args:
      fn: `fn(x, time, label)`, on PyTorch tensors, NumPy arrays or JAX arrays, any of which it returns, of the shape of x: a
        `torch.nn.Module` in evaluation mode, or a function that calls one. x `[rows, *shape]` float32, or in the dtype of a module's
        parameters; time `[rows]`; label `[rows]`, or None where the field is conditioned on nothing and there is no `null_label`.
      prediction: what it returns.
        velocity: dx/dt along its own schedule with t rising to data, for rectified flow x_1 - x_0 in the mean. What points to noise, as
        diffusers' flow models do, is to be negated in fn.
        denoised: E[x_1 | x]; epsilon: E[x_0 | x]; score: ∇ log p(x); v: E[α x_0 - σ x_1 | x], with α² + σ² = 1.
      schedule: what it was trained on. rectified_flow: x = t x_1 + (1 - t) x_0; cosine, variance_preserving, or any `Path`; ddpm:
        x = √ᾱ x_1 + √(1 - ᾱ) x_0 at discrete steps, numbered from the least noise; edm: x = x_1 + σ x_0.
      time: what it is told.
        Of a path, with its own t: data_is_one, t (if None); noise_is_one, 1 - t; thousand, 1000 (1 - t).
        Of ddpm: two_steps (if None), the steps on both sides of the noise level, one after the other, and the denoised samples interpolated
        linearly in log-SNR, which costs two evaluations; nearest_step; fractional_step, a float between them, interpolated linearly in
        log-SNR, for networks that embed the step by sines and cosines.
        Of edm: sigma, σ (if None); c_noise, ln(σ) / 4.
      layout: NHWC if channels come last in what fn takes, NCHW if first. The field itself has them last.
      alphas_cumprod: ᾱ of each step of ddpm, `[T]`, falling (a diffusers scheduler has it under this name).
      null_label: what the model is told where it is conditioned on nothing; None: fn gets None for label.
      noise_scale: c of a path x = α x_1 + c σ x_0 (JiT's). The field is that of the same data under noise of unit variance.
      batch_size: rows that fn is given at once; None: all that the caller has.
      framework: torch, numpy or jax; None: found out by the first call, in which fn may be called once in each.
      device: of PyTorch, as "cuda"; None: where the parameters of a module lie. Under `jax.jit` arrays pass through the host.

    Returns:
      A field `[B, *shape]` float32, for samplers, guidance and experiments. A JAX function is traced into their programs; others are called
      from them by `jax.pure_callback`. What is compiled belongs to this field alone: make it once. It is differentiable in x where fn is in
      JAX or PyTorch.

    Raises:
      ValueError: an argument that is not as said here; at the first call, a model that fails, or that returns another shape.

    Examples:
      >>> field = external_field(lambda x, time, label: -x, framework="numpy")
      >>> field(jnp.ones((1, 2)), jnp.float32(0.5), None).tolist()
      [[-1.0, -1.0]]

    References:
      Karras et al. 2022 (EDM, and the rescaling between schedules); Ho et al. 2020; Salimans and Ho 2022; arXiv 2512.02826, section 2.
    """
    model = ForeignFunction(fn, framework, layout, batch_size, device)
    if null_label is not None and (isinstance(null_label, bool) or not isinstance(null_label, int)):
        raise ValueError(f"null_label = {null_label!r}: expected the number that the model takes for no class, or None")
    return _field(model, prediction, time, Schedule(schedule, alphas_cumprod, noise_scale), null_label)


UNIT = ("cosine", "variance_preserving", "ddpm")
"""Schedules of α² + σ² = 1, on which v is defined."""


def _field(model: ForeignFunction, prediction: str, time: str | None, schedule: Schedule, null_label: int | None) -> ExternalField:
    if prediction not in PREDICTIONS:
        raise ValueError(f"prediction = {prediction!r}: expected one of {', '.join(PREDICTIONS)}")
    name = schedule.schedule
    if prediction == "velocity" and name in ("ddpm", "edm"):
        raise ValueError(
            f"prediction = 'velocity' with schedule = {name!r}: a diffusion model has none; expected denoised, epsilon, score or v"
        )
    if prediction == "v" and (name in ("rectified_flow", "edm") or isinstance(name, RectifiedFlow) or schedule.noise_scale != 1):
        raise ValueError(
            f"prediction = 'v' with schedule = {name!r}: v is defined where α² + σ² = 1 ({', '.join(UNIT)}); a flow model's is 'velocity'"
        )
    needs_data = prediction in ("epsilon", "score")
    levels = noise_levels(name, time, schedule.alphas_cumprod, schedule.noise_scale, needs_data=needs_data)
    return ExternalField(model, prediction, schedule, levels, null_label)
