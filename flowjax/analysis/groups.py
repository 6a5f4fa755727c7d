"""The turning point between groups of near-duplicates instead of between samples.

Among near-duplicates the posterior weight is shared long after the layout is decided: the mean top-1 weight stays below one half, and the
turning point says nothing of the layout. The weight of a group is the sum of its members'; where the mean of the largest crosses one half,
a query has decided for a group.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from flowjax import stages
from flowjax.analysis.condensation import competitions
from flowjax.analysis.near_duplicates import Groups, in_group_means
from flowjax.analysis.spectrum import as_rows
from flowjax.path import Path, RectifiedFlow
from flowjax.stages import Prediction, TurningPoint

TIMES = np.linspace(0.04, 0.96, 24)
"""At which the weights of groups are looked at first."""
_BLOCK = 2**24  # pairs of a query and a sample at once


@dataclasses.dataclass(frozen=True)
class GroupedTurn:
    """The turning point between groups, measured and predicted.

    Attributes:
      delta: samples within this distance of each other are one group; 0: the turning point between samples.
      share: of the samples that have a near-duplicate within δ.
      groups: how many there are.
    """

    delta: float
    share: float
    groups: int
    turning_point: TurningPoint
    predicted: Prediction


def grouped_turning_points(
    data: Float[np.ndarray, "N *shape"],
    groups: Groups,
    labels: Int[np.ndarray, " N"] | None = None,
    path: Path | None = None,
    *,
    num_queries: int = 256,
    seed: int = 0,
) -> list[GroupedTurn]:
    """The turning point between groups for each δ, and that between samples before them.

    Args:
      labels: None, or `[N]`: then each query competes within its own class.
      num_queries, seed: of the queries, x = α y_i + σ z of samples drawn without replacement.

    Raises:
      ValueError: as `stages.predict_turning_point_from_data`.
    """
    path, rows = path or RectifiedFlow(), as_rows(data)
    every = [np.arange(len(rows)), *groups.of]
    times, found = TIMES, np.zeros((len(every), 0, num_queries))
    more = TIMES
    while more.size:
        log_snr = np.asarray([path.log_snr(t) for t in more], np.float64)
        weights = _group_weights(rows, every, labels, np.exp(log_snr / 2), num_queries, seed)
        found = np.concatenate([found, weights], axis=1)
        times = np.r_[times[: found.shape[1] - len(more)], more]
        order = np.argsort(times)
        times, found = times[order], found[:, order]
        more = np.unique(np.concatenate([stages.bracketing_times(times, curve, seed=seed) for curve in (found[0], found[-1])]))
        more = more[more > 0]
    shares = np.r_[0.0, groups.with_twins()]
    result = []
    for delta, share, of, curve in zip(np.r_[0.0, groups.delta], shares, every, found, strict=True):
        turn = stages.turning_point_of_curve(times, np.minimum(curve, 1), seed=seed)
        result.append(GroupedTurn(float(delta), float(share), int(of.max()) + 1, turn, predict_between_groups(rows, of, labels, path)))
    return result


def decisive(turns: list[GroupedTurn]) -> GroupedTurn:
    """The smallest δ that matters: that from which on every turning point lies in the interval of the last."""
    last = turns[-1].turning_point
    if last.measured is None:
        return turns[-1]
    assert last.ci_low is not None
    assert last.ci_high is not None
    found = turns[-1]
    for one in reversed(turns):
        if one.turning_point.measured is None or not last.ci_low <= one.turning_point.measured <= last.ci_high:
            break
        found = one
    return found


def predict_between_groups(
    data: Float[np.ndarray, "N *shape"], group: Int[np.ndarray, " N"], labels: Int[np.ndarray, " N"] | None = None, path: Path | None = None
) -> Prediction:
    """The turning point between groups, predicted: that of the data with each sample in its group's mean, which then counts as often as the
    group has members. It says little (`Prediction.unsure`) where `stages.predict_turning_point_with_interval` does.

    Args:
      group: of each sample, from 0.
    """
    return stages.predict_turning_point_with_interval(in_group_means(as_rows(data), group), labels, path)


def _group_weights(
    rows: Float[np.ndarray, "N D"],
    every: list[Int[np.ndarray, " N"]],
    labels: Int[np.ndarray, " N"] | None,
    ratios: Float[np.ndarray, " R"],
    num_queries: int,
    seed: int,
) -> Float[np.ndarray, "K R Q"]:
    """The largest weight of a group, for each grouping, α/σ and query."""
    drawn = np.random.default_rng(seed).permutation(np.tile(np.arange(len(rows)), -(-num_queries // len(rows))))[:num_queries]
    found = np.zeros((len(every), len(ratios), num_queries))
    at_once = int(np.clip(_BLOCK // len(rows), 8, num_queries))
    for start in range(0, num_queries, at_once):
        queries = drawn[start : start + at_once]
        for chunk, blocks in competitions(rows, labels, queries, num_queries=len(queries), seed=seed + start):
            along, gap, log_odds, members = (np.concatenate(part, axis=-1) for part in zip(*blocks, strict=True))
            orders = [_members_of_several(group[members]) for group in every]
            for r, ratio in enumerate(ratios.astype(np.float32)):
                scores = ratio * along - ratio**2 / 2 * gap + log_odds
                weights = np.exp(scores - scores.max(1, keepdims=True))
                total, top = weights.sum(1, dtype=np.float64), weights.max(1).astype(np.float64)
                for k, (order, starts) in enumerate(orders):
                    sums = np.add.reduceat(weights[:, order], starts, axis=1).max(1) if order.size else 0
                    found[k, r, start + chunk] = np.maximum(top, sums) / total
    return found


def _members_of_several(group: Int[np.ndarray, " M"]) -> tuple[Int[np.ndarray, " A"], Int[np.ndarray, " S"]]:
    """The places of those that share a group with others, group after group, and where each group starts among them."""
    group = np.unique(group, return_inverse=True)[1]
    order = np.argsort(group, kind="stable")
    order = order[np.bincount(group)[group[order]] > 1]
    return order, np.flatnonzero(np.r_[True, np.diff(group[order]) != 0]) if order.size else order
