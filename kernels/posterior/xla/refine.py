"""From a Partial to exact moments: the candidates are recomputed in float64, and queries that are still not exact are marked.

A float32 score carries an error of about `2⁻²⁴ (α/σ²) ‖x‖ ‖y‖ √D / 4`: harmless in navigation, several nats at t = 0.999. So the
`k` candidates that a Partial remembers are taken out of its sums and put back with float64 scores, from differences. The other samples
are the rest. Where `rest_peak` bounds their weight by less than rounding, they are left out; elsewhere they keep their float32 weights.
A query for which neither is exact enough is `unsettled`: the caller repeats it in float64 and, if that is not enough, from differences.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kernels.float64 import argmax64, to64
from kernels.posterior.distributed.collectives import Shards
from kernels.posterior.partial import NO_SAMPLE, Partial
from kernels.posterior.types import CentredQueries, Moments, Samples

VELOCITY_TOLERANCE = 5e-6
ENTROPY_TOLERANCE = 1.5e-4
VARIANCE_TOLERANCE = 6e-5
"""Error estimate up to which the float32 part of a posterior stands, set by measurement against float64 so that what it lets through
keeps the errors promised (1e-5 of the velocity, 1e-4 nats, 1e-4 of the variance): on digits, MNIST and Fashion-MNIST at most 1.2e-6 of
the velocity and 8.3e-6 nats (`python -m tests.exactness`); the sets of `tests/flowjax/oracle/oracle_test.py` attack it."""
ENOUGH, LEAST_OF_ESTIMATE = 8, 1 / 32
"""Candidates from which on their scores, known both ways, tell the rounding of all scores; and the least share of the a-priori bound that
the rounding is taken to be."""
LEAST_SCATTER = 1 / 16
"""Mean square distance of the candidates from their own mean, as a share of that mean's square distance from the posterior's, from which on
they are taken for a sample of what carries weight."""
ALIKE = 1 / 256
"""Mean square distance of the candidates from their own mean, as a share of the data's squared radius, below which they are taken for
near-copies."""
NEGLIGIBLE = 1e-7
"""The rest is left out where its whole effect on any of the moments is below this share: float32 rounding hides it."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class RefinedMoments(Moments):
    """`Moments` of the samples about their centre, in their unit, float64; and the state by which a query is repeated or merged."""

    log_total: Float[Any, "*B"]
    """log Σ prior_i exp(-‖x - α y_i‖² / 2σ²), relative to the reference of `in_common`: without the query's own norm, which may be huge."""
    pivot: Int[Any, "*B"]
    """Position of the heaviest of this shard's candidates."""
    keeps_rest: Bool[Any, "*B"]
    """Whether samples beyond the candidates carry weight that shows. In this and in `pivot` shards differ, and in nothing else."""
    unsettled: Bool[Any, "*B"]
    """Whether the dtype of the pass was not exact enough: such a query is repeated."""

    def velocity_only(self) -> "RefinedMoments":
        """The same without the moments that a velocity does not need."""
        unneeded = {field.name: None for field in dataclasses.fields(Moments) if field.name != "denoised"}
        return dataclasses.replace(self, **unneeded)

    def in_callers_frame(self, queries: CentredQueries, samples: Samples) -> Moments:
        """The moments of the caller's data; NaN for a query without samples, or with NaN. `samples` gives centre and unit only."""
        centred = dataclasses.replace(self.alone(), denoised=self.denoised + to64(samples.center))
        moments = centred if samples.unit is None else centred.times(to64(samples.unit))
        # Without samples the mean is 0 / 0.
        known = jnp.isfinite(queries.x).all(axis=1) & jnp.isfinite(self.denoised).all(axis=1)

        def masked(v: Array) -> Array:
            keep = known.reshape(known.shape + (1,) * (v.ndim - 1))
            return jnp.where(keep, v, -1).astype(jnp.int32) if v.dtype == jnp.int32 else jnp.where(keep, v, jnp.nan)

        return jax.tree.map(masked, moments)


def log_density_of(log_weight: Float[Array, " B"], mass: Float[Array, " B"], queries: CentredQueries) -> Float[Array, " B"]:
    """From log Σ prior exp(-‖x - α y‖² / 2σ²) and Σ prior to the density of the mixture, nats."""
    return log_weight - queries.x.shape[1] / 2 * jnp.log(2 * jnp.pi * queries.sigma**2) - jnp.log(mass)


