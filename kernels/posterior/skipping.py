"""The posterior on a CPU without going through all samples: bounds of all scores from a sketch, then the few that could matter exactly.

Refinement gives nearly all weight to one sample, so late in time almost nothing needs to be looked at. What is left out is left out with
a certificate: with K samples standing, the others weigh less than `N exp(-cut)` of the heaviest, where the cut is chosen so that float32
rounding hides it. Driven by the host, hence not under tracing.
"""

import dataclasses
import functools
import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int
from threadpoolctl import ThreadpoolController

from kernels.posterior.plan import Plan
from kernels.posterior.samples import Samples
from kernels.posterior.sketch import Sketch, build_sketch

SCAN, DENSE_SCAN, LOOK, LOOK_AT_NUMBER = 60.0, 750.0, 8000.0, 50.0
"""What things cost, in multiply-adds of a matrix product: a bound looked at; a weight of the dense pass beside its two products; a sample
recomputed, and each of its numbers. Ratios measured on two cores with AVX-512 (docs/performance.md); only the choice rests on them."""
LEAST_NUMBERS = 2**23
"""Smaller data sets are not worth a sketch: a dense pass over them takes milliseconds."""
SCORES_AT_ONCE = 2**25
"""Bounds held at a time, 4 bytes each."""
QUERIES_AT_ONCE = 256
LEAST_DENSE = 32
"""A dense pass for fewer queries costs as much: it waits for memory."""
MOST_NOISE = 2.5
"""σ/α beyond which nearly everything matters on any data: no sketch is made for such queries."""
ELIGIBLE = 64
"""Queries below that, after which a sketch is made: it costs as much as some hundreds of them."""
DENSE = -1
RATIOS = np.geomspace(0.08, 2.5, 11)
"""σ/α at which it is counted how many samples are looked at."""
CALIBRATION_QUERIES = 16


Shares = Float[np.ndarray, "T L"]


@dataclasses.dataclass(frozen=True)
class Choice:
    """How queries with one σ/α are computed, and why."""

    ratio: float
    """σ/α."""
    level: int
    """Which of the sketch's numbers of coordinates; DENSE: two matrix products over all samples."""
    coordinates: int
    """How many those are, of `d`."""
    d: int
    n: int
    standing: float
    """Share of the samples that are expected to be looked at one by one."""
    cost: float
    """Of the dense pass, as a share."""

    def __str__(self) -> str:
        if self.level == DENSE:
            return (
                f"dense: at σ/α = {self.ratio:.3g} bounds from a sketch would leave too many of the {self.n:,} samples standing; "
                "two matrix products over all of them cost less"
            )
        kind = "all" if self.coordinates == self.d else "the leading"
        return (
            f"sketch: at σ/α = {self.ratio:.3g}, bounds from {kind} {self.coordinates} of {self.d} coordinates are expected to leave "
            f"{self.standing:.2%} of the {self.n:,} samples, which are computed exactly; about {self.cost:.0%} of a dense pass"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """Moments of a batch, float64, as `kernels.posterior.api.Moments` names them; rows that were given up are not `answered`."""

    denoised: Float[np.ndarray, "B D"]
    log_density: Float[np.ndarray, " B"]
    top1_weight: Float[np.ndarray, " B"]
    top1_index: Int[np.ndarray, " B"]
    entropy: Float[np.ndarray, " B"]
    effective_samples: Float[np.ndarray, " B"]
    variance: Float[np.ndarray, " B"]
    error_bound: Float[np.ndarray, " B"]
    answered: np.ndarray
    standing: Int[np.ndarray, " B"]


class Answers(NamedTuple):
    """What `skipping_native.moments` fills in."""

    mean: Float[np.ndarray, "B D"]
    moments: Float[np.ndarray, "B 6"]
    top: Int[np.ndarray, " B"]
    standing: Int[np.ndarray, " B"]

    @classmethod
    def empty(cls, b: int, d: int) -> "Answers":
        """Nothing answered yet."""
        return cls(np.empty((b, d)), np.empty((b, 6)), np.full(b, -1, np.int32), np.zeros(b, np.int64))


class Skipping:
    """What decides, call by call, whether samples are skipped; and the sketch, made when it first pays.

    Args:
      always: skip wherever that is possible at all (α > 0 and σ > 0), whatever it costs.
    """

    def __init__(self, *, always: bool):
        self.always = always
        self._sketch: tuple[Sketch, Shares] | None = None
        self._eligible = 0
        self._lock = threading.Lock()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Skipping) and self.always == other.always

    def __hash__(self) -> int:
        return hash((Skipping, self.always))

    def fresh(self) -> "Skipping":
        """The same, for other samples."""
        return Skipping(always=self.always)

    def possible(self, samples: Samples, how: Plan) -> bool:
        """Whether these samples could be skipped."""
        if self.always:
            return True
        return (
            how.implementation == "streaming"
            and how.precision == "highest"
            and jax.default_backend() == "cpu"
            and samples.values.size >= LEAST_NUMBERS
        )

    def sketch(self, samples: Samples) -> tuple[Sketch, Shares]:
        """Of the samples, and what it leaves; made at the first call."""
        with self._lock:
            if self._sketch is None:
                sketch = sketch_of(samples)
                self._sketch = sketch, count_standing(sketch)
            return self._sketch

    def choice(self, samples: Samples, alpha: float, sigma: float) -> Choice:
        """How queries with these coefficients are computed."""
        ratio = sigma / alpha if alpha > 0 else math.inf
        if not 0 < ratio < math.inf or (ratio > MOST_NOISE and not self.always):
            return Choice(ratio, DENSE, samples.d, samples.d, samples.n, 1.0, 1.0)
        return choose_level(*self.sketch(samples), ratio, always=self.always)

    def __call__(
        self,
        samples: Samples,
        x: Float[np.ndarray, "B D"],
        alpha: Float[np.ndarray, " B"],
        sigma: Float[np.ndarray, " B"],
        still: Float[np.ndarray, " B"],
        label: Int[np.ndarray, " B"],
        *,
        tolerance: float,
    ) -> Found | None:
        """Moments of the queries for which skipping is cheaper; None if there are none."""
        ratio = np.where(alpha > 0, sigma / np.where(alpha > 0, alpha, 1), np.inf)
        eligible = (ratio > 0) & (ratio < np.inf) & (self.always | (ratio <= MOST_NOISE))
        self._eligible += int(eligible.sum())
        if not eligible.any() or (self._sketch is None and not self.always and self._eligible < ELIGIBLE):
            return None
        sketch, shares = self.sketch(samples)
        levels = {value: choose_level(sketch, shares, value, always=self.always).level for value in np.unique(ratio[eligible])}
        level = np.array([levels.get(value, DENSE) for value in ratio])
        if (level == DENSE).all():
            return None
        return posterior_by_sketch(sketch, x, alpha, sigma, label, still, level, tolerance=tolerance, give_up=not self.always)


