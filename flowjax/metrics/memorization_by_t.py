"""Where in t a field fits the oracle of its training data better than that of unseen data: there it has memorised."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from flowjax.analysis.statistics import Curve, Interval

PERCENTILES = (2.5, 97.5)


class Advantage(NamedTuple):
    """`1 - E_training / E_unseen`, where E is the mean squared error of a field against an oracle, on noised samples of that oracle.

    Both oracles are of as many samples of one distribution. For a field that learned the distribution, and nothing of its training samples,
    they are exchangeable: the advantage is 0 at every t, however wrong the field is. For one that memorised its training samples it is 1.
    """

    by_t: Curve
    """With 95 % bootstrap intervals over the queries of both, each resampled with all its times."""
    navigation: Interval | None
    """Of the mean errors over t below the turning point; None where there is no t."""
    refinement: Interval | None
    overall: Interval

    def sure(self, t: Float[np.ndarray, " T"]) -> list[tuple[float, float]]:
        """The spans of t, each from its first to its last t, at which the interval lies above 0."""
        above = np.concatenate([[False], self.by_t.low > 0, [False]])
        edges = np.flatnonzero(np.diff(above.astype(int)))
        return [(float(t[start]), float(t[end - 1])) for start, end in edges.reshape(-1, 2)]

    def first_sure(self, t: Float[np.ndarray, " T"]) -> float | None:
        """The t from which on the interval lies above 0 at every later t; None where it does not at the last."""
        sure = self.by_t.low > 0
        return None if not sure[-1] else float(t[len(sure) - int(np.cumprod(sure[::-1]).sum())])


def advantage(
    training: Float[np.ndarray, "T Q"],
    unseen: Float[np.ndarray, "_ R"],
    t: Float[np.ndarray, " T"],
    turning_point: float | None,
    *,
    seed: int = 0,
    num_bootstrap: int = 1000,
) -> Advantage:
    """From squared errors of each query at each t, of one field against both oracles.

    Args:
      training: against the oracle of training samples, on their noised queries.
      unseen: against the oracle of unseen samples, on theirs.
      turning_point: what divides the two stages; None: there are none.

    Raises:
      ValueError: no times or queries, or other times in one than in the other.
    """
    if training.shape[0] != unseen.shape[0] or training.shape[0] != len(t) or not training.size or not unseen.size:
        raise ValueError(f"errors of shapes {training.shape} and {unseen.shape} at {len(t)} times: expected [T, Q] of the same times")
    rng = np.random.default_rng(seed)

    def means(errors: np.ndarray) -> np.ndarray:
        """`[1 + num_bootstrap, T]`: of the queries as they are, and drawn again."""
        count = errors.shape[1]
        weights = rng.multinomial(count, np.full(count, 1 / count), num_bootstrap) / count
        return np.concatenate([errors.mean(1)[None], weights @ errors.T])

    own, other = means(training), means(unseen)

    def interval(chosen: np.ndarray) -> Interval | None:
        if not chosen.any():
            return None
        share = 1 - own[:, chosen].mean(1) / other[:, chosen].mean(1)
        return Interval(float(share[0]), *map(float, np.percentile(share[1:], PERCENTILES)))

    share = 1 - own / other
    low, high = np.percentile(share[1:], PERCENTILES, axis=0)
    overall = interval(np.ones(len(t), bool))
    assert overall is not None
    before = np.zeros(len(t), bool) if turning_point is None else np.asarray(t) < turning_point
    after = np.zeros(len(t), bool) if turning_point is None else ~before
    return Advantage(Curve(share[0], low, high), interval(before), interval(after), overall)
