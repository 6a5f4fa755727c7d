"""Intervals for means over queries, and for shares of trials."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float


class Interval(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} (95 %: {self.low:.3g} to {self.high:.3g})"


class Curve(NamedTuple):
    """A mean against t, with its 95 % interval."""

    mean: Float[np.ndarray, " T"]
    low: Float[np.ndarray, " T"]
    high: Float[np.ndarray, " T"]


def mean_curve(values: Float[np.ndarray, "T Q"], at_most: float = np.inf) -> Curve:
    """Mean over queries and its 95 % interval, mean ± 1.96 s/√Q, for values in [0, at_most]."""
    mean = values.mean(axis=1)
    spread = 1.96 * values.std(axis=1, ddof=min(1, values.shape[1] - 1)) / np.sqrt(values.shape[1])
    return Curve(mean, np.maximum(mean - spread, 0), np.minimum(mean + spread, at_most))


def mean_interval(values: Float[np.ndarray, " R"]) -> tuple[float, float, float]:
    """Mean of a few repetitions and its 95 % interval by Student's t; the interval is the mean itself for a single one."""
    mean = float(values.mean())
    if len(values) < 2:
        return mean, mean, mean
    from scipy import stats

    spread = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - spread, mean + spread


class Share(NamedTuple):
    """A share of a number of trials, with its 95 % interval (Wilson's)."""

    value: float
    low: float
    high: float


def share(happened: Bool[np.ndarray, " B"]) -> Share:
    """How often something happened.

    References:
      Wilson 1927: it holds for shares of 0 and 1 too.
    """
    from scipy import stats

    found = stats.binomtest(int(happened.sum()), len(happened)).proportion_ci(method="wilson")
    return Share(float(happened.mean()), float(found.low), float(found.high))


def bootstrap_interval(
    statistic: Callable[..., float], *samples: Float[np.ndarray, "Q ..."], seed: int = 0, num_bootstrap: int = 1000
) -> Interval:
    """A statistic of one or more samples with its 95 % percentile-bootstrap interval; each sample is drawn again along its first axis."""
    rng = np.random.default_rng(seed)
    again = [statistic(*(part[rng.integers(len(part), size=len(part))] for part in samples)) for _ in range(num_bootstrap)]
    low, high = np.percentile(again, [2.5, 97.5])
    return Interval(float(statistic(*samples)), float(low), float(high))
