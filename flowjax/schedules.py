"""Timestep grids, and the shift that moves their steps towards noise or towards data."""

import operator
from typing import TypeVar

import jax
import numpy as np
from jaxtyping import Float

Times = TypeVar("Times", float, np.ndarray, jax.Array)


def uniform_timesteps(n: int) -> Float[np.ndarray, " n_plus_1"]:
    """The n + 1 edges of exactly n equal steps from t = 0 (noise) to t = 1 (data).

    Args:
      n: number of steps, at least 1. A solver evaluates its field at the first n edges; the last is where it arrives.

    Returns:
      `[n + 1]` float64, from exactly 0 to exactly 1.

    Raises:
      ValueError: n is not an integer of at least 1.
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
      ValueError: s is not a finite number greater than 0.

    References:
      arXiv 2512.02826, Table 2 (in its convention, which is ours: t = 0 is noise).
    """
    if not 0 < s < float("inf"):
        raise ValueError(f"s = {s!r}: expected a finite shift greater than 0")
    return s * t / (1 - t + s * t)  # in this form exactly 1 at t = 1
