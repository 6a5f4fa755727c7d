"""Partial: what a posterior over some of the samples leaves behind. Blocks, devices and hosts all merge by it."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

CANDIDATES = 16
"""How many of the heaviest samples a Partial remembers for each query. 16 hold all the weight that matters from a little past the
turning point on, and a top-16 costs under a tenth of the two matmuls."""


NO_SAMPLE = 2**31 - 1
"""Index of a candidate that is not there."""


class Top(NamedTuple):
    """The k best samples of a set, by score, and a bound on the others; as in `Partial`."""

    score: Float[Array, "B k"]
    index: Int[Array, "B k"]  # type: ignore[assignment]  # a tuple's own `index` is not used
    rest_peak: Float[Array, " B"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Partial:
    """Moments of softmax weights `w_i = exp(s_i - peak)` over a set of samples, `B` queries at once.

    A commutative monoid: `empty` is its unit and `merge` its operation, so the samples may be split over blocks, devices and
    hosts in any way. All in one dtype, float32 or float64. What `moments="velocity"` does not need is None.
    """

    peak: Float[Array, " B"]
    """max_i s_i; -inf for no samples."""
    weight: Float[Array, " B"]
    """Σ w_i."""
    mean: Float[Array, "B D"]
    """Σ w_i (y_i - center) / Σ w_i."""
    top_score: Float[Array, "B k"]
    """The k largest scores, descending, equal ones by index; -inf where there are fewer samples."""
    top_index: Int[Array, "B k"]
    rest_peak: Float[Array, " B"]
    """At least the largest score of the samples that are not among those k; -inf if there are none."""
    second: Float[Array, " B"] | None
    """Σ w_i ‖y_i - center - mean‖²: about its own mean, merged by Chan's formula. None where an implementation leaves it out of a
    velocity's moments: `refine` then assumes the worst of the rest."""
    weight_square: Float[Array, " B"] | None
    """Σ w_i²."""
    weighted_score: Float[Array, " B"] | None
    """Σ w_i (s_i - peak)."""
    mass: Float[Array, " B"] | None
    """Σ of the prior weights of the samples seen: N without counts and labels."""
    skipped: Float[Array, " B"] | None = None
    """Σ w_i of the samples that are left out of `mean` (and of nothing else). None: there are none."""

    @property
    def full(self) -> bool:
        """Whether all moments are kept, not only the velocity's."""
        return self.mass is not None


def empty(queries: int, d: int, *, candidates: int, full: bool, dtype: DTypeLike) -> Partial:
    """The unit of `merge`: no samples."""

    def zeros() -> Array:
        return jnp.zeros(queries, dtype)

    return Partial(
        peak=jnp.full(queries, -jnp.inf, dtype),
        weight=zeros(),
        mean=jnp.zeros((queries, d), dtype),
        top_score=jnp.full((queries, candidates), -jnp.inf, dtype),
        top_index=jnp.full((queries, candidates), NO_SAMPLE, jnp.int32),
        rest_peak=jnp.full(queries, -jnp.inf, dtype),
        second=zeros(),
        weight_square=zeros() if full else None,
        weighted_score=zeros() if full else None,
        mass=zeros() if full else None,
    )


def of_block(
    scores: Float[Array, "B n"],
    rows: Float[Array, "n D"],
    rows_center: Float[Array, " D"],
    square_norms: Float[Array, " n"],
    mass: Float[Array, " B"] | None,
    top: Top,
    *,
    precision: jax.lax.Precision,
) -> Partial:
    """The Partial of one block.

    Args:
      scores: -inf for a sample that does not count.
      rows: the block's samples; `rows_center` is the data's centre in their frame, `square_norms` are about it.
      mass: the block's prior mass for each query; None keeps only what the velocity needs.
      top: the block's best samples, by global index.
    """
    peak = scores.max(axis=1)
    z = scores - _finite(peak)[:, None]
    w = jnp.exp(z)
    weight = w.sum(axis=1)
    inverse = jnp.where(weight > 0, 1 / jnp.where(weight > 0, weight, 1), 0)
    mean = _weighted(w, rows, precision) * inverse[:, None] - jnp.where(weight > 0, 1, 0).astype(w.dtype)[:, None] * rows_center
    spread = _weighted(w, square_norms, precision) - weight * jnp.sum(mean**2, axis=1)
    second = jnp.maximum(spread, 0)
    if mass is None:
        return Partial(peak, weight, mean, *top, second, None, None, None)
    return Partial(
        peak,
        weight,
        mean,
        *top,
        second=second,
        weight_square=jnp.sum(w * w, axis=1),
        weighted_score=jnp.sum(jnp.where(w > 0, w * z, 0), axis=1),
        mass=mass,
    )


