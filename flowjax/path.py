"""Affine Gaussian probability paths. They define the time convention of the whole project.

A path carries noise `x_0 ~ N(0, I)` to data `x_1` along the interpolant `x_t = α_t x_1 + σ_t x_0`.
t = 0 is noise (σ = 1) and t = 1 is data (α = 1, σ = 0), everywhere.
"""

import abc
import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

Times = Float[Array, "*batch"]


def as_time(t: ArrayLike) -> Array:
    """`t` as an array: its own dtype if that is floating, float32 otherwise."""
    t = jnp.asarray(t)
    return t if jnp.issubdtype(t.dtype, jnp.floating) else t.astype(jnp.float32)


def expand_like(coefficient: Array, x: Array) -> Array:
    """A scalar or `[B]` coefficient, with trailing axes so that it broadcasts against `x` `[B, *shape]`."""
    return coefficient.reshape(coefficient.shape + (1,) * (x.ndim - coefficient.ndim)) if coefficient.ndim else coefficient


@dataclasses.dataclass(frozen=True)
class Path(abc.ABC):
    """An affine Gaussian path: five functions of t, and the quantities that follow from them.

    `alpha`, `sigma`, their time derivatives `alpha_dot`, `sigma_dot`, and `log_snr` = log(α² / σ²), with its inverse.
    Everything is computed in the dtype of t, in forms that keep full relative precision at both ends (σ near t = 1 is
    built from 1 - t, which is exact there). Paths are immutable and hashable: they are static under `jax.jit`.

    Source: arXiv 2512.02826, section 2; the affine family is that of Lipman et al. 2023 and Albergo et al. 2023.
    """

    @property
    def t_max(self) -> float:
        """The last t at which a solver evaluates this path. 1 itself is never evaluated: the step that reaches it starts before."""
        return 1.0

    @property
    def velocity_scale_at_sample(self) -> float:
        """κ in `lim_{t→1} u*(x, t) = κ x` where x is a sample of the data set: `α' + σ'(1 - α)/σ` as t → 1."""
        return 0.0

    @abc.abstractmethod
    def alpha(self, t: ArrayLike) -> Array:
        """α_t, the coefficient of the data: 1 at t = 1."""

    @abc.abstractmethod
    def sigma(self, t: ArrayLike) -> Array:
        """σ_t, the coefficient of the noise: exactly 0 at t = 1."""

    @abc.abstractmethod
    def alpha_dot(self, t: ArrayLike) -> Array:
        """dα/dt."""

    @abc.abstractmethod
    def sigma_dot(self, t: ArrayLike) -> Array:
        """dσ/dt."""

    def log_snr(self, t: ArrayLike) -> Array:
        """log(α_t² / σ_t²): rises with t; -inf where α = 0, +inf at t = 1."""
        return 2 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

    @abc.abstractmethod
    def time_of_log_snr(self, log_snr: ArrayLike) -> Array:
        """The t at which `log_snr(t)` takes the given value; clipped to [0, 1] where the path never takes it."""

    def A(self, t: ArrayLike) -> Array:
        """`A_t = α' - α σ'/σ`: the weight of the posterior mean in `u* = A_t E[x_1 | x_t] + B_t x` (Theorem 2.1). +inf at t = 1."""
        return self.alpha_dot(t) - self.alpha(t) * self.sigma_dot(t) / self.sigma(t)

    def B(self, t: ArrayLike) -> Array:
        """`B_t = σ'/σ`: the weight of x itself in the marginal velocity. -inf at t = 1."""
        return self.sigma_dot(t) / self.sigma(t)

    def interpolate(self, x_0: Array, x_1: Array, t: ArrayLike) -> Array:
        """The interpolant `x_t = α_t x_1 + σ_t x_0`.

        Args:
          x_0: noise, `[B, *shape]`.
          x_1: data, `[B, *shape]`.
          t: scalar or `[B]`.

        Returns:
          `[B, *shape]`, in the dtype of the samples.
        """
        t = as_time(t)
        return _combine(self.alpha(t), x_1, self.sigma(t), x_0)

    def conditional_velocity(self, x_0: Array, x_1: Array, t: ArrayLike) -> Array:
        """The CFM target `dx_t/dt = α'_t x_1 + σ'_t x_0` (x_1 - x_0 for rectified flow).

        Args, Returns: as `interpolate`.
        """
        t = as_time(t)
        return _combine(self.alpha_dot(t), x_1, self.sigma_dot(t), x_0)


