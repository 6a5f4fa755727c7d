"""The noise levels of a model's own schedule at a point of rectified flow, and the time that the model is given there.

Two noisy points are the same up to scale where their ratio of noise to data is: `r = σ / α`. Rectified flow has r = (1 - t) / t, and so a
model of any schedule is asked at the level of equal r, at x times its own α / t. Where the schedule has no level of so much or so little
noise, it is asked at the nearest one that it has, with x rescaled to it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from flowjax.fields.predictions import Coefficients
from flowjax.path import Path, RectifiedFlow, path_by_name
from flowjax.schedules import shift

TIMES: Mapping[str, Callable[[Array], Array]] = {
    "data_is_one": lambda t: t,
    "noise_is_one": lambda t: 1 - t,
    "thousand": lambda t: 1000 * (1 - t),
}
"""Time inputs of models of a path, at t: torchcfm, SiT, LightningDiT; RAE and REPA; diffusers and SD3."""
STEPS = ("two_steps", "nearest_step", "fractional_step")
"""Time inputs of models of discrete steps, between two steps: both, one after the other; the nearer; a fraction."""
SIGMAS = ("sigma", "c_noise")
"""Time inputs of models of EDM's convention: σ, or ln(σ) / 4."""
EDM_RANGE = (0.002, 80.0)
"""Range of σ in EDM's own training and sampling (Karras et al. 2022, Table 1)."""


class Level(NamedTuple):
    """One evaluation of a model."""

    weight: Array
    """Weight of its result among those of all levels."""
    told: Array
    """The time that the model is given."""
    scale: Array
    """The factor from x of rectified flow to the model's own x."""
    coefficients: Coefficients


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseLevels:
    """A model's own schedule. Static under `jax.jit`, by identity.

    Attributes:
      levels: from t of rectified flow, within `low` and `high`, to the levels to ask at.
      low, high: the first and the last t whose noise the schedule knows.
      exact: whether the levels' r is that of t itself, or only near it.
      times: the ways in which such a model is told the time.
      time: the one that it is.
      straight: whether a velocity of this schedule is a velocity of rectified flow as it is.
    """

    levels: Callable[[Array], tuple[Level, ...]]
    low: float
    high: float
    exact: bool
    times: tuple[str, ...]
    time: str
    straight: bool = False


def noise_levels(
    schedule: str | Path, time: str | None, alphas_cumprod: Any, noise_scale: float, *, needs_data: bool = False
) -> NoiseLevels:
    """The levels of a schedule.

    Args:
      schedule: rectified_flow, cosine, variance_preserving or a `Path`; ddpm; edm.
      time: of `TIMES`, `STEPS` or `SIGMAS`; None: the first of them.
      alphas_cumprod: ᾱ of each discrete step of ddpm, `[T]`, falling.
      noise_scale: c of `x = α x_1 + c σ x_0`.
      needs_data: keep away from levels without any data, where nothing follows of it from the noise.

    Raises:
      ValueError: any of these that is not what is expected; a setting of another schedule.
    """
    if not noise_scale > 0 or not np.isfinite(noise_scale):
        raise ValueError(f"noise_scale = {noise_scale}: expected a number above 0; 1 is noise of unit variance")
    if (alphas_cumprod is not None) != (schedule == "ddpm"):
        told = "give the scheduler's alphas_cumprod" if schedule == "ddpm" else f"leave it out with schedule = {schedule!r}"
        raise ValueError(f"alphas_cumprod belongs to schedule = 'ddpm': {told}")
    if schedule in ("ddpm", "edm"):
        if noise_scale != 1:
            raise ValueError(f"noise_scale = {noise_scale}: expected 1 with schedule = {schedule!r}, which says how much noise there is")
        return _discrete(alphas_cumprod, time) if schedule == "ddpm" else _edm(time)
    if isinstance(schedule, str):
        try:
            schedule = path_by_name(schedule)
        except ValueError as error:
            raise ValueError(f"schedule: {error}, ddpm, edm") from None
    if not isinstance(schedule, Path):
        raise ValueError(f"schedule = {schedule!r}: expected the name of one, or a flowjax.path.Path")
    return _along(schedule, time, float(noise_scale), needs_data)


def _chosen(time: str | None, among: tuple[str, ...], schedule: str) -> str:
    if time is not None and time not in among:
        raise ValueError(f"time = {time!r}: expected one of {', '.join(among)} with schedule = {schedule!r}")
    return time or among[0]


def _log_snr(t: Array) -> Array:
    return 2 * (jnp.log(t) - jnp.log1p(-t))


