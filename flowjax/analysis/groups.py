"""Groups of near-duplicates, and the turning point between groups instead of between samples.

Among near-duplicates the posterior weight is shared long after the layout is decided: the mean top-1 weight stays below one half, and the
turning point says nothing of the layout. The weight of a group is the sum of its members'; where the mean of the largest crosses one half,
a query has decided for a group.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from flowjax import stages
from flowjax.analysis.condensation import checked_labels, competitions
from flowjax.analysis.inspection import NEAR
from flowjax.analysis.spectrum import as_rows
from flowjax.metrics.neighbours import NeighbourSearch, Rows
from flowjax.path import Path, RectifiedFlow
from flowjax.stages import Prediction, TurningPoint

SHARES = (0.1, 0.5, 0.9, 1.0)
"""Of the samples with a near-duplicate, those that have one within each δ of the curve; one more δ is the greatest that counts."""
LEAST_SHARE = 0.01
"""Of samples with near-duplicates: where fewer have one, no groups are looked for."""
TIMES = np.linspace(0.04, 0.96, 24)
"""At which the weights of groups are looked at first."""
_BLOCK = 2**24  # pairs of a query and a sample at once
_PROBED, _FIRST, _MORE, _MOST = 1024, 8, 4, 512  # samples looked up first; neighbours looked up at once, by how much more, and at most


@dataclasses.dataclass(frozen=True, eq=False)
class Groups:
    """Samples within δ of each other are one group, and so are those that others connect: the components of the graph of neighbours.

    Attributes:
      delta: `[K]` distances, rising; the last is √(`NEAR` 2 tr Cov), beyond which samples are no near-duplicates.
      of: `[K, N]`, the group of each sample at each δ.
      scale: √(2 tr Cov), the root mean squared distance of two samples.
    """

    delta: Float[np.ndarray, " K"]
    of: Int[np.ndarray, "K N"]
    scale: float

    def sizes(self) -> Int[np.ndarray, "K N"]:
        """The size of each sample's group."""
        return np.stack([np.bincount(row)[row] for row in self.of])

    def with_twins(self) -> Float[np.ndarray, " K"]:
        """The share of the samples that are not alone in their group."""
        return np.mean(self.sizes() > 1, axis=1)

    def largest(self, count: int) -> list[Int[np.ndarray, " _"]]:
        """The members of the largest groups of two or more, at the greatest δ."""
        size = np.bincount(self.of[-1])
        order = np.argsort(-size, kind="stable")[:count]
        return [np.flatnonzero(self.of[-1] == group) for group in order if size[group] > 1]


def find_groups(
    data: Float[np.ndarray, "N *shape"],
    labels: Int[np.ndarray, " N"] | None = None,
    *,
    seed: int = 0,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Groups | None:
    """The groups of near-duplicates for a range of δ, or None where fewer than `LEAST_SHARE` of the samples have any.

    The δ are quantiles of the data's own distances: those within which `SHARES` of the samples with a near-duplicate have one. All pairs
    within δ are found, up to 512 neighbours of a sample.

    Args:
      labels: samples of different classes are in different groups.
      seed: of the samples that are looked up first, to see whether there are groups.

    Raises:
      ValueError: data is not `[N, *shape]` of finite real numbers; labels is not `[N]`.
    """
    rows = np.asarray(as_rows(data), np.float32)
    classes = checked_labels(labels, len(rows))
    search = NeighbourSearch(Rows.of(rows))
    most = float(np.sqrt(NEAR * search.mean_square))
    if len(rows) < 2 or most == 0:
        return None
    probed = np.random.default_rng(seed).choice(len(rows), min(_PROBED, len(rows)), replace=False)
    if np.mean(search(rows[probed], 1, own=probed).distance[:, 0] <= most) < LEAST_SHARE:
        return None
    one, other, distance = _edges(search, rows, most, progress)
    alike = classes[one] == classes[other]
    one, other, distance = one[alike], other[alike], distance[alike]
    nearest = np.full(len(rows), np.inf)
    np.minimum.at(nearest, one, distance)
    near = nearest[nearest <= most]
    if not near.size:
        return None
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    delta = np.unique(np.r_[np.quantile(near, SHARES), most])
    found = [
        connected_components(coo_array((np.ones(inside.sum()), (one[inside], other[inside])), (len(rows), len(rows))), directed=False)[1]
        for inside in (distance <= limit for limit in delta)
    ]
    return Groups(delta, np.stack(found).astype(np.int64), float(np.sqrt(search.mean_square)))


def _edges(
    search: NeighbourSearch, rows: Float[np.ndarray, "N D"], most: float, progress: Callable[[Iterable[Any]], Iterable[Any]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of a sample and a neighbour within `most`, and their distances."""
    found = []
    left, k = np.arange(len(rows)), min(_FIRST, len(rows) - 1)
    while left.size:
        near = search(rows[left], k, own=left, progress=progress)
        inside = near.distance <= most
        last = k >= min(_MOST, len(rows) - 1)
        done = np.ones(len(left), bool) if last else ~inside[:, -1]
        at, place = np.nonzero(inside & done[:, None])
        found.append((left[at], near.row[at, place], near.distance[at, place]))
        left, k = left[~done], min(_MORE * k, len(rows) - 1)
    one, other, distance = (np.concatenate(part) for part in zip(*found, strict=True))
    return one, other, distance


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
    rows = as_rows(data)
    size = np.bincount(group)
    together = np.flatnonzero(size[group] > 1)
    merged = np.array(rows, np.float32)
    if together.size:
        order = together[np.argsort(group[together], kind="stable")]
        starts = np.flatnonzero(np.r_[True, np.diff(group[order]) != 0])
        means = np.add.reduceat(rows[order].astype(np.float64), starts) / size[group[order[starts]], None]
        merged[order] = np.repeat(means, np.diff(np.r_[starts, len(order)]), axis=0)
    return stages.predict_turning_point_with_interval(merged, labels, path)


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
