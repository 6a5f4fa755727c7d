"""`smoothed`: the oracle of data with added Gaussian noise."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from flowjax.analytic.analytic_field import checked_path
from flowjax.fields import OracleField
from flowjax.oracle import Oracle
from flowjax.path import Path, as_time, expand_like
from kernels.float64 import float64_scope, to32, to64

LAST = 1 - 2.0**-24
"""The last float32 before 1. Velocities at t = 1 are taken here: at 1 the posterior mean has no weight in them, and A/B no value."""


@dataclasses.dataclass(frozen=True)
class SmoothedPath(Path):
    """The path on which a sample y goes to y + τ n: α as of `base`, σ' = √(σ² + α² τ²)."""

    base: Path
    noise: float
    """τ."""

    def alpha(self, t: ArrayLike) -> Array:
        return self.base.alpha(t)

    def sigma(self, t: ArrayLike) -> Array:
        return jnp.hypot(self.base.sigma(t), self.noise * self.base.alpha(t))

    def alpha_dot(self, t: ArrayLike) -> Array:
        return self.base.alpha_dot(t)

    def sigma_dot(self, t: ArrayLike) -> Array:
        own = self.base.sigma(t) * self.base.sigma_dot(t)
        return (own + self.noise**2 * self.base.alpha(t) * self.base.alpha_dot(t)) / self.sigma(t)

    def time_of_log_snr(self, log_snr: ArrayLike) -> Array:
        left = jnp.exp(-as_time(log_snr)) - self.noise**2
        return self.base.time_of_log_snr(-jnp.log(jnp.maximum(left, 0)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SmoothedField:
    """The oracle of `y + τ n`, n ~ N(0, I), y a sample. Made by `smoothed`. Differentiable in x, as the oracle is."""

    field: OracleField
    """The oracle of the samples on the smoothed path; its velocity is the field's. Samplers may put the CPU engine in its place."""
    path: Path = dataclasses.field(metadata={"static": True})
    noise: float = dataclasses.field(metadata={"static": True})
    """τ."""

    def __call__(self, x_t: ArrayLike, t: ArrayLike, label: ArrayLike | None = None) -> Float[Array, "B *shape"]:
        """The velocity, float32; arguments and errors as of an `Oracle`. With noise > 0 it is finite at t = 1 too."""
        if isinstance(self.field, OracleField):
            return self.field.oracle(x_t, self._time(t), label, moments="velocity").velocity
        return self.field(jnp.asarray(x_t), self._time(t), None if label is None else jnp.asarray(label))

    def denoised(self, x_t: ArrayLike, t: ArrayLike, label: ArrayLike | None = None) -> Float[Array, "B *shape"]:
        """E[y + τ n | x_t], float32."""
        time = self._time(t)
        nearest = self.field.oracle(x_t, time, label, moments="velocity").denoised
        if not self.noise:
            return nearest
        with float64_scope():
            exact = to64(jnp.broadcast_to(time, len(nearest)))
            alpha, sigma = self.path.alpha(exact), SmoothedPath(self.path, self.noise).sigma(exact)
            share = expand_like(alpha * self.noise**2 / sigma**2, nearest)
            mean = to64(nearest)
            return to32(mean + share * (to64(jnp.asarray(x_t).astype(jnp.float32)) - expand_like(alpha, nearest) * mean))

    def _time(self, t: ArrayLike) -> Array:
        time = jnp.asarray(t).astype(jnp.float32)
        return jnp.where((time > LAST) & (time <= 1), jnp.float32(LAST), time) if self.noise else time


def smoothed(data: ArrayLike, labels: ArrayLike | None = None, path: Path | None = None, *, noise: float) -> SmoothedField:
    """The oracle of the data convolved with N(0, τ² I), in closed form by the oracle's own engines.

    With x_1 = y + τ n, x_t = α y + σ' ε has the law of the path with σ' = √(σ² + α² τ²), and

        E[x_1 | x_t] = m + (α τ² / σ'²) (x - α m),  m = E[y | x_t] = Σ_i γ_i y_i,  γ = softmax_i(-‖x - α y_i‖² / 2σ'²)
        u(x, t)      = α' m + (dσ'/dt) (x - α m) / σ'

    where the velocity is that of the data set on the path (α, σ'): α' E[x_1 | x_t] + (dσ/dt) E[x_0 | x_t] is the same. Exact, as the oracle
    is. With noise = 0 it is the oracle; as τ grows no sample ever gets nearly all weight, because σ'/α >= τ.

    Args:
      data: `[N, *shape]`, real.
      labels: `[N]` integers >= 0, or None.
      path: the probability path; None: rectified flow.
      noise: τ >= 0, in the unit of the data.

    Raises:
      ValueError: data or labels that do not fit an `Oracle`; a noise that is negative or not finite.

    References:
      Scarvelis et al. 2023 (smoothed closed-form scores); Bertrand et al. 2025, On the closed-form of flow matching, arXiv 2506.03719.
    """
    if not math.isfinite(noise) or noise < 0:
        raise ValueError(f"noise = {noise}: expected a standard deviation >= 0, in the unit of the data")
    own = checked_path(path)
    return SmoothedField(OracleField(Oracle(data, labels, path=SmoothedPath(own, float(noise)) if noise else own)), own, float(noise))
