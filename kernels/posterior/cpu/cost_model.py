"""The cost model: what a dense pass and a pruned search cost on this machine and these data.

It is measured when the index is made, and consulted before each call. Two things are measured: the time of a bound, a score by bytes, a
weight and a dense pass on this machine; and the share of this data set's samples that survive each bound, by noise level.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from kernels.posterior.cpu.accumulate import Task
from kernels.posterior.cpu.bounds import LEAF
from kernels.posterior.cpu.full_pass import dense_tile
from kernels.posterior.cpu.index import Index
from kernels.posterior.cpu.pruned_search import PrunedSearch
from kernels.posterior.cpu.results import HostMoments
from kernels.posterior.cpu.tuning import TUNING
from kernels.posterior.types import Queries

Way = Literal["dense", "bounds", "products"]
"""A pass over all samples; bounds, then scores by bytes of what they leave; or a product with the bytes of all samples."""
RATIOS = np.geomspace(0.05, 20, 25)
"""σ/α at which survivors are counted. Beyond the last, all samples survive."""


class SurvivorFractions(NamedTuple):
    """Shares of the samples, at each of `RATIOS`."""

    bounded: Float[np.ndarray, " T"]
    """Samples that are bounded one by one, each bound as many times as it costs of the first: `TUNING.bound_costs`."""
    scored: Float[np.ndarray, " T"]
    """Samples that survive the bounds, and are scored by their bytes."""
    weighed: Float[np.ndarray, " T"]
    """Samples that survive those scores, and are weighed exactly."""

    def at(self, ratio: float) -> tuple[float, float, float]:
        """The three shares at any σ/α, interpolated."""
        if not 0 < ratio <= RATIOS[-1]:
            return sum(TUNING.bound_costs), 1.0, 1.0
        bounded, scored, weighed = (float(np.interp(np.log(ratio), np.log(RATIOS), shares)) for shares in self)
        return bounded, scored, weighed


@dataclasses.dataclass(frozen=True)
class Costs:
    """Seconds on this machine: for one query, and for one query and one sample of this data set."""

    query: float
    """The query's tables and moments, however many samples there are."""
    box: float
    """The sample's share of the bound of its leaf."""
    bound: float
    """The sample's bound by the first columns."""
    score: float
    """The sample's score by its bytes."""
    product: float
    """The sample's score in a product with the bytes of all samples."""
    weigh: float
    """The sample's weight, and its part in the sums."""
    dense: float
    """The sample's share of a dense pass, early in time."""

    def of_dense(self, survivors: SurvivorFractions, ratio: float) -> float:
        """The sample's share of a dense pass at σ/α = `ratio`: where few samples have weight, the second of two products is left out."""
        return self.dense * (1 + min(1.0, survivors.at(ratio)[2] / TUNING.sparse_weights)) / 2

    def cheapest(self, survivors: SurvivorFractions, ratio: float, n: int) -> tuple[Way, float]:
        """The cheaper form of pruned search of `n` samples at σ/α = `ratio`, and its cost as a share of a dense pass over them."""
        bounded, scored, weighed = survivors.at(ratio)
        bounds = self.box + bounded * self.bound + scored * self.score
        products = self.product + weighed * self.score
        way: Way = "bounds" if bounds <= products else "products"
        return way, (self.query / n + min(bounds, products) + weighed * self.weigh) / self.of_dense(survivors, ratio)


@dataclasses.dataclass(frozen=True)
class Choice:
    """How queries with one σ/α are computed, and why."""

    ratio: float
    """σ/α."""
    way: Way
    n: int
    scored: float
    """Share of the samples expected to survive the bounds."""
    survivors: float
    """Share of the samples that are expected to be weighed."""
    cost: float
    """Cost as a share of a dense pass."""

    def __str__(self) -> str:
        if self.way == "dense":
            return (
                f"dense: at σ/α = {self.ratio:.3g} bounds leave {self.scored:.0%} of the {self.n:,} samples; a pass over all of them by "
                "matrix products costs less"
            )
        how = (
            f"bounds are expected to leave {self.scored:.2%} of the {self.n:,} samples, and scores of these by their bytes"
            if self.way == "bounds"
            else f"a product with the bytes of all {self.n:,} samples is expected to leave"
        )
        share = f"{self.survivors:.2%}, which are weighed exactly; about {self.cost:.0%} of a dense pass"
        return f"pruned: at σ/α = {self.ratio:.3g} {how} {share}"