class Common(NamedTuple):
    """A reference log weight that all shards share, and each shard's pivot relative to it."""

    log_weight: Float[Array, " B"]
    """Log weight of the reference: -‖x - α y‖² / 2σ² + log prior."""
    fall: Float[Array, " B"]
    """Log weight of this shard's pivot, relative to the reference; at most 0 but for rounding, -inf for no pivot."""
    frame: Float[Array, " B"]
    """The reference's score, as `CentredQueries` defines scores."""


def in_common(
    queries: CentredQueries,
    pivots: Float[Array, "B D"],
    log_prior: Float[Array, " B"],
    some: Bool[Array, " B"],
    samples: Samples,
    shards: Shards,
) -> Common:
    """The reference: the heaviest of the shards' pivots.

    Two pivots are compared by their distances from x, or by their scores, whichever is the smaller number and so has the smaller rounding:
    distances for queries near the data, scores for queries far away. A single shard compares nothing.

    Args:
      pivots: a sample of each query on this shard, among its heaviest; log_prior: of that sample.
      some: whether this shard has a sample of the query's class.
    """
    variance = jnp.where(queries.sigma > 0, queries.sigma, 1) ** 2
    distant = -jnp.sum((queries.x - queries.alpha[:, None] * pivots) ** 2, axis=1) / (2 * variance) + log_prior
    centred = pivots - to64(samples.center)
    score = jnp.sum(queries.direction * centred, axis=1) - queries.curvature * jnp.sum(centred**2, axis=1) + log_prior
    if shards.axis_name is None:
        return Common(distant, jnp.where(some, jnp.zeros_like(score), -jnp.inf), score)
    largest = to64(samples.largest)
    size = jnp.sqrt(jnp.sum(queries.direction**2, axis=1) * largest) + queries.curvature * largest
    unit = _power_of_two(size)
    nearest = shards.max(jnp.where(some, distant, -jnp.inf) / unit) * unit
    near = jnp.abs(nearest) <= size
    own = jnp.where(some, jnp.where(near, distant, score), -jnp.inf) / unit
    highest = shards.max(own)
    fall = (shards.rounded(own) - jnp.where(jnp.isneginf(highest), 0, highest)) * unit
    reference = jnp.where(jnp.isneginf(highest), 0, highest) * unit
    safe_fall = jnp.where(some, fall, 0)
    return Common(jnp.where(near, reference, reference - queries.offset), fall, score - safe_fall)


def _power_of_two(size: Float[Array, " B"]) -> Float[Array, " B"]:
    """A power of two by which numbers of about this size are divided, so that float32 holds them; 1 for all but huge ones."""
    return jnp.where(size > 1e30, jnp.exp2(jnp.ceil(jnp.log2(jnp.maximum(size, 1)))), 1)


class Candidates(NamedTuple):
    """The k heaviest samples of each query; log weights are relative to the reference of `common`."""

    rows: Float[Array, "B k D"]
    """Relative to the centre."""
    exact: Float[Array, "B k"]
    """Log weights from differences; -inf for none."""
    weight_in_partial: Float[Array, "B k"]
    """What each candidate contributed to the Partial's `weight`."""
    approximate: Float[Array, "B k"]
    """The same log weights as the Partial has them."""
    common: Common


def candidates_of(partial: Partial, queries: CentredQueries, samples: Samples, shards: Shards) -> Candidates:
    """Gather the candidates of a Partial and weigh them exactly: from the first, the pivot, by differences.

    log γ(y) - log γ(p) = α (y - p)·((x - α y) + (x - α p)) / 2σ² + log prior(y) - log prior(p) forms no number larger than it needs: a
    query may lie far from all samples, or 10⁶ times closer to one than the others do.
    """
    index = jnp.minimum(partial.top_index, samples.n - 1)
    rows = to64(samples.values[index])
    present = ~jnp.isneginf(partial.top_score)
    log_prior = jnp.zeros(index.shape, jnp.float64) if samples.log_prior is None else to64(samples.log_prior[index])
    log_prior = jnp.where(present, log_prior, 0)
    away = queries.x[:, None] - queries.alpha[:, None, None] * rows
    variance = jnp.where(queries.sigma > 0, queries.sigma, 1) ** 2
    rate = queries.alpha / (2 * variance)

    def beyond(pivot: Int[Array, " B"]) -> Float[Array, "B k"]:
        """Log weights relative to that of one candidate each."""
        own, own_away, own_prior = (_column(v, pivot) for v in (rows, away, log_prior))
        return rate[:, None] * jnp.sum((rows - own) * (away + own_away), axis=-1) + (log_prior - own_prior)

    pivot = jnp.zeros(index.shape[0], jnp.int32)
    relative = beyond(pivot)
    if shards.axis_name is not None:
        # Copies of one sample on several shards compare as equal only if each shard's pivot is its copy.
        pivot = argmax64(jnp.where(present, relative, -jnp.inf))
        relative = beyond(pivot)
    own, own_prior, some = (_column(v, pivot)[:, 0] for v in (rows, log_prior, present))
    common = in_common(queries, own, own_prior, some, samples, shards)
    exact = relative + common.fall[:, None]
    exact = jnp.where(present, exact, -jnp.inf)
    approximate = jnp.where(present, to64(partial.top_score) - common.frame[:, None], -jnp.inf)
    peak = to64(partial.peak)[:, None]
    weight = jnp.where(present, jnp.exp(to64(partial.top_score) - jnp.where(jnp.isneginf(peak), 0, peak)), 0)
    return Candidates(rows - to64(samples.center), shards.rounded(exact), weight, approximate, common)


