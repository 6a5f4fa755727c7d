"""Which queries of a batch are answered by skipping, which by a pass over all samples: whatever is cheaper here, on these data.

Two things decide, and both are measured when the index is made: what each look and each pass costs on this machine, and how many samples
each look leaves standing at each noise level on this data set.
"""

import dataclasses
import math
import threading
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from kernels.posterior.cpu.bounds import LEAF
from kernels.posterior.cpu.full_pass import FEW, dense_posterior, dense_tile, exact_enough
from kernels.posterior.cpu.index import Index, build_index
from kernels.posterior.cpu.pruned_search import PrunedSearch, pruned_posterior
from kernels.posterior.cpu.results import TILE, Found, Queries
from kernels.posterior.cpu.threads import one_thread_each
from kernels.posterior.queries import LARGEST_SCORE
from kernels.posterior.samples import Samples
from kernels.posterior.settings import PosteriorSettings

LEAST_NUMBERS = 2**20
"""Smaller data sets are not worth an index: a pass over them takes milliseconds."""
ELIGIBLE = 64
"""Queries after which an index is made, at the least: it costs as much as some hundreds of them."""
WORTH = 2**29
"""Queries times numbers of the data after which it is made: to load what numba has compiled takes seconds, however small the data."""
Way = Literal["dense", "bounds", "products"]
"""A pass over all samples; bounds, then looks at what they leave; or a product with the bytes of all samples, then looks."""
RATIOS = np.geomspace(0.05, 20, 25)
"""σ/α at which it is counted how many samples stand; beyond the last, all do."""
CALIBRATION_QUERIES = 16
CALIBRATION_ROWS = 2**16
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
STREAMING = 2.0
"""What XLA's float32 pass costs, with what it repeats in float64, beside the host's: where the latter is not exact enough and bounds leave
too many, a query is left to the former."""


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


class Planner:
    """What decides, call by call, how a posterior is computed on the host; and the index, made when it first pays.

    Args:
      always: skip wherever that is possible at all (α > 0 and σ > 0), whatever it costs.
    """

    def __init__(self, *, always: bool):
        self.always = always
        self._made: tuple[Index, Costs, SurvivorFractions] | None = None
        self._eligible = 0
        self._lock = threading.Lock()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Planner) and self.always == other.always

    def __hash__(self) -> int:
        return hash((Planner, self.always))

    def __reduce__(self) -> tuple[Callable[[bool], "Planner"], tuple[bool]]:
        """Copies and pickles are `fresh`: a lock cannot be copied, and the index is made again where it pays."""
        return _fresh_planner, (self.always,)

    def fresh(self) -> "Planner":
        """The same, for other samples."""
        return Planner(always=self.always)

    @property
    def ready(self) -> bool:
        """Whether the index is made."""
        return self._made is not None

    def possible(self, samples: Samples, how: PosteriorSettings) -> bool:
        """Whether these samples could be computed on the host."""
        if self.always:
            return True
        return (
            how.implementation == "streaming"
            and how.precision == "highest"
            and jax.default_backend() == "cpu"
            and samples.values.size >= LEAST_NUMBERS
        )

    def prepare(self, samples: Samples) -> tuple[Index, Costs, SurvivorFractions]:
        """The index of the samples, what things cost, and what stands at `RATIOS`; made at the first call."""
        with self._lock:
            if self._made is None:
                index = index_of(samples)
                with one_thread_each():
                    standing = count_survivors(index)
                    costs = Costs(0.0, 0.0, 0.0, 0.0, 0.0, 1.0) if self.always else measure_costs(index, standing)
                self._made = index, costs, standing
            return self._made

    def choice(self, samples: Samples, alpha: float, sigma: float) -> Choice:
        """How queries with these coefficients are computed."""
        index, costs, standing = self.prepare(samples)
        sigma = sigma if samples.unit is None else sigma / float(samples.unit)
        return choose(index.n, costs, standing, sigma / alpha if alpha > 0 else math.inf)

    def __call__(self, samples: Samples, queries: Queries, *, tolerance: float) -> Found | None:
        """Moments of the queries, in the caller's unit, as far as they are answered; None where none is."""
        unit = 1.0 if samples.unit is None else float(samples.unit)
        queries = queries._replace(x=queries.x / unit, sigma=queries.sigma / unit) if unit != 1 else queries
        inside = (queries.sigma > 0) & np.isfinite(queries.x).all(axis=1)
        self._eligible += int(inside.sum())
        enough = max(ELIGIBLE, WORTH / max(samples.values.size, 1))
        if not inside.any() or (self._made is None and not self.always and self._eligible < enough):
            return None
        with one_thread_each():
            found = self._answered(*self.prepare(samples), queries, inside, tolerance)
        return found if found is None or unit == 1 else found.times(unit)

    def _answered(
        self, index: Index, costs: Costs, standing: SurvivorFractions, queries: Queries, inside: Bool[np.ndarray, " B"], tolerance: float
    ) -> Found | None:
        found = Found.none(*queries.x.shape)
        inside = inside & fit_float32(index, queries)
        ratio = np.where(queries.alpha > 0, queries.sigma / np.where(queries.alpha > 0, queries.alpha, 1), np.inf)
        distinct, own = np.unique(ratio, return_inverse=True)
        cheapest = [costs.cheapest(standing, float(value)) for value in distinct]
        by_products = np.array([way == "products" for way, _ in cheapest])[own]
        cost = np.array([cost for _, cost in cheapest])[own]
        able = inside & (queries.alpha > 0)
        exact = np.zeros(len(ratio), bool)

        def ask(rows: Bool[np.ndarray, " B"]) -> None:
            if rows.any() and not self.always:
                exact[rows] = exact_enough(index, queries.at(rows))

        ask(inside & ~(able & (cost < 1)))
        # A query may cost what the dense pass would, and something if that is to be found out late.
        limit = math.inf if self.always else np.where(exact | (cost < 1), 1.0, STREAMING)
        skip = able & (cost < limit)
        share = costs.dense / costs.look if costs.look else math.inf
        pruned_posterior(index, queries, np.flatnonzero(skip), found, tolerance=tolerance, by_products=by_products, most=limit * share)
        ask(skip & ~found.answered)
        if (exact & ~found.answered).any():
            dense_posterior(index, queries, np.flatnonzero(exact & ~found.answered), found)
            left = exact & ~found.answered & able  # a cluster, or scores that are larger than those of the path
            pruned_posterior(index, queries, np.flatnonzero(left), found, tolerance=tolerance, most=STREAMING * share)
        return found if found.answered.any() else None