def choose(n: int, costs: Costs, survivors: SurvivorFractions, ratio: float) -> Choice:
    """The cheapest way for queries with σ/α = `ratio`, by the survivors that were counted on this data set."""
    way, cost = costs.cheapest(survivors, ratio, n)
    _, scored, weighed = survivors.at(ratio)
    if 0 < ratio < math.inf and cost < 1:
        return Choice(ratio, way, n, scored, weighed, cost)
    return Choice(ratio, "dense", n, scored, weighed, 1.0)


def count_survivors(index: Index) -> SurvivorFractions:
    """Shares of the samples that survive, counted for a few noisy samples of the data at each of `RATIOS`."""
    counted = SurvivorFractions(np.full(len(RATIOS), sum(TUNING.bound_costs)), np.ones(len(RATIOS)), np.ones(len(RATIOS)))
    for k, ratio in enumerate(RATIOS):
        search = PrunedSearch(index, slice(0, index.n), noisy(index, np.arange(index.n), TUNING.calibration_queries, ratio), 0.0)
        _, _, pairs = search.survivors(False, np.full(TUNING.calibration_queries, math.inf))
        of_all = 1 / TUNING.calibration_queries / index.n
        counted.bounded[k] = LEAF * float(search.counts @ TUNING.bound_costs) * of_all
        counted.scored[k], counted.weighed[k] = search.scored.sum() * of_all, len(pairs.rows) * of_all
        if counted.weighed[k] > TUNING.most_survivors:  # at larger ratios more survive
            break
    return counted


def noisy(index: Index, rows: Int[np.ndarray, " n"], count: int, ratio: float) -> Queries:
    """`count` of the samples `rows`, plus noise, as queries with α = 1."""
    rng = np.random.default_rng(0)
    x = index.rows[rng.choice(rows, size=count)] + ratio * rng.standard_normal((count, index.d))
    ones = np.ones(count)
    return Queries(x, ones, ratio * ones, np.full(count, -1), ones, ones)


def measure_costs(index: Index, survivors: SurvivorFractions) -> Costs:
    """The costs on this machine, measured on the first leaves of the data: some tens of milliseconds each, the fastest of two calls."""
    n, every = min(TUNING.calibration_rows, index.n), np.full(TUNING.tile_queries, math.inf)
    few, pairs = min(TUNING.calibration_rows // 8, index.n), TUNING.tile_queries * n
    rows = index.row[:n][index.row[:n] >= 0]

    def search(ratio: float, n: int = n) -> PrunedSearch:
        return PrunedSearch(index, slice(0, n), noisy(index, rows, TUNING.tile_queries, ratio), 0.0)

    def at(shares: np.ndarray, share: float) -> PrunedSearch:
        return search(RATIOS[np.abs(shares - share).argmin()])

    whole = _seconds(lambda: search(RATIOS[0]).answer(False, every))
    part = _seconds(lambda: search(RATIOS[0], few).answer(False, every))
    box = max(whole - part, 0.0) / TUNING.tile_queries / max(n - few, 1)
    query = max(whole / TUNING.tile_queries - n * box, 0.0)
    bound = (_seconds(lambda: search(RATIOS[0]).survivors(False, every, everywhere=True)) - whole) / pairs
    some, more = at(survivors.scored, TUNING.share_scored), at(survivors.weighed, TUNING.share_weighed)
    scored = _seconds(lambda: some.survivors(False, every)) - whole - LEAF * (some.counts @ TUNING.bound_costs) * bound
    before = _seconds(lambda: more.survivors(False, every))
    weighed = _seconds(lambda: more.answer(False, every)) - before
    weighed_pairs = len(more.survivors(False, every)[2].rows)
    product = max(_seconds(lambda: search(RATIOS[0]).survivors(True, every)) / pairs - query / n, 0.0)
    task = Task(index, noisy(index, rows, TUNING.tile_queries, RATIOS[-1]), alone=False)
    room = HostMoments.none(*task.queries.x.shape)
    dense = _seconds(lambda: dense_tile(task, [(slice(0, few), slice(0, TUNING.tile_queries))], room)) / (TUNING.tile_queries * few)
    # On a busy machine a difference of two times can be anything, so that each cost is kept within limits. A bound takes at least one of
    # a dense pair's D operations. A score by bytes takes as many operations as one of a dense pass's two products. A weight takes as many
    # too, at a lower rate.
    bound = max(bound, dense / index.d)
    score = float(np.clip(scored / max(some.scored.sum(), 1), dense / TUNING.score_factor, TUNING.score_factor * dense))
    weigh = float(np.clip(weighed / max(weighed_pairs, 1), TUNING.least_weigh * dense, TUNING.most_weigh * dense))
    return Costs(query, box, bound, score, product, weigh, dense)


def _seconds(call: Callable[[], object]) -> float:
    times = []
    for _ in range(3):  # the first compiles
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times[1:])
