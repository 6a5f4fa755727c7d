"""Scores of the settings of a sweep, compared over seeds that all settings share: the best setting, and regrets."""

import dataclasses

import numpy as np
from jaxtyping import Float

from flowjax.analysis.statistics import Interval, mean_interval


@dataclasses.dataclass(frozen=True)
class PairedScores:
    """Scores of settings on seeds; lower is better.

    Attributes:
      scores: `[settings, seeds]`, above 0; a seed means the same noise for every setting, so that differences are paired.

    Raises:
      ValueError: scores that are no table of finite numbers above 0, of at least two seeds.
    """

    scores: Float[np.ndarray, "S R"]

    def __post_init__(self) -> None:
        values = np.asarray(self.scores)
        if values.ndim != 2 or not values.size or values.shape[1] < 2 or not (np.isfinite(values) & (values > 0)).all():
            raise ValueError(f"scores of shape {values.shape}: expected [settings, seeds], at least 2 seeds, finite and above 0")

    @property
    def best(self) -> int:
        """The setting with the lowest mean."""
        return int(self.scores.mean(1).argmin())

    def score(self, setting: int) -> Interval:
        """Mean over seeds."""
        return Interval(*mean_interval(self.scores[setting]))

    def change(self, setting: int, other: int) -> Interval:
        """`score(setting) / score(other) - 1`, the mean over seeds of logarithms of ratios: below 0 where the setting is better."""
        return _relative(np.log(self.scores[setting] / self.scores[other]))

    def beside(self, setting: int, other: int) -> Interval:
        """A setting's score, with the interval of its difference from another one's: what both share on a seed is left out."""
        scale = float(self.scores[other].mean())
        return Interval(*(scale * (1 + part) for part in self.change(setting, other)))

    def regret(self, setting: int) -> Interval:
        """How much worse than the best a setting is, as a share of the best's score.

        On each seed the best setting is chosen on the other seeds: chosen and measured on one seed it would seem better than it is. So the
        regret of the best setting can come out below 0.
        """
        count = self.scores.shape[1]
        rivals = [int(np.delete(self.scores, seed, axis=1).mean(1).argmin()) for seed in range(count)]
        return _relative(np.log(self.scores[setting] / self.scores[rivals, np.arange(count)]))


def percent(share: Interval) -> str:
    """A share with its interval, as text."""
    return f"{share.value:+.1%}, 95 %: {share.low:+.1%} to {share.high:+.1%}"


def _relative(logs: Float[np.ndarray, " R"]) -> Interval:
    return Interval(*(float(np.expm1(part)) for part in mean_interval(logs)))