def _column(v: Array, k: Int[Array, " B"]) -> Array:
    """`v[b, k_b]` of each query b, with an axis of length 1 in its place."""
    return jnp.take_along_axis(v, k.reshape(-1, *(1,) * (v.ndim - 1)), axis=1)


def weighted_sum(weights: Float[Array, "B k"], rows: Float[Array, "B k D"]) -> Float[Array, "B D"]:
    """Σ_k w_k y_k. Not as a matmul: TPUs have none in float64, and what stands in for it takes a hundred times the memory."""
    return jnp.sum(weights[:, :, None] * rows, axis=1)


# A little over sixty lines: each sum is taken apart and put together in the order in which the head of this file derives it.
def refine(partial: Partial, queries: CentredQueries, samples: Samples, shards: Shards, n: int | None = None) -> RefinedMoments:
    """Exact moments from a Partial over all samples; `unsettled` marks the queries for which float32 was not enough.

    Over shards each device recomputes the candidates of its own Partial from its own rows, decides against the exact peak of all shards
    whether its rest matters, and adds its sums to those of the others: one collective of 8·B·D bytes, and a few of size B.

    Args:
      n: number of samples of the Partial, where `samples` holds only its candidates; None: `samples` holds all.
    """
    top = candidates_of(partial, queries, samples, shards)
    highest = shards.max(top.exact.max(axis=1))
    peak = jnp.where(jnp.isneginf(highest), 0, highest)
    w = jnp.exp(top.exact - peak[:, None])

    # The rest: the Partial less its candidates, in units of exp(peak).
    old_peak = jnp.where(jnp.isneginf(partial.peak), 0, to64(partial.peak) - top.common.frame)
    scale = jnp.exp(jnp.minimum(old_peak - peak, 600.0))
    weight, mean = to64(partial.weight), to64(partial.mean)
    error = _errors(partial, queries, samples, top, peak, shards, samples.n if n is None else n)
    keep = ~error.negligible
    rest_weight = jnp.where(keep, scale * jnp.maximum(weight - top.weight_in_partial.sum(axis=1), 0), 0)
    rest_sum = scale[:, None] * (weight[:, None] * mean - weighted_sum(top.weight_in_partial, top.rows))
    rest_sum = jnp.where(keep[:, None], rest_sum, 0)

    moment = weighted_sum(w, top.rows) + rest_sum
    new_mean, total = shards.mean(moment, w.sum(axis=1) + rest_weight, jnp.sqrt(samples.largest))
    deviation = jnp.sum((top.rows - new_mean[:, None]) ** 2, axis=-1)
    spread = jnp.sum(w * deviation, axis=1)
    if partial.second is not None:
        about_center = to64(partial.second) + weight * jnp.sum(mean**2, axis=1)
        rest_square = scale * (about_center - jnp.sum(top.weight_in_partial * jnp.sum(top.rows**2, axis=-1), axis=1))
        about_mean = rest_square - 2 * jnp.sum(rest_sum * new_mean, axis=1) + rest_weight * jnp.sum(new_mean**2, axis=1)
        spread += jnp.where(keep, jnp.maximum(about_mean, 0), 0)
    skipped = [] if partial.skipped is None else [jnp.where(keep, scale * to64(partial.skipped), 0)]
    spread, all_rest, kept, *all_skipped = shards.sum(spread, rest_weight, to64(keep), *skipped)
    left_out = all_skipped[0] / total if all_skipped else jnp.zeros_like(total)
    variance = spread / total
    moving = jnp.sqrt(jnp.sum((new_mean + to64(samples.center) - queries.velocity_center[:, None] * queries.x) ** 2, axis=1))
    spread_out = variance if partial.second is not None else error.radius**2 + 0 * variance
    overflown = ~jnp.isfinite(total) | ((total > 0) & ~jnp.isfinite(variance))  # scores that are wrong by hundreds of nats
    unsettled = shards.any(overflown | ((kept > 0) & (total > 0) & error.exceeds(all_rest / total, spread_out, moving)))
    log_total = peak + jnp.log(total)
    pivot = jnp.take_along_axis(partial.top_index, argmax64(top.exact)[:, None], axis=1)[:, 0]
    if partial.weight_square is None or partial.weighted_score is None or partial.mass is None:
        return RefinedMoments(denoised=new_mean, log_total=log_total, pivot=pivot, keeps_rest=keep, unsettled=unsettled)
    # Where all candidates are equally heavy there may be more of the same, and one of those may come first.
    tied = (top.exact == highest[:, None]).all(axis=1) & ((samples.n if n is None else n) > top.exact.shape[1])
    unsettled |= shards.any(tied & (queries.curvature > 0))

    rest_of_square = scale**2 * jnp.maximum(to64(partial.weight_square) - jnp.sum(top.weight_in_partial**2, axis=1), 0)
    old_z = jnp.where(top.weight_in_partial > 0, top.approximate - old_peak[:, None], 0)
    rest_score = scale * (to64(partial.weighted_score) - jnp.sum(top.weight_in_partial * old_z, axis=1)) + (old_peak - peak) * rest_weight
    z = jnp.where(w > 0, top.exact - peak[:, None], 0)
    square, score, mass = shards.sum(
        jnp.sum(w * w, axis=1) + jnp.where(keep, rest_of_square, 0),
        jnp.sum(w * z, axis=1) + jnp.where(keep, rest_score, 0),
        to64(partial.mass),
    )
    return RefinedMoments(
        denoised=new_mean,
        log_density=log_density_of(top.common.log_weight + log_total, mass, queries),
        top1_weight=jnp.exp(highest - peak) / total,
        top1_index=_lowest_index(top.exact == highest[:, None], partial.top_index, queries, samples, shards),
        entropy=jnp.maximum(jnp.log(total) - score / total, 0),
        effective_samples=total**2 / square,
        variance=variance,
        error_bound=left_out * 2 * jnp.sqrt(to64(samples.largest)),
        log_total=log_total,
        pivot=pivot,
        keeps_rest=keep,
        unsettled=unsettled,
    )


