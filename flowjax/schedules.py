"""Timestep grids, the shift that moves their steps towards noise or towards data, and the times that training draws."""

import dataclasses
import operator
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax.typing import ArrayLike
from jaxtyping import Float

Times = TypeVar("Times", float, np.ndarray, jax.Array)


def checked_times(t: ArrayLike, name: str = "t", *, at_least: int = 1, one: bool = True, rising: bool = True) -> Float[np.ndarray, " T"]:
    """Validate a grid of times, and return it as an array.

    Args:
      t: `[T]`.
      name: of the argument, for the message.
      at_least: the fewest times that make sense.
      one: whether t = 1 may be among them.
      rising: whether each has to lie above the one before.

    Returns:
      `[T]`, in the dtype of t if that is floating, float64 otherwise.

    Raises:
      ValueError: t is not a vector of `at_least` numbers; one of them is NaN, outside [0, 1], or not above the one before. The message
        names the first that is wrong.
    """
    times = np.asarray(t)
    if not np.issubdtype(times.dtype, np.floating):
        times = times.astype(np.float64)

    def refused(what: str, which: str = "") -> ValueError:
        shown = np.array2string(times, threshold=8, edgeitems=3, max_line_width=10**6, separator=", ")
        expected = f"expected {'strictly rising ' if rising else ''}times in [0, 1{']' if one else ')'}, at least {at_least} of them"
        return ValueError(f"{name} = {shown}{what}: {expected}{which}")

    if times.ndim != 1 or len(times) < at_least:
        raise refused(f", of shape {times.shape}")
    outside = ~((times >= 0) & ((times <= 1) if one else (times < 1)))  # NaN is outside, too
    if outside.any():
        index = int(outside.argmax())
        raise refused("", f"; entry {index} is {times[index]}")
    falls = np.diff(times) <= 0
    if rising and falls.any():
        index = int(falls.argmax())
        raise refused("", f"; entry {index + 1} is {times[index + 1]}, and the one before it {times[index]}")
    return times


def shown_time(t: float | None) -> str:
    """A time as text: three decimals, and near an end of [0, 1] as many as distinguish it from that end; "none" for None."""
    if t is None:
        return "none"
    if 0 < t < 0.01:
        return f"{t:.3g}"
    return f"{t:.{max(3, 1 - int(np.floor(np.log10(1 - t)))) if t < 1 else 3}f}"


def uniform_timesteps(n: int) -> Float[np.ndarray, " n_plus_1"]:
    """The n + 1 edges of exactly n equal steps from t = 0 (noise) to t = 1 (data).

    Args:
      n: number of steps, at least 1. A solver evaluates its field at the first n edges; the last is where it arrives.

    Returns:
      `[n + 1]` float64, from exactly 0 to exactly 1.

    Raises:
      ValueError: n is not an integer of at least 1.

    Examples:
      >>> uniform_timesteps(4).tolist()
      [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    try:
        steps = operator.index(n)
    except TypeError:
        steps = 0
    if steps < 1:
        raise ValueError(f"n = {n!r}: expected an integer of at least 1, the number of steps")
    return np.linspace(0.0, 1.0, steps + 1)


def shift(t: Times, s: float) -> Times:
    """The timestep shift `s t / (1 + (s - 1) t)`: it keeps 0 and 1, and s < 1 spends more of the steps near noise (t = 0).

    Shifts compose by multiplying, so `shift(shift(t, s), 1 / s) = t`.

    Args:
      t: times in [0, 1], of any shape; NumPy or JAX, traced or not.
      s: the shift, greater than 0; 1 changes nothing.

    Returns:
      The shifted times, in the shape and dtype of t.

    Raises:
      ValueError: s is not a finite number greater than 0; a time that is not traced is NaN or outside [0, 1].

    Examples:
      >>> shift(np.array([0.0, 0.25, 0.5, 1.0]), 0.5).round(3).tolist()
      [0.0, 0.143, 0.333, 1.0]

    References:
      arXiv 2512.02826, Table 2 (in its convention, which is ours: t = 0 is noise).
    """
    if not 0 < s < float("inf"):
        raise ValueError(f"s = {s!r}: expected a finite shift greater than 0")
    if not isinstance(t, jax.core.Tracer):
        checked_times(np.ravel(t), at_least=0, rising=False)
    return s * t / (1 - t + s * t)  # in this form exactly 1 at t = 1


@dataclasses.dataclass(frozen=True)
class TimeDistribution:
    """The distribution of t in training: uniform or logit-normal, shifted, and restricted to a range. Static under `jax.jit`.

    Shifting adds log(s) to the logit of t, as `shift` does. The range conditions the distribution on t_min <= t <= t_max: within it the
    density keeps its shape, so a specialist for one stage is trained as a generalist is there.

    Attributes:
      kind: "uniform", or "logit_normal": logit t ~ N(mean, std²).
      mean, std: of the logit; "uniform" ignores them.
      shift: s of `shift`; 1 changes nothing.
      t_min, t_max: the range.

    Raises:
      ValueError: an unknown kind, a range that is empty or reversed, a std or shift that is not above 0, a mean that is not finite.

    References:
      Logit-normal: Esser et al. 2024, section 3.1. Range: the split models of arXiv 2512.02826, Table 1.
    """

    kind: str = "uniform"
    mean: float = 0.0
    std: float = 1.0
    shift: float = 1.0
    t_min: float = 0.0
    t_max: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ("uniform", "logit_normal"):
            raise ValueError(f"times.kind = {self.kind!r}: expected uniform or logit_normal")
        if not 0 <= self.t_min < self.t_max <= 1:
            raise ValueError(f"times.t_min = {self.t_min}, times.t_max = {self.t_max}: expected 0 <= t_min < t_max <= 1")
        if not (0 < self.std < float("inf") and 0 < self.shift < float("inf")):
            raise ValueError(f"times.std = {self.std}, times.shift = {self.shift}: expected finite numbers above 0")
        if not np.isfinite(self.mean):
            raise ValueError(f"times.mean = {self.mean}: expected a finite number")

    def sample(self, key: jax.Array, n: int) -> Float[jax.Array, " n"]:
        """`n` draws, float32, by the inverse of the cumulative distribution."""
        low, high = self._cumulative(self.t_min), self._cumulative(self.t_max)
        u = low + (high - low) * jax.random.uniform(key, (n,), jnp.float32)
        if self.kind == "uniform":
            t = shift(u, self.shift)
        else:
            t = jax.nn.sigmoid(self.mean + float(np.log(self.shift)) + self.std * jax.scipy.special.ndtri(u))
        return jnp.clip(t, self.t_min, self.t_max)

    def _cumulative(self, t: float) -> float:
        if self.kind == "uniform" or t in (0, 1):
            return float(shift(t, 1 / self.shift))
        return float(scipy.special.ndtr((np.log(t / (1 - t)) - self.mean - np.log(self.shift)) / self.std))