SLICE = 256
"""Samples that a CPU sums up in order. It rounds all sums of copies the same way: 4,096 of them lose 3e-5, 256 2e-6."""


def _weighted(w: Float[Array, "B n"], rows: Float[Array, "n *D"], precision: jax.lax.Precision) -> Float[Array, "B *D"]:
    """Σ_i w_i rows_i."""

    def in_slices(w: Array, rows: Array) -> Array:
        starts = range(0, rows.shape[0], SLICE)
        parts = [jnp.dot(w[:, a : a + SLICE], rows[a : a + SLICE], precision=precision) for a in starts]
        return functools.reduce(jnp.add, parts)

    def at_once(w: Array, rows: Array) -> Array:
        return jnp.dot(w, rows, precision=precision)

    if rows.shape[0] <= SLICE or w.dtype == jnp.float64:
        return at_once(w, rows)
    return jax.lax.platform_dependent(w, rows, cpu=in_slices, default=at_once)


def merge(a: Partial, b: Partial) -> Partial:
    """The Partial of the union of two disjoint sets of samples. Commutative, and associative up to rounding."""
    peak = jnp.maximum(a.peak, b.peak)
    drop_a, drop_b = _finite(a.peak) - _finite(peak), _finite(b.peak) - _finite(peak)
    scale_a = jnp.where(jnp.isneginf(a.peak), 0, jnp.exp(drop_a))
    scale_b = jnp.where(jnp.isneginf(b.peak), 0, jnp.exp(drop_b))
    weight_a, weight_b = scale_a * a.weight, scale_b * b.weight
    weight = weight_a + weight_b
    share_b = jnp.where(weight > 0, weight_b / jnp.where(weight > 0, weight, 1), 0)
    gap = b.mean - a.mean
    mean = a.mean + share_b[:, None] * gap
    top = merge_top(Top(a.top_score, a.top_index, a.rest_peak), Top(b.top_score, b.top_index, b.rest_peak))
    second = None
    if a.second is not None and b.second is not None:
        second = scale_a * a.second + scale_b * b.second + weight_a * share_b * jnp.sum(gap**2, axis=1)
    skipped = None if a.skipped is None or b.skipped is None else scale_a * a.skipped + scale_b * b.skipped
    if a.weight_square is None or a.weighted_score is None or a.mass is None:
        return Partial(peak, weight, mean, *top, second, None, None, None, skipped)
    assert b.weight_square is not None
    assert b.weighted_score is not None
    assert b.mass is not None
    return Partial(
        peak,
        weight,
        mean,
        *top,
        second=second,
        weight_square=scale_a**2 * a.weight_square + scale_b**2 * b.weight_square,
        weighted_score=scale_a * a.weighted_score + drop_a * weight_a + scale_b * b.weighted_score + drop_b * weight_b,
        mass=a.mass + b.mass,
        skipped=skipped,
    )


def merge_top(a: Top, b: Top) -> Top:
    """The k best of two lists: descending by score, equal scores by the lower index."""
    scores, indices = jnp.concatenate([a.score, b.score], axis=1), jnp.concatenate([a.index, b.index], axis=1)
    negated, indices = jax.lax.sort((-scores, indices), dimension=1, num_keys=2)
    k = a.score.shape[1]
    dropped = -negated[:, k] if scores.shape[1] > k else jnp.full_like(a.rest_peak, -jnp.inf)
    return Top(-negated[:, :k], indices[:, :k], jnp.maximum(jnp.maximum(a.rest_peak, b.rest_peak), dropped))


def _finite(x: Array) -> Array:
    """x with -inf replaced by 0, so that differences of two empty peaks are 0 and not NaN."""
    return jnp.where(jnp.isneginf(x), 0, x)
