"""On a CPU, call by call: skip the samples that cannot matter, or go through all of them; whichever is cheaper here, on these data.

Two things decide, and both are measured when the sketch is made: what a pair of query and sample costs on this machine, and how many
samples the bounds leave standing at each noise level on this data set.
"""

import dataclasses
import math
import threading
import time
from collections.abc import Callable
from typing import Literal

import jax
import numpy as np
from jaxtyping import Float

from kernels.posterior.fixed_point import exact_enough, fixed_point_tile, posterior_in_fixed_point
from kernels.posterior.found import TILES, Found, Queries
from kernels.posterior.plan import Plan
from kernels.posterior.samples import Samples
from kernels.posterior.sketch import Sketch, build_sketch
from kernels.posterior.skipping import Bounds, posterior_by_sketch

LEAST_NUMBERS = 2**23
"""Smaller data sets are not worth a sketch: a dense pass over them takes milliseconds."""
ELIGIBLE = 64
"""Queries after which a sketch is made: it costs as much as some hundreds of them."""
RATIOS = np.geomspace(0.05, 20, 25)
"""σ/α at which it is counted how many samples stand; beyond the last, all do."""
CALIBRATION_QUERIES = TILES[0]
STREAMING = 2.0
"""What XLA's float32 pass costs, with what it repeats in float64, beside the host's: where the latter is not exact enough and bounds leave
too many, a query is left to the former."""

Way = Literal["sketch", "dense"]
Shares = Float[np.ndarray, " T"]


