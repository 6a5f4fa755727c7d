"""The squared error of a field at fixed times, against the CFM target and against the oracle."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flowjax.analysis.statistics import Interval
from flowjax.analysis.sweep import Pairs
from flowjax.objective import squared_error
from flowjax.oracle import Oracle
from flowjax.path import Path
from flowjax.schedules import checked_times


class LossByTime(NamedTuple):
    """Mean squared error, per value of a sample, at each t."""

    t: Float[np.ndarray, " T"]
    cfm: Float[np.ndarray, " T"]
    """Against x_1 - x_0 of the pair: never below `cfm - oracle`, the part that no field can predict."""
    oracle: Float[np.ndarray, " T"]
    """Against the oracle: 0 for a field that has memorised the data set."""

    def split(self, turning_point: float | None) -> dict[str, float]:
        """Means over navigation (t below the turning point) and refinement; over all t where there is none."""
        if turning_point is None:
            return {"cfm/all": float(self.cfm.mean()), "oracle/all": float(self.oracle.mean())}
        found = {}
        for stage, chosen in (("navigation", self.t < turning_point), ("refinement", self.t >= turning_point)):
            for target, values in (("cfm", self.cfm), ("oracle", self.oracle)):
                found[f"{target}/{stage}"] = float(values[chosen].mean()) if chosen.any() else float("nan")
        return found


class ErrorsByTime(NamedTuple):
    """Squared errors at each t, query by query."""

    t: Float[np.ndarray, " T"]
    cfm: Float[np.ndarray, "T Q"]
    oracle: Float[np.ndarray, "T Q"]

    def mean(self) -> LossByTime:
        """Over queries."""
        return LossByTime(self.t, self.cfm.mean(1), self.oracle.mean(1))


class Reduction(NamedTuple):
    """How much smaller one error is than another, with 95 % bootstrap intervals over queries, resampled with all their times."""

    absolute: Interval
    """The difference of mean squared errors, per value of a sample."""
    relative: Interval
    """The same as a share of the first."""


def reduction(before: Float[np.ndarray, "T Q"], after: Float[np.ndarray, "_ _"], *, seed: int = 0, num_bootstrap: int = 1000) -> Reduction:
    """From one model's errors to another's on the same queries and times, in the mean over both.

    Raises:
      ValueError: errors of different shapes, or none.
    """
    if before.shape != after.shape or not before.size:
        raise ValueError(f"errors of shapes {before.shape} and {after.shape}: expected the same times and queries, at least one")
    count = before.shape[1]
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), num_bootstrap) / count
    one, other = (np.r_[part.mean(), weights @ part.mean(0)] for part in (before, after))  # the first: of the queries as they are
    return Reduction(
        *(Interval(float(part[0]), *map(float, np.percentile(part[1:], [2.5, 97.5]))) for part in (one - other, 1 - other / one))
    )


class LossByTimeMeter:
    """Measures a field again and again on the same pairs and times.

    The targets do not depend on the field: they are made once.

    Args:
      oracle: of the data that the field is trained on; with labels, if the field is told them.
      pairs: noise and data, at which the field is evaluated.
      t: `[T]` times in [0, 1), rising.

    Raises:
      ValueError: times that are not.
    """

    def __init__(self, oracle: Oracle, pairs: Pairs, t: Float[np.ndarray, " T"]):
        self._path: Path = oracle.path
        self._pairs, self._t = pairs, checked_times(np.asarray(t, np.float32), one=False)
        self._targets = [_targets(oracle, pairs, jnp.float32(time)) for time in self._t]

    def __call__(self, field: Callable[[Array, Array, Array | None], Array]) -> LossByTime:
        """`field(x, t, label)`, jitted by the caller."""
        return self.each(field).mean()

    def each(self, field: Callable[[Array, Array, Array | None], Array]) -> ErrorsByTime:
        """Squared errors at each t, query by query."""
        cfm, exact = [], []
        for time, (conditional, marginal) in zip(self._t, self._targets, strict=True):
            t = jnp.full(len(self._pairs.x_0), time)
            velocity = field(self._path.interpolate(self._pairs.x_0, self._pairs.x_1, t), t, self._pairs.labels)
            cfm.append(np.asarray(squared_error(velocity, conditional), np.float64))
            exact.append(np.asarray(squared_error(velocity, marginal), np.float64))
        return ErrorsByTime(self._t.astype(np.float64), np.array(cfm), np.array(exact))


def _targets(oracle: Oracle, pairs: Pairs, t: Float[Array, ""]) -> tuple[Array, Array]:
    x_t = oracle.path.interpolate(pairs.x_0, pairs.x_1, t)
    marginal = oracle(x_t, t, pairs.labels, moments="velocity").velocity
    return oracle.path.conditional_velocity(pairs.x_0, pairs.x_1, t), marginal