def _lowest_index(
    best: Bool[Array, "B k"], index: Int[Array, "B k"], queries: CentredQueries, samples: Samples, shards: Shards
) -> Int[Array, " B"]:
    """The lowest of the caller's indices among the best candidates; `NO_SAMPLE` for none.

    At α = 0 all samples of a class are candidates alike, and those remembered are the first of them as they lie: by class.
    """
    if samples.index is not None:
        index = jnp.where(index == NO_SAMPLE, NO_SAMPLE, samples.index[jnp.minimum(index, samples.n - 1)])
    lowest = shards.min(jnp.where(best, index, NO_SAMPLE).min(axis=1))
    if samples.index is None or not samples.by_class:
        return lowest
    prior = jnp.zeros(samples.n) if samples.log_prior is None else samples.log_prior
    first = shards.min(jnp.where(prior == shards.max(prior.max()), samples.index, NO_SAMPLE).min())
    return jnp.where((queries.curvature == 0) & (queries.label == -1), first, lowest)


class _Errors(NamedTuple):
    """Estimates of the rounding errors of each query's rest, and whether the rest matters at all."""

    negligible: Bool[Array, " B"]
    score: Float[Array, " B"]
    """Largest error of a score, nats."""
    typical: Float[Array, " B"]
    """The error of a score as the candidates show it, whose scores are known both ways: twice the root mean square."""
    alike: Bool[Array, " B"]
    """Whether the candidates lie close together, as copies do: their sums are all rounded the same way."""
    residual: Float[Array, " B"]
    """‖x - α y‖ for the heaviest y: the noise that the query carries."""
    radius: Float[Array, ""]
    """Largest ‖y - centre‖."""
    reach: float | Array
    """Largest ‖y‖ that enters a matmul."""
    unit: float
    d: int

    def exceeds(self, rest_share: Array, variance: Array, moving: Array) -> Bool[Array, " B"]:
        """Whether the rest's rounding could spoil a moment; `moving` is ‖E[y | x] - κ x‖, the velocity but for a factor."""
        moved = rest_share * self.typical
        velocity = moved * jnp.sqrt(variance) + jnp.where(self.alike, 8 * (1 + 3 * rest_share), 8) * self.unit * self.reach
        # Σw‖y‖² - ‖Σwy‖² cancels; the difference must be right relative to itself or, if larger, to the noise that x still carries.
        lost = 0.5 + 20 / self.d**0.5
        cancelled = jnp.where(self.alike, max(lost, 8), lost) * self.unit * self.reach * self.radius + moved * variance
        allowed = VARIANCE_TOLERANCE * jnp.maximum(variance, 1e-2 * self.residual**2)
        bad = (velocity > VELOCITY_TOLERANCE * moving) | (moved > ENTROPY_TOLERANCE) | (cancelled > allowed)
        bad |= self.score > 1  # with scores wrong by nats, neither the share of the rest nor the candidates can be trusted
        return bad


