"""The protocol of analytic fields, and what they share: validation of data and queries, and fields that the host computes."""

import abc
import math
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from flowjax.analysis.spectrum import as_rows
from flowjax.data.dataset import checked_labels
from flowjax.fields import Label
from flowjax.oracle.backends import all_seen
from flowjax.oracle.compiled import coefficients, velocity_center
from flowjax.path import Path, RectifiedFlow
from kernels.float64 import float64_scope, to32, to64


@runtime_checkable
class AnalyticField(Protocol):
    """A field that also tells its prediction of the data."""

    def __call__(self, x_t: Float[Array, "B *shape"], t: ArrayLike, label: Label = None) -> Float[Array, "B *shape"]:
        """The velocity; t scalar or `[B]`; label None or `[B]`, -1: all samples."""

    def denoised(self, x_t: Float[Array, "B *shape"], t: ArrayLike, label: Label = None) -> Float[Array, "B *shape"]:
        """E[x_1 | x_t] under the field's model of the data, in the unit of the data."""


class LabelledRows(NamedTuple):
    """Samples in the order of their classes."""

    rows: Float[np.ndarray, "N D"]
    """float32."""
    shape: tuple[int, ...]
    classes: dict[int, slice]
    """The rows of each class; of -1: all."""


def labelled_rows(data: ArrayLike, labels: ArrayLike | None) -> LabelledRows:
    """Data and labels, validated.

    Raises:
      ValueError: data that are not `[N, *shape]`, not real or not finite; labels that are not N integers >= 0.
    """
    rows = as_rows(data).astype(np.float32, copy=False)
    classes = {-1: slice(0, len(rows))}
    own = checked_labels("data", None if labels is None else np.asarray(labels), len(rows), None)
    if own is not None:
        order = np.argsort(own, kind="stable")
        rows, values = rows[order], own[order]
        found, starts = np.unique(values, return_index=True)
        ends = [*starts[1:], len(values)]
        classes |= {int(label): slice(int(start), int(end)) for label, start, end in zip(found, starts, ends, strict=True)}
    return LabelledRows(rows, np.shape(data)[1:], classes)


def checked_path(path: Path | None) -> Path:
    """The path, rectified flow where it is None."""
    if path is not None and not isinstance(path, Path):
        raise ValueError(f"path must be a flowjax.path.Path, got {path!r}")
    return RectifiedFlow() if path is None else path


def checked_query(
    x_t: ArrayLike, t: ArrayLike, label: ArrayLike | None, shape: tuple[int, ...], classes: Any
) -> tuple[Float[Array, "B *shape"], Float[Array, " B"], Int[Array, " B"]]:
    """x float32, t and label `[B]`, validated where their values can be seen.

    Args:
      classes: the labels that may be given.

    Raises:
      ValueError: shapes that do not fit, t outside [0, 1], a label without samples.
    """
    x = jnp.asarray(x_t).astype(jnp.float32)
    if x.ndim == 0 or x.shape[1:] != shape:
        raise ValueError(f"x_t must have shape {('B', *shape)}, a batch of samples; got {x.shape}")
    time = jnp.asarray(t).astype(jnp.float32)
    if time.shape not in ((), (len(x),)):
        raise ValueError(f"t must be a scalar or of shape ({len(x)},), got shape {time.shape}")
    if all_seen(time) and not (inside := (np.asarray(time) >= 0) & (np.asarray(time) <= 1)).all():
        raise ValueError(f"t must lie in [0, 1], got {float(np.ravel(time)[inside.argmin()])!r}")
    asked = jnp.full(len(x), -1, jnp.int32) if label is None else jnp.asarray(label)
    if not jnp.issubdtype(asked.dtype, jnp.integer) or asked.shape not in ((), (len(x),)):
        raise ValueError(f"label must be an integer or integers of shape ({len(x)},), got {asked.dtype} of shape {asked.shape}")
    if label is not None and len(classes) == 1 and not (all_seen(asked) and (np.asarray(asked) == -1).all()):
        raise ValueError("label was given, but the field has no labels: make it of data and labels")
    if all_seen(asked) and not (known := np.isin(np.asarray(asked), list(classes))).all():
        raise ValueError(f"label {int(np.ravel(asked)[known.argmin()])} has no samples: expected one of {sorted(classes)[:12]}")
    return x, jnp.broadcast_to(time, len(x)), jnp.broadcast_to(asked.astype(jnp.int32), len(x))


