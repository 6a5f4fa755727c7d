"""Near-duplicates of a data set: how near samples are some, and the groups that they form."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from flowjax.analysis.condensation import checked_labels
from flowjax.analysis.inspection import NEAR
from flowjax.analysis.spectrum import as_rows
from flowjax.metrics.neighbours import NeighbourSearch, Rows

SHARES = (0.1, 0.5, 0.9, 1.0)
"""Of the samples with a near-duplicate, those that have one within each δ of the curve; one more δ is the greatest that counts."""
LEAST_SHARE = 0.01
"""Of samples with near-duplicates: where fewer have one, no groups are looked for."""
_PROBED, _FIRST, _MORE, _MOST = 1024, 8, 4, 512  # samples looked up first; neighbours looked up at once, by how much more, and at most
_SAMPLED = 1024  # samples whose spectrum tells how near two come by chance


def near_square(data: Float[np.ndarray, "N *shape"]) -> float:
    """The squared distance up to which samples are near-duplicates, `NEAR` 2 tr Cov, from some of the samples.

    0 where samples of no more structure than a Gaussian come as near by chance: in k = (tr Cov)² / tr Cov² dimensions two do so with a
    probability P(χ²_k ≤ `NEAR` k), and N times that is more than `LEAST_SHARE`. In a plane every sample has neighbours within a seventh of
    the mean distance, and none of them is a duplicate.
    """
    rows = as_rows(data)
    some = rows[np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLED)).astype(int)].astype(np.float64)
    some -= some.mean(0)
    gram = some @ some.T / len(some)
    trace, square = float(np.trace(gram)), float((gram**2).sum())
    if square == 0:
        return 0.0
    dimensions = trace**2 / square
    from scipy import stats

    by_chance = len(rows) * stats.chi2.cdf(NEAR * dimensions, dimensions)
    return 0.0 if by_chance > LEAST_SHARE else 2 * NEAR * trace


def in_group_means(rows: Float[np.ndarray, "N D"], group: Int[np.ndarray, " N"]) -> Float[np.ndarray, "N D"]:
    """Each sample in its group's mean, which then counts as often as the group has members."""
    size = np.bincount(group)
    together = np.flatnonzero(size[group] > 1)
    merged = np.array(rows, np.float32)
    if together.size:
        order = together[np.argsort(group[together], kind="stable")]
        starts = np.flatnonzero(np.r_[True, np.diff(group[order]) != 0])
        means = np.add.reduceat(rows[order].astype(np.float64), starts) / size[group[order[starts]], None]
        merged[order] = np.repeat(means, np.diff(np.r_[starts, len(order)]), axis=0)
    return merged


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
