"""The posterior of whole paths by two products a pair of path and sample, compiled: on one device, an accelerator or a mesh.

Of x_t = α x_1 + σ x_0 the log weight of sample y is, at ρ = α/σ and about the data's centre c,

    ρ² e_1 + ρ e_0 + log prior - ½ρ² ‖x_1 - c‖² - ρ x_0·(x_1 - c) - ½‖x_0‖²
    e_1 = (x_1 - c)·(y - c) - ½‖y - c‖²,     e_0 = x_0·(y - c)

e_1 and e_0 are the same at every time. A pass makes them block by block and folds every time into sums of its own. Points at which
float32 could show are repeated in float64, all of a tile's together.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from kernels.float64 import to64
from kernels.posterior.distributed.collectives import Shards
from kernels.posterior.partial import NO_SAMPLE
from kernels.posterior.settings import BlockSizes, PosteriorSettings
from kernels.posterior.types import CentredQueries, Samples, prior_mass
from kernels.posterior.xla.batching import in_tiles
from kernels.posterior.xla.streaming import over_blocks, read_block
from kernels.precision import Precision

SCORE_ERROR = 1e-5
"""Error of a score, nats, one standard deviation, that no moment shows: a tenth of what is promised of the entropy."""
SURE = 10.0
"""Standard deviations beyond which an error of a score is taken to be impossible."""
HIDDEN = 1e-7
"""Weight of all samples but the heaviest, as a share of its own, that float32 does not show."""
EQUAL = 1e-12
"""Nats within which scores are taken for equal."""
PATH_ROWS = 256
"""Paths in a tile."""


class PathRows(NamedTuple):
    """B paths, and the times at which they are asked about: the same for each, in a row of its own so that rows can be split."""

    x_0: Float[Array, "B D"]
    x_1: Float[Array, "B D"]
    """In the caller's unit."""
    label: Int[Array, " B"]
    ratio: Float[Array, "B T"]
    """α/σ > 0, float64, in the caller's unit."""


class PathFactors(NamedTuple):
    """What is multiplied with the samples."""

    pairs: Float[Array, "2 B D"]
    """x_1 - c and x_0, in the samples' unit but for x_0."""
    label: Int[Array, " B"]
    ratio: Float[Array, " T"]
    """In the samples' unit."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PathPartial:
    """Sums over a set of samples with weights w = exp(score - peak), of each path at each time."""

    peak: Float[Array, "T B"]
    """max ρ² e_1 + ρ e_0 + log prior; -inf for no samples."""
    weight: Float[Array, "T B"]
    """Σ w."""
    square: Float[Array, "T B"]
    """Σ w²."""
    score: Float[Array, "T B"]
    """Σ w (score - peak)."""
    top_index: Int[Array, "T B"]
    """The caller's index of the heaviest sample; of those that rounding cannot tell from it, the lowest."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PathMoments:
    """The posterior of each path at each time, rows first. float64."""

    log_weight: Float[Array, "B T"]
    """log of the mean of exp(-‖x_t - α y‖² / 2σ²) over the samples that count for the path, each as often as it counts."""
    top1_weight: Float[Array, "B T"]
    top1_index: Int[Array, "B T"]
    entropy: Float[Array, "B T"]
    effective_samples: Float[Array, "B T"]
    answered: Bool[Array, "B T"]
    """Whether they are exact; the others are not to be used."""


Pass = Callable[[PathFactors, Samples, Float[Array, "T B"]], PathPartial]
"""From the factors, the samples, and how far below the peak a sample may lie and still be equal to it, to the sums."""


def path_moments64(rows: PathRows, samples: Samples, how: PosteriorSettings, *, once: Pass | None = None) -> PathMoments:
    """The posterior of whole paths, on prepared samples, inside `float64_scope`. As `posterior64`.

    Args:
      once: one pass in float32; None: `path_streaming`, which is repeated in float64 for a tile that has unanswered points.
    """

    def tile(some: PathRows) -> PathMoments:
        unit = 1.0 if samples.unit is None else to64(samples.unit)
        x_1, x_0 = to64(some.x_1) / unit - to64(samples.center), to64(some.x_0)
        factors = PathFactors(jnp.stack([x_1, x_0]), some.label, to64(some.ratio[0]) * unit)
        (mass,) = how.shards.sum(to64(prior_mass(some.label, samples)))

        def by(one_pass: Pass, roundoff: float) -> PathMoments:
            error = _error(factors, samples, roundoff)
            near = jnp.maximum(SURE * error, EQUAL)
            return _moments(_over_shards(one_pass(factors, samples, near), near, how.shards), factors, mass, error)

        if once is not None:
            return by(once, 2.0**-24)
        first, again = (
            lambda dtype=dtype: by(
                lambda f, s, near: path_streaming(f, s, near, dtype=dtype, blocks=how.blocks, precision=how.precision),
                2.0**-24 if dtype == jnp.float32 else 2.0**-53,
            )
            for dtype in (jnp.float32, jnp.float64)
        )
        found = first()
        return jax.lax.cond(how.shards.any(~found.answered.all()), again, lambda: found)

    return in_tiles(tile, rows, PATH_ROWS)