class HostQueries(NamedTuple):
    """Queries as the host computes them."""

    x: Float[np.ndarray, "B *shape"]
    """float32."""
    t: Float[np.ndarray, " B"]
    """float32."""
    alpha: Float[np.ndarray, " B"]
    """float64, as σ is."""
    sigma: Float[np.ndarray, " B"]
    label: Int[np.ndarray, " B"]


class HostField(abc.ABC):
    """A field that NumPy and numba compute on the host; compiled programs call it by `jax.pure_callback`.

    A pytree without leaves, equal to itself alone: a program is compiled once for each field, and keeps it alive. It has no derivatives,
    and no posterior at t = 1, where solvers do not evaluate it.
    """

    def __init_subclass__(cls) -> None:
        jax.tree_util.register_static(cls)

    def __init__(self, shape: tuple[int, ...], classes: Iterable[int], path: Path | None):
        self.path = checked_path(path)
        self.shape = shape
        self.classes = sorted(classes)
        """The labels that may be given; -1 is one of them."""

    @abc.abstractmethod
    def _predict(self, queries: HostQueries) -> Float[np.ndarray, "B *shape"]:
        """E[x_1 | x_t], float64, of queries of known classes with finite x. Calls nothing of JAX."""

    def __call__(self, x_t: ArrayLike, t: ArrayLike, label: ArrayLike | None = None) -> Float[Array, "B *shape"]:
        """The velocity `A_t (E[x_1 | x_t] - κ_t x)`, float32.

        Args:
          x_t: `[B, *shape]`.
          t: scalar or `[B]`, in [0, 1].
          label: None, a scalar or `[B]`: the class to condition on; -1: all samples.

        Raises:
          ValueError: shapes that do not fit, t outside [0, 1), a label without samples. Under tracing such a row gives NaN.
        """
        return self._asked(x_t, t, label, 0)

    def denoised(self, x_t: ArrayLike, t: ArrayLike, label: ArrayLike | None = None) -> Float[Array, "B *shape"]:
        """The prediction of the data, float32. Arguments and errors as of a call."""
        return self._asked(x_t, t, label, 1)

    def _asked(self, x_t: ArrayLike, t: ArrayLike, label: ArrayLike | None, which: int) -> Float[Array, "B *shape"]:
        x, time, asked = checked_query(x_t, t, label, self.shape, self.classes)
        if all_seen(x, time, asked):
            times = np.asarray(time)
            if (times == 1).any():
                raise ValueError("t = 1: the field has no posterior there; no solver evaluates it, give a t below 1")
            of = coefficients(self.path, times) if len(times) else None
            bits = np.zeros((4, 0)) if of is None else np.stack([of.alpha, of.sigma, of.center, of.rate])
            return jnp.asarray(self._both(np.asarray(x), times, bits, np.asarray(asked))[which])
        with float64_scope():
            inside = jnp.where(time < 1, to64(time), 0.5)
            rate = jnp.where(time < 1, self.path.A(inside), jnp.nan)
            exact = to64(time)
            four = jnp.stack([self.path.alpha(exact), self.path.sigma(exact), velocity_center(self.path, exact), rate])
            bits32 = jax.lax.bitcast_convert_type(four, jnp.int32)
            result = jax.ShapeDtypeStruct((2, *x.shape), jnp.float32)
            both = jax.pure_callback(self._called, result, to32(x), to32(time), bits32, asked, vmap_method="sequential")
        return both[which]

    def _called(self, x: ArrayLike, t: ArrayLike, bits: ArrayLike, label: ArrayLike) -> np.ndarray:
        """Velocity and prediction; JAX would round float64 to float32 on the way, hence the bits of the coefficients."""
        four = np.array(bits, np.int32).view(np.float64)[..., 0]
        return self._both(np.asarray(x), np.asarray(t), four, np.asarray(label))

    def _both(self, x: np.ndarray, t: np.ndarray, four: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Velocity and prediction `[2, B, *shape]` float32."""
        found = np.full((2, *x.shape), np.nan, np.float32)
        flat = x.reshape(len(x), math.prod(self.shape))
        sound = np.isfinite(flat).all(axis=1) & (t >= 0) & (t < 1) & np.isin(label, self.classes)
        (rows,) = np.nonzero(sound)
        if not rows.size:
            return found
        alpha, sigma, center, rate = four[:, rows]
        denoised = self._predict(HostQueries(x[rows], t[rows], alpha, sigma, label[rows]))
        across = (slice(None), *(None for _ in self.shape))
        away = denoised - center[across] * x[rows].astype(np.float64)
        found[0, rows], found[1, rows] = rate[across] * away, denoised
        return found
