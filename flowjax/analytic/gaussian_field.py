"""`gaussian`: the field of data that are Gaussian, with the data's own mean and covariance: the best linear denoiser."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from flowjax.analysis.spectrum import PrincipalComponents, principal_components
from flowjax.analytic.analytic_field import checked_path, checked_query, labelled_rows
from flowjax.oracle.compiled import folding
from flowjax.path import Path
from kernels.float64 import float64_scope, to32, to64

MOST_BYTES = 2**32
"""Of the eigenvectors of all Gaussians together."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GaussianField:
    """The field of `Σ_g π_g N(μ_g, Σ_g)`. Made by `gaussian`. Differentiable in x in reverse mode, on every device.

    Float64 numbers are kept as pairs of float32 `[2, ...]`, the second what the first leaves: float64 arrays cannot leave a float64 scope.
    """

    mean: Float[Array, "2 G D"]
    vectors: Float[Array, "2 G D K"]
    """Eigenvectors of the covariances, as columns; columns of zeros where a covariance has fewer."""
    values: Float[Array, "2 G K"]
    share: Float[Array, "2 G"]
    """π_g."""
    path: Path = dataclasses.field(metadata={"static": True})
    shape: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    classes: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    """The class of each Gaussian; -1: the Gaussian of all samples."""
    by_class: bool = dataclasses.field(metadata={"static": True})
    """Whether a query without a label sees the mixture of the classes' Gaussians."""

    def __call__(self, x_t: ArrayLike, t: ArrayLike, label: ArrayLike | None = None) -> Float[Array, "B *shape"]:
        """The velocity `α' E[x_1 | x_t] + σ' E[x_0 | x_t]`, float32.

        Args:
          x_t: `[B, *shape]`.
          t: scalar or `[B]`, in [0, 1].
          label: None, a scalar or `[B]`: the class to condition on; -1: none.

        Raises:
          ValueError: shapes that do not fit, t outside [0, 1], a label without samples. Under tracing such a row gives NaN.
        """
        return self._asked(x_t, t, label)[0]

    def denoised(self, x_t: ArrayLike, t: ArrayLike, label: ArrayLike | None = None) -> Float[Array, "B *shape"]:
        """E[x_1 | x_t], float32. Arguments and errors as of a call."""
        return self._asked(x_t, t, label)[1]

    def _asked(self, x_t: ArrayLike, t: ArrayLike, label: ArrayLike | None) -> tuple[Array, Array]:
        known = self.classes if -1 in self.classes else (-1, *self.classes)
        x, time, asked = checked_query(x_t, t, label, self.shape, known)
        velocity, denoised = _compiled(self, x.reshape(len(x), -1), time, asked)
        return velocity.reshape(x.shape), denoised.reshape(x.shape)


def gaussian(data: ArrayLike, labels: ArrayLike | None = None, path: Path | None = None, *, by_class: bool = False) -> GaussianField:
    """The field of a Gaussian with the data's mean μ and covariance Σ, the Wiener filter:

        E[x_1 | x_t] = μ + α Σ (α² Σ + σ² I)⁻¹ (x - α μ)

    No other linear denoiser has a smaller squared error on the data. Exact if the data are Gaussian. With a label: the Gaussian of its
    class. With `by_class`, and without a label: the mixture of the classes' Gaussians, each with its share π_g of the data,

        E[x_1 | x_t] = Σ_g γ_g E_g[x_1 | x_t],  γ_g = softmax_g(log π_g + log N(x; α μ_g, α² Σ_g + σ² I))

    Σ is the sample covariance, with N - 1 below; where samples are fewer than numbers it has no inverse, and none is needed. Velocities
    come from the eigenvectors, without a difference of prediction and x, so that they keep their digits for t up to 1. At t = 1 it is the
    limit (t = 1 - 10⁻⁹).

    Args:
      data: `[N, *shape]`, real.
      labels: `[N]` integers >= 0, or None.
      path: the probability path; None: rectified flow.
      by_class: whether queries without a label see the mixture; needs labels.

    Raises:
      ValueError: data or labels that do not fit; by_class without labels; min(N, D) above 8,192; eigenvectors of more than 4 GiB.

    References:
      Wiener 1949; Li et al. 2024, arXiv 2410.24060 (networks that generalise are near this filter); Wang and Vastola 2024.
    """
    samples = labelled_rows(data, labels)
    if by_class and labels is None:
        raise ValueError("by_class = True: the mixture has a Gaussian for each class; give labels")
    d = samples.rows.shape[1]
    classes = tuple(one for one in samples.classes if not (by_class and one == -1))
    ranks = [min(d, part.stop - part.start) for one, part in samples.classes.items() if one in classes]
    size = 8 * d * max(ranks) * len(classes)
    if size > MOST_BYTES:
        raise ValueError(f"labels have {len(classes)} classes: their eigenvectors take {size / 2**30:.1f} GiB, above 4; leave labels out")
    parts = [principal_components(samples.rows[samples.classes[one]]) for one in classes]
    counts = np.array([samples.classes[one].stop - samples.classes[one].start for one in classes], np.float64)
    stacked = _stacked(parts)
    return GaussianField(
        _pair(stacked.mean),
        _pair(stacked.vectors),
        _pair(stacked.values),
        _pair(counts / len(samples.rows)),
        checked_path(path),
        samples.shape,
        classes,
        by_class,
    )