@dataclasses.dataclass(frozen=True)
class Costs:
    """Seconds on this machine, for one query and one sample of this data set."""

    bound: float
    """Its bound, looked at."""
    look: float
    """Its weight from differences, in float64, and its part in the sums."""
    dense: float
    """Its share of a pass over all samples."""
    halves: bool
    """Whether that pass is faster with sums by products of bfloat16."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """How queries with one σ/α are computed, and why."""

    ratio: float
    """σ/α."""
    way: Way
    n: int
    standing: float
    """Share of the samples that bounds are expected to leave."""
    cost: float
    """Of the dense pass, as a share."""

    def __str__(self) -> str:
        if self.way == "dense":
            return (
                f"dense: at σ/α = {self.ratio:.3g} bounds leave {self.standing:.0%} of the {self.n:,} samples standing; a pass over all "
                "of them by matrix products costs less"
            )
        return (
            f"sketch: at σ/α = {self.ratio:.3g} bounds are expected to leave {self.standing:.2%} of the {self.n:,} samples, which are "
            f"computed exactly; about {self.cost:.0%} of a dense pass"
        )


class Planner:
    """What decides, call by call, how a posterior is computed on the host; and the sketch, made when it first pays.

    Args:
      always: skip wherever that is possible at all (α > 0 and σ > 0), whatever it costs.
    """

    def __init__(self, *, always: bool):
        self.always = always
        self._made: tuple[Sketch, Costs, Shares] | None = None
        self._eligible = 0
        self._lock = threading.Lock()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Planner) and self.always == other.always

    def __hash__(self) -> int:
        return hash((Planner, self.always))

    def fresh(self) -> "Planner":
        """The same, for other samples."""
        return Planner(always=self.always)

    @property
    def ready(self) -> bool:
        """Whether the sketch is made."""
        return self._made is not None

    def possible(self, samples: Samples, how: Plan) -> bool:
        """Whether these samples could be computed on the host."""
        if self.always:
            return True
        return (
            how.implementation == "streaming"
            and how.precision == "highest"
            and jax.default_backend() == "cpu"
            and samples.values.size >= LEAST_NUMBERS
        )

    def prepare(self, samples: Samples) -> tuple[Sketch, Costs, Shares]:
        """The sketch of the samples, what things cost, and what stands at `RATIOS`; made at the first call."""
        with self._lock:
            if self._made is None:
                sketch = sketch_of(samples)
                shares = count_standing(sketch)
                costs = Costs(0.0, 1e-300, 1.0, False) if self.always else measure_costs(sketch, shares)
                self._made = sketch, costs, shares
            return self._made

    def choice(self, samples: Samples, alpha: float, sigma: float) -> Choice:
        """How queries with these coefficients are computed."""
        sketch, costs, shares = self.prepare(samples)
        return choose(sketch.n, costs, shares, sigma / alpha if alpha > 0 else math.inf)

    def __call__(self, samples: Samples, queries: Queries, *, tolerance: float) -> Found | None:
        """Moments of the queries, as far as they are answered; None where none is."""
        inside = (queries.sigma > 0) & np.isfinite(queries.x).all(axis=1)
        self._eligible += int(inside.sum())
        if not inside.any() or (self._made is None and not self.always and self._eligible < ELIGIBLE):
            return None
        sketch, costs, shares = self.prepare(samples)
        found = Found.none(*queries.x.shape)
        ratio = np.where(queries.alpha > 0, queries.sigma / np.where(queries.alpha > 0, queries.alpha, 1), np.inf)
        distinct, own = np.unique(ratio, return_inverse=True)
        cost = np.array([sketch_cost(costs, shares, float(value))[0] for value in distinct])[own]
        exact = np.zeros(len(ratio), bool)
        if not self.always:
            exact[inside] = exact_enough(sketch, queries.at(inside))
        most = np.full(len(ratio), math.inf) if self.always else np.where(exact, 1.0, STREAMING)
        skip = inside & (queries.alpha > 0) & (cost < most)
        posterior_by_sketch(sketch, queries, np.flatnonzero(skip), found, tolerance=tolerance, dense=most * costs.dense / costs.look)
        if exact.any():
            posterior_in_fixed_point(sketch, queries, np.flatnonzero(exact & ~found.answered), found, halves=costs.halves)
            left = exact & ~found.answered & (queries.alpha > 0)  # one sample has nearly all the weight, or a cluster
            limit = np.full(len(ratio), STREAMING * costs.dense / costs.look)
            posterior_by_sketch(sketch, queries, np.flatnonzero(left), found, tolerance=tolerance, dense=limit)
        return found if found.answered.any() else None


def sketch_of(samples: Samples) -> Sketch:
    """The sketch of prepared samples; their rows must lie on this host."""
    prior = None if samples.log_prior is None else np.asarray(samples.log_prior, np.float64)
    labels = np.asarray(samples.labels) if samples.labels is not None and samples.by_class else None
    index = None if samples.index is None else np.asarray(samples.index)
    return build_sketch(np.asarray(samples.values), log_prior=prior, labels=labels, index=index)


def choose(n: int, costs: Costs, shares: Shares, ratio: float) -> Choice:
    """The cheaper way for queries with σ/α = `ratio`, by what was left of noisy samples of this data set."""
    cost, standing = sketch_cost(costs, shares, ratio)
    if 0 < ratio < math.inf and cost < 1:
        return Choice(ratio, "sketch", n, standing, cost)
    return Choice(ratio, "dense", n, standing, 1.0)


def sketch_cost(costs: Costs, shares: Shares, ratio: float) -> tuple[float, float]:
    """What skipping costs at σ/α = `ratio`, as a share of the dense pass, and the share of the samples that it looks at."""
    standing = float(np.interp(np.log(ratio), np.log(RATIOS), shares)) if 0 < ratio <= RATIOS[-1] else 1.0
    return (costs.bound + standing * costs.look) / costs.dense, standing


def count_standing(sketch: Sketch) -> Shares:
    """Share of the samples that bounds leave standing, for a few noisy samples of the data at each of `RATIOS`."""
    shares = [Bounds(sketch, slice(0, sketch.n), noisy(sketch, CALIBRATION_QUERIES, ratio), 0.0).standing().mean() for ratio in RATIOS]
    return np.array(shares) / sketch.n


def noisy(sketch: Sketch, count: int, ratio: float) -> Queries:
    """Samples of the data plus noise, α = 1."""
    rng = np.random.default_rng(0)
    x = sketch.rows[rng.integers(sketch.n, size=count)] + ratio * rng.standard_normal((count, sketch.d))
    ones = np.ones(count)
    return Queries(x, ones, ratio * ones, ones, np.full(count, -1))


def measure_costs(sketch: Sketch, shares: Shares) -> Costs:
    """Of this machine, on the first block of the data: a few milliseconds each, the faster of two."""
    count, first = TILES[-1], slice(0, sketch.blocks[0].stop)
    pairs = count * first.stop
    late, some, early = (noisy(sketch, count, ratio) for ratio in (RATIOS[0], _ratio_where(shares, 0.03), RATIOS[-1]))
    bound = _seconds(lambda: Bounds(sketch, first, late, 0.0).standing()) / pairs
    dense = {halves: _seconds(lambda: fixed_point_tile(sketch, first, early, halves)) / pairs for halves in (False, True)}  # noqa: B023
    looks = max(Bounds(sketch, first, some, 0.0).answer().standing.sum(), 1)
    look = _seconds(lambda: Bounds(sketch, first, some, 0.0).answer()) - bound * pairs
    halves = sketch.bytes_needed == 1 and dense[True] < dense[False]
    return Costs(bound, max(look, 0.1 * bound * pairs) / looks, dense[halves], halves)


def _ratio_where(shares: Shares, share: float) -> float:
    """The σ/α at which about that share stands."""
    return float(np.exp(np.interp(share, np.maximum.accumulate(shares), np.log(RATIOS))))


def _seconds(call: Callable[[], object]) -> float:
    found = []
    for _ in range(3):  # the first compiles
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return min(found[1:])