def _errors(
    partial: Partial, queries: CentredQueries, samples: Samples, top: Candidates, peak: Float[Array, " B"], shards: Shards, n: int
) -> _Errors:
    """The errors of each query's rest. All but `negligible`, which is about this shard's rest, are the same on every shard."""
    unit = float(jnp.finfo(partial.peak.dtype).eps) / 2
    largest = to64(samples.largest)
    center_square = 0.0 if samples.shifted or unit < 1e-12 else jnp.sum(to64(samples.center) ** 2)
    reach = jnp.sqrt(largest + center_square)
    # A dot product summed in order errs by its own size times √D / 4 where x and y are aligned, by ‖x‖‖y‖ / 2 where not.
    aligned = jnp.abs(peak + top.common.frame) + 2 * queries.curvature * largest
    direction = jnp.sqrt(jnp.sum(queries.direction**2, axis=1))
    score = unit * (max(0.25 * samples.d**0.5, 1.0) * aligned + direction * reach)
    present = jnp.isfinite(top.exact)
    known = to64(present.sum(axis=1))
    gap = jnp.where(present, top.approximate - jnp.where(present, top.exact, 0), 0)
    measured = 2 * jnp.sqrt(jnp.sum(gap**2, axis=1) / jnp.maximum(known, 1))
    # The candidates tell the rounding of the rest only where they lie among it: candidates of one cluster share their rounding.
    centre = jnp.sum(jnp.where(present[:, :, None], top.rows, 0), axis=1) / jnp.maximum(known, 1)[:, None]
    scattered = jnp.sum(jnp.where(present, jnp.sum((top.rows - centre[:, None]) ** 2, axis=-1), 0), axis=1) / jnp.maximum(known, 1)
    among = scattered >= LEAST_SCATTER * jnp.sum((centre - to64(partial.mean)) ** 2, axis=1)
    typical = shards.max(jnp.where((known >= ENOUGH) & among, jnp.clip(measured, score * LEAST_OF_ESTIMATE, score), score))
    best = jnp.take_along_axis(top.rows, argmax64(top.exact)[:, None, None], axis=1)[:, 0] + to64(samples.center)
    here = top.exact.max(axis=1) == peak

    def of_best(gap: Array) -> Array:
        """‖gap‖ where this shard holds the heaviest sample, told to all."""
        return to64(shards.min(jnp.where(here, jnp.sqrt(jnp.sum(gap**2, axis=1)), jnp.inf).astype(jnp.float32)))

    residual = of_best(queries.x - queries.alpha[:, None] * best)
    moving = of_best(best - queries.velocity_center[:, None] * queries.x)
    last = to64(partial.rest_peak) - top.common.frame - peak + 2 * score
    heaviest_rest = jnp.where(jnp.isneginf(last), 0, (n - top.exact.shape[1]) * jnp.exp(jnp.minimum(last, 600.0)))
    width = 2 * jnp.sqrt(largest) / jnp.maximum(jnp.minimum(moving, residual), 1e-30)
    negligible = heaviest_rest * jnp.maximum(1, width**2) <= NEGLIGIBLE / shards.count
    alike = shards.any(scattered < ALIKE * largest)
    return _Errors(negligible, score, typical, alike, residual, jnp.sqrt(largest), reach, unit, samples.d)