def fit_float32(index: Index, queries: Queries) -> Bool[np.ndarray, " B"]:
    """Whether float32 holds the scores, and the products on the way to them; not for data that are 10¹² times larger than the noise."""
    rate = queries.alpha / np.where(queries.sigma > 0, queries.sigma, 1) ** 2
    away = np.linalg.norm(queries.x - queries.alpha[:, None] * index.center, axis=1)
    size = rate * (away * max(index.radius, 1) + queries.alpha * max(index.radius, 1) ** 2)
    return size < LARGEST_SCORE


def _fresh_planner(always: bool) -> Planner:
    return Planner(always=always)


def index_of(samples: Samples) -> Index:
    """The index of prepared samples; their rows must lie on this host."""
    prior = None if samples.log_prior is None else np.asarray(samples.log_prior, np.float64)
    labels = np.asarray(samples.labels) if samples.labels is not None and samples.by_class else None
    original = None if samples.index is None else np.asarray(samples.index)
    return build_index(np.asarray(samples.values), log_prior=prior, labels=labels, original=original)


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
    return Queries(x, ones, ratio * ones, ones, np.full(count, -1))


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
    dense = _seconds(lambda: dense_tile(index, slice(0, few), noisy(index, there, TILE, RATIOS[-1]))) / (TILE * few)
    # On a busy machine a difference of two times can be anything. But a bound takes some of a product's operations; a look as many as one
    # of the two products, of bytes; and a weight as many, and none of them at a product's rate: several times what that takes.
    bound = max(bound, dense / index.d)
    look_at = float(np.clip(looked / max(some.seen.sum(), 1), dense / FACTOR, FACTOR * dense))
    weigh = float(np.clip(weighed / max(heavy, 1), DEARER * dense, DEAREST * dense))
    return Costs(start, bound, look_at, product, weigh, dense)


def _seconds(call: Callable[[], object]) -> float:
    found = []
    for _ in range(4):  # the first compiles
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return min(found[1:])