def sketch_of(samples: Samples) -> Sketch:
    """The sketch of prepared samples; their rows must lie on this host."""
    prior = None if samples.log_prior is None else np.asarray(samples.log_prior, np.float64)
    labels = np.asarray(samples.labels) if samples.labels is not None and samples.by_class else None
    index = None if samples.index is None else np.asarray(samples.index)
    return build_sketch(np.asarray(samples.values), log_prior=prior, labels=labels, index=index)


def count_standing(sketch: Sketch) -> Shares:
    """Share of the samples that are looked at with each number of coordinates, for a few noisy samples of the data at each of `RATIOS`."""
    rng = np.random.default_rng(0)
    x_1 = sketch.rows[rng.integers(sketch.n, size=CALIBRATION_QUERIES)]
    noise, ones = rng.standard_normal(x_1.shape), np.ones(CALIBRATION_QUERIES)
    shares = np.ones((len(RATIOS), len(sketch.edges)))
    for i, ratio in enumerate(RATIOS):
        for level in reversed(range(len(sketch.edges))):  # fewer coordinates leave more: the first that leaves too many is the last to try
            every = np.full(CALIBRATION_QUERIES, level)
            found = posterior_by_sketch(sketch, x_1 + ratio * noise, ones, ratio * ones, 0 * every - 1, ones, every)
            given_up = _dense_cost(sketch.d) / _look_cost(sketch.d)  # as many looks as cost what a dense pass does
            shares[i, level] = np.mean(np.where(found.answered, found.standing / sketch.n, given_up))
            if found.answered.mean() < 0.5:
                break
    return shares


def choose_level(sketch: Sketch, shares: Shares, ratio: float, *, always: bool = False) -> Choice:
    """The cheapest way for queries with σ/α = `ratio`, by what was left of noisy samples of this data set.

    Args:
      always: of those with the sketch.
    """
    d, n = sketch.d, sketch.n
    dense = _dense_cost(d)
    costs, standing = [], []
    for level, k in enumerate(sketch.edges):
        share = float(np.interp(np.log(ratio), np.log(RATIOS), shares[:, level])) if ratio <= RATIOS[-1] else 1.0
        costs.append(k + SCAN + share * _look_cost(d))
        standing.append(share)
    best = int(np.argmin(costs))
    if not always and not costs[best] < dense:
        return Choice(ratio, DENSE, d, d, n, 1.0, 1.0)
    return Choice(ratio, best, sketch.edges[best], d, n, standing[best], costs[best] / dense)


def _dense_cost(d: int) -> float:
    return 2 * d + DENSE_SCAN


def _look_cost(d: int) -> float:
    return LOOK + LOOK_AT_NUMBER * d