def _time_of(log_snr: float) -> float:
    """The t of rectified flow with this log-SNR."""
    return float(1 / (1 + np.exp(-np.float64(log_snr) / 2)))


def _along(path: Path, time: str | None, scale: float, needs_data: bool) -> NoiseLevels:
    name = _chosen(time, tuple(TIMES), type(path).__name__)
    straight = isinstance(path, RectifiedFlow)
    with np.errstate(over="ignore"):
        low, high = (_time_of(float(path.log_snr(jnp.float32(end))) - 2 * np.log(scale)) for end in (0.0, path.t_max))

    def levels(t: Array) -> tuple[Level, ...]:
        if straight:
            own = t if scale == 1 else shift(t, scale)
        else:
            own = jnp.minimum(path.time_of_log_snr(_log_snr(t) + 2 * np.float32(np.log(scale))), path.t_max)
        found = Coefficients(path.alpha(own), scale * path.sigma(own), path.alpha_dot(own), scale * path.sigma_dot(own))
        # α / t = σ / (1 - t): the first is infinite at t = 0, and the second at t = 1.
        own_scale = jnp.where(t < 0.5, found.sigma / (1 - jnp.minimum(t, 0.5)), found.alpha / jnp.maximum(t, 0.5))
        return (Level(jnp.ones_like(t), TIMES[name](own), own_scale, found),)

    return NoiseLevels(levels, max(low, 1e-4) if needs_data else low, high, True, tuple(TIMES), name, straight and scale == 1)


def _edm(time: str | None) -> NoiseLevels:
    name = _chosen(time, SIGMAS, "edm")

    def levels(t: Array) -> tuple[Level, ...]:
        sigma = (1 - t) / t
        one = jnp.ones_like(t)
        return (Level(one, sigma if name == "sigma" else jnp.log(sigma) / 4, 1 / t, Coefficients(one, sigma)),)

    least, most = EDM_RANGE
    return NoiseLevels(levels, 1 / (1 + most), 1 / (1 + least), True, SIGMAS, name)


def _discrete(alphas_cumprod: Any, time: str | None) -> NoiseLevels:
    name = _chosen(time, STEPS, "ddpm")
    kept = np.asarray(alphas_cumprod, np.float64)
    if kept.ndim != 1 or len(kept) < 2 or not ((kept >= 0) & (kept <= 1)).all() or not (np.diff(kept) < 0).all():
        raise ValueError(
            f"alphas_cumprod of shape {kept.shape}: expected ᾱ of each step, [T], in [0, 1], falling, as scheduler.alphas_cumprod has them"
        )
    kept = kept.clip(1e-8, 1 - 1e-8)
    log_snr = np.log(kept) - np.log1p(-kept)
    alpha, sigma = (jnp.asarray(np.sqrt(part), jnp.float32) for part in (kept, 1 - kept))
    rising, steps = jnp.asarray(log_snr[::-1], jnp.float32), jnp.arange(len(kept), dtype=jnp.float32)[::-1]

    def at(weight: Array, step: Array, t: Array) -> Level:
        return Level(weight, step, alpha[step] / t, Coefficients(alpha[step], sigma[step]))

    def levels(t: Array) -> tuple[Level, ...]:
        step = jnp.interp(_log_snr(t), rising, steps)
        if name == "nearest_step":
            return (at(jnp.ones_like(t), jnp.round(step).astype(jnp.int32), t),)
        if name == "two_steps":
            first = jnp.minimum(step.astype(jnp.int32), len(kept) - 2)
            share = step - first.astype(jnp.float32)
            return at(1 - share, first, t), at(share, first + 1, t)
        norm = jnp.sqrt(t**2 + (1 - t) ** 2)
        return (Level(jnp.ones_like(t), step, 1 / norm, Coefficients(t / norm, (1 - t) / norm)),)

    return NoiseLevels(levels, _time_of(log_snr[-1]), _time_of(log_snr[0]), name == "fractional_step", STEPS, name)


def rescaled(t: Array, levels: NoiseLevels, dtype: Any) -> tuple[Array, Array]:
    """The factor of x, and the t, of the nearest point that the schedule knows: 1 and t itself within its range.

    Beyond it the factor keeps the noise in x where data are all but gone, and the data in x where noise is.
    """
    inside = jnp.clip(t, levels.low, levels.high).astype(t.dtype)
    noise_kept, data_kept = (1 - inside) / (1 - jnp.minimum(t, 0.5)), inside / jnp.maximum(t, 0.5)
    return jnp.where(inside == t, 1, jnp.where(t < inside, noise_kept, data_kept)).astype(dtype), inside
