"""What each way to a posterior costs on this machine and on these data: measured when the index is made, and asked before each call.

Two things are measured: what a bound, a score by bytes, a weight and a dense pass take on this machine, and how many samples survive each
bound at each noise level on this data set.
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
from kernels.posterior.cpu.full_pass import FEW, dense_tile
from kernels.posterior.cpu.index import Index
from kernels.posterior.cpu.pruned_search import PrunedSearch
from kernels.posterior.cpu.results import TILE, Queries

Way = Literal["dense", "bounds", "products"]
"""A pass over all samples; bounds, then scores by bytes of what they leave; or a product with the bytes of all samples."""
RATIOS = np.geomspace(0.05, 20, 25)
"""σ/α at which it is counted how many samples stand; beyond the last, all do."""
CALIBRATION_QUERIES = 16
CALIBRATION_ROWS = 2**14
"""Samples on which it is measured what skipping costs, and an eighth of so many for what a dense pass does."""
FACTOR = 4.0
"""How many times more or less than a pair in a pass over all samples a look may cost."""
DEARER, DEAREST = 3.0, 30.0
"""How many times what it costs in a pass over all samples the weight of a pair costs by itself, at the least and at most."""
LOOKED, WEIGHED = 0.2, 0.005
"""Shares at which it is measured what a look and a weight cost."""
BOUNDS = (1.0, 2.0, 6.0)
"""What the first columns cost, more columns, and bytes of the other coordinates."""
MOST = 0.2
"""Share of the samples left from which on it is not counted any further."""


class SurvivorFractions(NamedTuple):
    """Shares of the samples, at each of `RATIOS`."""

    bounded: Float[np.ndarray, " T"]
    """That are bounded one by one, each bound as many times as it costs of the first: `BOUNDS`."""
    looked: Float[np.ndarray, " T"]
    """That bounds leave: these are looked at."""
    weighed: Float[np.ndarray, " T"]
    """That are left by what is seen of them there."""

    def at(self, ratio: float) -> tuple[float, float, float]:
        """At any σ/α."""
        if not 0 < ratio <= RATIOS[-1]:
            return sum(BOUNDS), 1.0, 1.0
        bounded, looked, weighed = (float(np.interp(np.log(ratio), np.log(RATIOS), shares)) for shares in self)
        return bounded, looked, weighed


@dataclasses.dataclass(frozen=True)
class Costs:
    """Seconds on this machine, for one query and one sample of this data set."""

    start: float
    """What is done before any sample is looked at, and afterwards."""
    bound: float
    """Its bound by the first columns."""
    look: float
    """A look at its bytes."""
    product: float
    """Its score by a product with the bytes of all samples."""
    weigh: float
    """Its weight and its part in the sums."""
    dense: float
    """Its share of a pass over all samples, early in time."""

    def of_dense(self, standing: SurvivorFractions, ratio: float) -> float:
        """Its share of that pass at σ/α = `ratio`: where few samples have weight, the second of two products is left out."""
        return self.dense * (1 + min(1.0, standing.at(ratio)[2] / FEW)) / 2

    def cheapest(self, standing: SurvivorFractions, ratio: float) -> tuple[Way, float]:
        """The cheaper of the two ways to skip at σ/α = `ratio`, and its cost as a share of the dense pass."""
        bounded, looked, weighed = standing.at(ratio)
        bounds = self.start + bounded * self.bound + looked * self.look
        products = self.product + weighed * self.look
        way: Way = "bounds" if bounds <= products else "products"
        return way, (min(bounds, products) + weighed * self.weigh) / self.of_dense(standing, ratio)


@dataclasses.dataclass(frozen=True)
class Choice:
    """How queries with one σ/α are computed, and why."""

    ratio: float
    """σ/α."""
    way: Way
    n: int
    looked: float
    """Share of the samples that bounds are expected to leave."""
    standing: float
    """Share of the samples that are expected to be weighed."""
    cost: float
    """Of the dense pass, as a share."""

    def __str__(self) -> str:
        if self.way == "dense":
            return (
                f"dense: at σ/α = {self.ratio:.3g} bounds leave {self.looked:.0%} of the {self.n:,} samples standing; a pass over all "
                "of them by matrix products costs less"
            )
        how = (
            f"bounds are expected to leave {self.looked:.2%} of the {self.n:,} samples, and a look at these"
            if self.way == "bounds"
            else f"a product with the bytes of all {self.n:,} samples is expected to leave"
        )
        return (
            f"pruned: at σ/α = {self.ratio:.3g} {how} {self.standing:.2%}, which are weighed exactly; about {self.cost:.0%} of a dense pass"
        )


def choose(n: int, costs: Costs, standing: SurvivorFractions, ratio: float) -> Choice:
    """The cheapest way for queries with σ/α = `ratio`, by what was left of noisy samples of this data set."""
    way, cost = costs.cheapest(standing, ratio)
    _, looked, weighed = standing.at(ratio)
    if 0 < ratio < math.inf and cost < 1:
        return Choice(ratio, way, n, looked, weighed, cost)
    return Choice(ratio, "dense", n, looked, weighed, 1.0)


def count_survivors(index: Index) -> SurvivorFractions:
    """What is left of the samples, for a few noisy samples of the data at each of `RATIOS`."""
    counted = SurvivorFractions(np.full(len(RATIOS), sum(BOUNDS)), np.ones(len(RATIOS)), np.ones(len(RATIOS)))
    for k, ratio in enumerate(RATIOS):
        look = PrunedSearch(index, slice(0, index.n), noisy(index, np.arange(index.n), CALIBRATION_QUERIES, ratio), 0.0)
        _, _, pairs = look.standing(False, np.full(CALIBRATION_QUERIES, math.inf))
        of_all = 1 / CALIBRATION_QUERIES / index.n
        counted.bounded[k] = LEAF * float(look.counts @ BOUNDS) * of_all
        counted.looked[k], counted.weighed[k] = look.seen.sum() * of_all, len(pairs.rows) * of_all
        if counted.weighed[k] > MOST:  # and so it will be
            break
    return counted


def noisy(index: Index, rows: Int[np.ndarray, " n"], count: int, ratio: float) -> Queries:
    """Some of these samples plus noise, α = 1."""
    rng = np.random.default_rng(0)
    x = index.rows[rng.choice(rows, size=count)] + ratio * rng.standard_normal((count, index.d))
    ones = np.ones(count)
    return Queries(x, ones, ratio * ones, ones, ones, np.full(count, -1))


def measure_costs(index: Index, standing: SurvivorFractions) -> Costs:
    """Of this machine, on the first leaves of the data: some tens of milliseconds each, the fastest of three."""
    n, every = min(CALIBRATION_ROWS, index.n), np.full(TILE, math.inf)
    few, pairs = min(CALIBRATION_ROWS // 8, index.n), TILE * n
    there = index.row[:n][index.row[:n] >= 0]

    def look(ratio: float) -> PrunedSearch:
        return PrunedSearch(index, slice(0, n), noisy(index, there, TILE, ratio), 0.0)

    def at(shares: np.ndarray, share: float) -> PrunedSearch:
        return look(RATIOS[np.abs(shares - share).argmin()])

    start = _seconds(lambda: look(RATIOS[0]).answer(False, every)) / pairs
    bound = _seconds(lambda: look(RATIOS[0]).standing(False, every, everywhere=True)) / pairs - start
    some, more = at(standing.looked, LOOKED), at(standing.weighed, WEIGHED)
    looked = _seconds(lambda: some.standing(False, every)) - pairs * start - LEAF * (some.counts @ BOUNDS) * bound
    before = _seconds(lambda: more.standing(False, every))
    weighed = _seconds(lambda: more.answer(False, every)) - before
    heavy = len(more.standing(False, every)[2].rows)
    product = _seconds(lambda: look(RATIOS[0]).standing(True, every)) / pairs
    dense = _seconds(lambda: dense_tile(Task(index, slice(0, few), noisy(index, there, TILE, RATIOS[-1]), alone=False))) / (TILE * few)
    # On a busy machine a difference of two times can be anything. But a bound takes some of a product's operations; a look as many as one
    # of the two products, of bytes; and a weight as many, and none of them at a product's rate: several times what that takes.
    bound = max(bound, dense / index.d)
    look_at = float(np.clip(looked / max(some.seen.sum(), 1), dense / FACTOR, FACTOR * dense))
    weigh = float(np.clip(weighed / max(heavy, 1), DEARER * dense, DEAREST * dense))
    return Costs(start, bound, look_at, product, weigh, dense)


def _seconds(call: Callable[[], object]) -> float:
    found = []
    for _ in range(3):  # the first compiles
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return min(found[1:])