def posterior_by_sketch(
    sketch: Sketch,
    x: Float[np.ndarray, "B D"],
    alpha: Float[np.ndarray, " B"],
    sigma: Float[np.ndarray, " B"],
    label: Int[np.ndarray, " B"],
    still: Float[np.ndarray, " B"],
    level: Int[np.ndarray, " B"],
    *,
    tolerance: float = 0.0,
    give_up: bool = True,
) -> Found:
    """Exact moments of queries with α > 0 and σ > 0, by as many coordinates of the sketch as `level` says for each.

    Args:
      x, alpha, sigma, still: float64; `still` is κ in the velocity `A (E[y | x] - κ x)`.
      label: -1: all samples.
      tolerance: share of a query's weight that may be left out; no less than rounding hides is, anyway.
      give_up: leave queries unanswered for which so many samples stand that a dense pass is cheaper.
    """
    b, d = x.shape
    whole = Answers.empty(b, d)
    for rows, part, width in _groups(sketch, label, level):
        own = Answers.empty(len(rows), d)
        one = np.ascontiguousarray(x[rows])
        _some(sketch, one, alpha[rows], sigma[rows], still[rows], own, part, width, tolerance, give_up)
        left = np.flatnonzero(own.standing < 0)
        dense = max(len(left), LEAST_DENSE) * (part.stop - part.start) * _dense_cost(d)
        if 0 < -own.standing[left].sum() * _look_cost(d) < dense:
            again = Answers(*(v[left] for v in own))
            _some(sketch, one[left], alpha[rows[left]], sigma[rows[left]], still[rows[left]], again, part, width, tolerance, give_up=False)
            for every, some in zip(own, again, strict=True):
                every[left] = some
        for every, some in zip(whole, own, strict=True):
            every[rows] = some
    answered = whole.standing > 0
    log_weight, top1_weight, variance, effective, entropy, left_out = np.where(answered[:, None], whole.moments, np.nan).T
    log_mass = np.log([_mass(sketch, int(one)) for one in label], dtype=np.float64)
    normal = d / 2 * np.log(2 * np.pi * np.where(answered, sigma, 1) ** 2)
    return Found(
        denoised=np.where(answered[:, None], whole.mean, np.nan),
        log_density=log_weight - normal - log_mass,
        top1_weight=top1_weight,
        top1_index=whole.top,
        entropy=entropy,
        effective_samples=effective,
        variance=variance,
        error_bound=left_out * 2 * sketch.radius,
        answered=answered,
        standing=whole.standing,
    )


def _groups(sketch: Sketch, label: np.ndarray, level: np.ndarray) -> Iterator[tuple[np.ndarray, slice, int]]:
    """Queries that go through the same rows by the same coordinates, as many as their bounds fit in memory; without the dense ones."""
    for one in np.unique(label[level != DENSE]):
        part = slice(0, sketch.n) if one < 0 else sketch.classes[int(one)]
        at_once = max(1, min(QUERIES_AT_ONCE, SCORES_AT_ONCE // (part.stop - part.start)))
        for width in np.unique(level[(label == one) & (level != DENSE)]):
            rows = np.flatnonzero((label == one) & (level == width))
            for start in range(0, len(rows), at_once):
                yield rows[start : start + at_once], part, int(width)


def _some(
    sketch: Sketch,
    x: np.ndarray,
    alpha: np.ndarray,
    sigma: np.ndarray,
    still: np.ndarray,
    answers: Answers,
    part: slice,
    level: int,
    tolerance: float,
    give_up: bool,
) -> None:
    """Fill in the answers of a few queries: one matrix product for the bounds, then the samples that stand, on every core."""
    from kernels.posterior import skipping_native  # numba takes a second to import

    n, d = part.stop - part.start, sketch.d
    scaled = x / alpha[:, None]
    norm = np.linalg.norm(scaled - sketch.center, axis=1)
    scores, window = sketch.scratch(len(x), n), sketch.window(level, part)
    limit = max(16, int(n * _dense_cost(d) / _look_cost(d))) if give_up else n
    prior = np.empty(0) if sketch.log_prior is None else sketch.log_prior
    slack = sketch.slack(norm, level)

    def share(first: int, last: int) -> None:
        skipping_native.moments(
            *(scores, sketch.rows, prior, sketch.index, part.start, x, alpha, sigma, still, norm**2 / 2, slack),
            *(sketch.radius, tolerance, limit, first, last, *answers),
        )

    with _blas().limit(limits=1, user_api="blas"):  # its threads spin when they are done, and would take the cores that are needed next
        coordinates = sketch.query_coordinates(scaled, level, sigma**2 / alpha**2)
        _on_every_core(n, 1, lambda a, b: np.matmul(coordinates, window[:, a:b], out=scores[:, a:b]))
    _on_every_core(len(x), 4, share)


def _on_every_core(n: int, parts: int, work: Callable[[int, int], object]) -> None:
    """`work(first, last)` for `parts` pieces of range(n) a core."""
    few = max(1, -(-n // (parts * _threads())))
    for job in [_pool().submit(work, first, min(first + few, n)) for first in range(0, n, few)]:
        job.result()


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _mass(sketch: Sketch, label: int) -> float:
    part = slice(0, sketch.n) if label < 0 else sketch.classes[label]
    return float(part.stop - part.start) if sketch.log_prior is None else float(np.exp(sketch.log_prior[part]).sum())


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_threads(), thread_name_prefix="posterior")