def path_streaming(
    factors: PathFactors,
    samples: Samples,
    near: Float[Array, "T B"],
    *,
    dtype: DTypeLike,
    blocks: BlockSizes,
    precision: Precision,
) -> PathPartial:
    """One pass over the samples, by `lax.scan`: two products a block, then T softmaxes."""
    _, b, d = factors.pairs.shape
    both, zero = factors.pairs.reshape(2 * b, d), jnp.zeros(2 * b, dtype)
    half = jnp.where(jnp.arange(2 * b) < b, 0.5, 0.0)
    asked = CentredQueries(
        x=both, alpha=zero, sigma=zero, label=jnp.tile(factors.label, 2), velocity_center=zero, direction=both, curvature=half, offset=zero
    )
    unweighted = dataclasses.replace(samples, log_prior=None)
    index = jnp.arange(samples.n, dtype=jnp.int32) if samples.index is None else samples.index
    ratio, near = factors.ratio.astype(dtype), near.astype(dtype)

    def step(total: PathPartial, start: Array) -> PathPartial:
        block = read_block(asked, unweighted, start, dtype=dtype, blocks=blocks, precision=precision)
        first, second = block.scores[:b], block.scores[b:]
        prior = jnp.zeros((), dtype) if samples.log_prior is None else samples.log_prior[block.positions].astype(dtype)
        named = index[block.positions]

        def at(of_time: tuple[Array, Array, PathPartial]) -> PathPartial:
            r, close, so_far = of_time
            score = r * (r * first + second) + prior
            peak = score.max(axis=1)
            z = score - jnp.where(jnp.isneginf(peak), 0, peak)[:, None]
            w = jnp.exp(z)
            top = jnp.where(score >= (peak - close)[:, None], named, NO_SAMPLE).min(axis=1)
            here = PathPartial(peak, w.sum(axis=1), (w * w).sum(axis=1), jnp.where(w > 0, w * z, 0).sum(axis=1), top)
            return _merge(so_far, jax.tree.map(lambda v: v if v.dtype == jnp.int32 else to64(v), here), to64(close))

        return jax.lax.map(at, (ratio, near, total))

    shape = near.shape
    none = jnp.zeros(shape, jnp.float64)
    start = PathPartial(jnp.full(shape, -jnp.inf, jnp.float64), none, none, none, jnp.full(shape, NO_SAMPLE, jnp.int32))
    return over_blocks(step, start, asked, samples, blocks)


def _merge(one: PathPartial, other: PathPartial, near: Float[Array, "*shape"]) -> PathPartial:
    """The sums of both."""
    peak = jnp.maximum(one.peak, other.peak)

    def lowered(v: PathPartial) -> tuple[Array, Array, Array]:
        fall = jnp.where(jnp.isneginf(v.peak), 0, v.peak - peak)
        scale = jnp.exp(fall)
        return scale * v.weight, scale**2 * v.square, scale * (v.score + jnp.maximum(fall, -800) * v.weight)

    weight, square, score = (a + b for a, b in zip(lowered(one), lowered(other), strict=True))
    first, second = (jnp.where(v.peak >= peak - near, v.top_index, NO_SAMPLE) for v in (one, other))
    return PathPartial(peak, weight, square, score, jnp.minimum(first, second))


def _over_shards(own: PathPartial, near: Float[Array, "T B"], shards: Shards) -> PathPartial:
    """The sums over the samples of all devices."""
    if shards.axis_name is None:
        return own
    peak = shards.max(own.peak)
    zero = jnp.zeros_like(peak)
    none = PathPartial(peak, zero, zero, zero, jnp.full_like(own.top_index, NO_SAMPLE))
    here = _merge(none, dataclasses.replace(own, peak=shards.rounded(own.peak)), near)
    weight, square, score = shards.sum(here.weight, here.square, here.score)
    return PathPartial(peak, weight, square, score, shards.min(here.top_index))


def _error(factors: PathFactors, samples: Samples, roundoff: float) -> Float[Array, "T B"]:
    """Standard deviation of a score's rounding error, nats: D sums of products of these sizes, each rounded at about that size."""
    centred, noise = factors.pairs
    largest = to64(samples.largest)
    own, length = jnp.sum(centred**2, axis=1), jnp.sum(noise**2, axis=1)
    away = jnp.zeros(()) if samples.shifted else jnp.sum(to64(samples.center) ** 2)  # samples enter the products as they are
    first = largest / 2 + jnp.sqrt(own * away) + 2 * jnp.sqrt(own * largest / samples.d)
    second = jnp.sqrt(length * away) + 2 * jnp.sqrt(length * largest / samples.d)
    ratio = factors.ratio[:, None]
    return roundoff / 3 * samples.d**0.5 * (ratio**2 * first + ratio * second)


def _moments(partial: PathPartial, factors: PathFactors, mass: Float[Array, " B"], error: Float[Array, "T B"]) -> PathMoments:
    centred, noise = factors.pairs
    ratio = factors.ratio[:, None]
    own, cross, length = jnp.sum(centred**2, axis=1), jnp.sum(centred * noise, axis=1), jnp.sum(noise**2, axis=1)
    log_total = jnp.log(partial.weight)
    top1 = 1 / partial.weight
    log_weight = partial.peak + log_total - ratio**2 / 2 * own - ratio * cross - length / 2 - jnp.log(mass)
    # Errors of many samples of about equal weight average out; where one has all the weight none shows.
    averaged = top1 <= jnp.minimum(1, (SCORE_ERROR / jnp.maximum(error, SCORE_ERROR)) ** 2)
    alone = (partial.weight - 1) * jnp.exp(jnp.minimum(2 * SURE * error, 600)) <= HIDDEN
    sure = (averaged | alone) & (error <= 1e-5 * jnp.abs(log_weight)) & jnp.isfinite(log_weight)
    found = PathMoments(
        log_weight,
        top1,
        partial.top_index,
        jnp.maximum(log_total - partial.score / partial.weight, 0),
        partial.weight**2 / partial.square,
        sure,
    )
    return jax.tree.map(lambda v: v.T, found)