def _stacked(parts: list[PrincipalComponents]) -> PrincipalComponents:
    """The components of several sets, with a first axis; padded with zeros to the most directions."""
    most = max(1, *(len(part.values) for part in parts)) if len(parts) > 1 else max(1, len(parts[0].values))
    return PrincipalComponents(
        np.stack([part.mean for part in parts]),
        np.stack([np.pad(part.vectors, ((0, 0), (0, most - len(part.values)))) for part in parts]),
        np.stack([np.pad(part.values, (0, most - len(part.values))) for part in parts]),
    )


def _pair(values: np.ndarray) -> Array:
    high = values.astype(np.float32)
    return jnp.asarray(np.stack([high, (values - high).astype(np.float32)]))


def _whole(pair: Array) -> Array:
    return to64(pair[0]) + to64(pair[1])


def _evaluate64(field: GaussianField, x: Array, t: Array, label: Array) -> tuple[Array, Array]:
    """Velocity and prediction, Gaussian by Gaussian, with a running maximum of their log weights; x and they are float64."""
    time = jnp.clip(to64(t), 0, 1 - 1e-9)
    coefficients = jnp.stack([f(time) for f in (field.path.alpha, field.path.sigma, field.path.alpha_dot, field.path.sigma_dot)])

    def add(total: Any, group: tuple[Array, ...]) -> tuple[Any, None]:
        return jax.lax.cond(group[-1].any(), lambda: _with_group(total, x, coefficients, group), lambda: total), None

    start: tuple[Array, ...] = (
        jnp.full(len(x), -jnp.inf, jnp.float64),
        jnp.zeros(len(x), jnp.float64),
        jnp.zeros_like(x),
        jnp.zeros_like(x),
    )
    stacked = (jnp.moveaxis(part, 1, 0) for part in (field.mean, field.vectors, field.values, field.share))
    (_, weight, velocity, denoised), _ = jax.lax.scan(add, start, (*stacked, _wanted(field, label)))
    valid = (t >= 0) & (t <= 1) & (weight > 0)
    share = jnp.where(valid, 1 / jnp.where(weight > 0, weight, 1), jnp.nan)[:, None]
    return share * velocity, share * denoised


@folding
def _evaluate(field: GaussianField, x: Array, t: Array, label: Array) -> tuple[Array, Array]:
    """Velocity and prediction, float32."""
    with float64_scope():
        velocity, denoised = _evaluate64(field, to64(x), t, label)
        return to32(velocity), to32(denoised)


@folding
def _pulled(field: GaussianField, x: Array, t: Array, label: Array, of_velocity: Array, of_denoised: Array) -> Array:
    """The cotangent of x: JAX's own reverse rules, inside the scope, where they find float64."""
    with float64_scope():
        _, pull = jax.vjp(lambda y: _evaluate64(field, y, t, label), to64(x))
        return to32(pull((to64(of_velocity), to64(of_denoised)))[0])


@jax.custom_vjp
def _both(field: GaussianField, x: Float[Array, "B D"], t: Float[Array, " B"], label: Int[Array, " B"]) -> tuple[Array, Array]:
    """Velocity and prediction, differentiable in x in reverse mode."""
    return _evaluate(field, x, t, label)


def _forward(*arguments: Any) -> tuple[tuple[Array, Array], tuple[Any, ...]]:
    return _evaluate(*arguments), arguments


def _backward(saved: tuple[Any, ...], cotangents: tuple[Array, Array]) -> tuple[None, Array, None, None]:
    return None, _pulled(*saved, *cotangents), None, None


_both.defvjp(_forward, _backward)
_compiled = jax.jit(_both)


def _wanted(field: GaussianField, label: Int[Array, " B"]) -> Bool[Array, "G B"]:
    """Which Gaussians each query sees."""
    classes = jnp.asarray(field.classes, jnp.int32)[:, None]
    same = classes == label
    return same | (label == -1) if field.by_class else same


def _with_group(total: tuple[Array, ...], x: Array, coefficients: Array, group: tuple[Array, ...]) -> tuple[Array, ...]:
    """The sums with one more Gaussian: highest log weight, Σ w, Σ w velocity, Σ w prediction."""
    alpha, sigma, alpha_dot, sigma_dot = (row[:, None] for row in coefficients)
    mean, vectors, values, share = (_whole(part) for part in group[:-1])
    highest, weight, velocity, denoised = total
    variance = alpha**2 * values + sigma**2
    away = x - alpha * mean
    along = away @ vectors
    used = jnp.sum(vectors**2, axis=0) > 0.5  # columns that are padding have norm 0
    rest = away - along @ vectors.T
    prediction = mean + (alpha * values / variance * along) @ vectors.T
    noise = (sigma_dot * sigma / variance + alpha_dot * alpha * values / variance) * along
    here = alpha_dot * mean + noise @ vectors.T
    missing = x.shape[1] - jnp.sum(to64(used))
    here = here + jnp.where(missing > 0, sigma_dot / sigma * rest, 0)
    squares = jnp.sum(along**2 / variance, axis=1) + jnp.where(missing > 0, jnp.sum(rest**2, axis=1) / sigma[:, 0] ** 2, 0)
    volumes = jnp.sum(jnp.where(used, jnp.log(variance), 0), axis=1) + missing * jnp.log(sigma[:, 0] ** 2)
    own = jnp.where(group[-1], jnp.log(share) - (squares + volumes) / 2, -jnp.inf)
    top = jnp.maximum(highest, own)
    safe = jnp.where(jnp.isfinite(top), top, 0)
    old, new = jnp.exp(highest - safe), jnp.exp(own - safe)
    return top, old * weight + new, old[:, None] * velocity + new[:, None] * here, old[:, None] * denoised + new[:, None] * prediction