def _combine(a: Array, x_1: Array, b: Array, x_0: Array) -> Array:
    a, b = expand_like(a.astype(x_1.dtype), x_1), expand_like(b.astype(x_0.dtype), x_0)
    return a * x_1 + b * x_0


@dataclasses.dataclass(frozen=True)
class RectifiedFlow(Path):
    """The straight path: α = t, σ = 1 - t. Its conditional velocity is x_1 - x_0 (Liu et al. 2023)."""

    def alpha(self, t: ArrayLike) -> Array:
        return as_time(t)

    def sigma(self, t: ArrayLike) -> Array:
        return 1 - as_time(t)

    def alpha_dot(self, t: ArrayLike) -> Array:
        return jnp.ones_like(as_time(t))

    def sigma_dot(self, t: ArrayLike) -> Array:
        return -jnp.ones_like(as_time(t))

    def time_of_log_snr(self, log_snr: ArrayLike) -> Array:
        return jax.nn.sigmoid(as_time(log_snr) / 2)


@dataclasses.dataclass(frozen=True)
class Cosine(Path):
    """The variance-preserving arc: α = sin(πt/2), σ = cos(πt/2) (Nichol and Dhariwal 2021; Albergo et al. 2023)."""

    def alpha(self, t: ArrayLike) -> Array:
        return jnp.sin(jnp.pi / 2 * as_time(t))

    def sigma(self, t: ArrayLike) -> Array:
        return jnp.sin(jnp.pi / 2 * (1 - as_time(t)))  # not cos(πt/2), which loses every digit near t = 1

    def alpha_dot(self, t: ArrayLike) -> Array:
        return jnp.pi / 2 * self.sigma(t)

    def sigma_dot(self, t: ArrayLike) -> Array:
        return -jnp.pi / 2 * self.alpha(t)

    def time_of_log_snr(self, log_snr: ArrayLike) -> Array:
        return 2 / jnp.pi * jnp.arctan(jnp.exp(as_time(log_snr) / 2))


@dataclasses.dataclass(frozen=True)
class VariancePreserving(Path):
    """The VP diffusion: α = exp(-½ ∫_0^{1-t} β), β linear, σ = √(1 - α²) (Ho et al. 2020; Song et al. 2021).

    α_0 is about 0.0066, not 0: the posterior at t = 0 is only nearly uniform. σ' is infinite at t = 1, so solvers stop at
    `t_max`.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    @property
    def t_max(self) -> float:
        return 0.999

    @property
    def velocity_scale_at_sample(self) -> float:
        return self.beta_min / 4

    def _integral(self, t: ArrayLike) -> tuple[Array, Array]:
        """β at noise time s = 1 - t, and its integral over [0, s]."""
        s = 1 - as_time(t)
        slope = self.beta_max - self.beta_min
        return self.beta_min + slope * s, self.beta_min * s + slope / 2 * s * s

    def alpha(self, t: ArrayLike) -> Array:
        return jnp.exp(-self._integral(t)[1] / 2)

    def sigma(self, t: ArrayLike) -> Array:
        return jnp.sqrt(-jnp.expm1(-self._integral(t)[1]))

    def alpha_dot(self, t: ArrayLike) -> Array:
        beta, integral = self._integral(t)
        return beta / 2 * jnp.exp(-integral / 2)

    def sigma_dot(self, t: ArrayLike) -> Array:
        beta, integral = self._integral(t)
        return -beta / 2 * jnp.exp(-integral) / jnp.sqrt(-jnp.expm1(-integral))

    def time_of_log_snr(self, log_snr: ArrayLike) -> Array:
        # σ² = sigmoid(-log_snr) = 1 - exp(-I), so I = log(1 + exp(-log_snr)); then a quadratic in s.
        integral = jnp.minimum(jax.nn.softplus(-as_time(log_snr)), (self.beta_min + self.beta_max) / 2)  # the most, at t = 0
        slope = self.beta_max - self.beta_min
        s = 2 * integral / (self.beta_min + jnp.sqrt(self.beta_min**2 + 2 * slope * integral))
        return jnp.clip(1 - s, 0, 1)


PATHS: dict[str, type[Path]] = {"rectified_flow": RectifiedFlow, "cosine": Cosine, "variance_preserving": VariancePreserving}


def path_by_name(name: str) -> Path:
    """The path that a configuration names, with its default parameters; ValueError with the names there are."""
    if name not in PATHS:
        raise ValueError(f"unknown path {name!r}; there are {', '.join(PATHS)}")
    return PATHS[name]()
