"""The records of a posterior: samples, prepared once for many queries; queries, as asked and about the data's centre; moments."""

import dataclasses
import math
from functools import partial as bind
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from kernels.float64 import float64_scope, to32, to64
from kernels.posterior.distributed.collectives import ONE_DEVICE, Shards

SomeMoments = TypeVar("SomeMoments", bound="Moments")

SHIFTED_FROM = 4
"""Blocks are moved to the centre on the fly where ‖centre‖² exceeds so many times the mean ‖y - centre‖²."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Samples:
    """`N` samples as every implementation reads them.

    `values` stay in the caller's dtype (float32, bfloat16 or uint8: each converts to float32 without rounding) and are the
    only array of size N·D. Distances are taken about `center`, the data's mean: the query is moved there in float64 and the
    norms are about it, while `values` enter the matmul as they are. Only where the data lie far from the origin, so that
    their own norm would drown the differences (`shifted`), are blocks moved on the fly as well.
    """

    values: Num[Array, "N D"]
    center: Float[Array, " D"]
    square_norms: Float[Array, " N"]
    """‖y_i - center‖²."""
    log_prior: Float[Array, " N"] | None
    """log of how often each sample counts, -inf: never; None: once each."""
    labels: Int[Array, " N"] | None
    largest: Float[Array, ""]
    """max_i ‖y_i - center‖², over all shards."""
    shifted: bool = dataclasses.field(metadata={"static": True})
    index: Int[Array, " N"] | None = None
    """The caller's index of each row; None: its position."""
    by_class: bool = dataclasses.field(default=False, metadata={"static": True})
    """Whether the rows are sorted by label: the blocks of a class can then be found."""
    unit: Float[Array, ""] | None = None
    """A power of two: the caller's samples are `values * unit`. None: 1. All else here is in this unit too."""

    @property
    def n(self) -> int:
        return self.values.shape[0]

    def restored(self, rows: Array) -> Array:
        """Rows of `values`, as the caller gave them."""
        return rows if self.unit is None else (rows * self.unit).astype(rows.dtype)

    def in_order(self, rows: Array) -> Array:
        """A field, in the caller's order."""
        return rows if self.index is None else rows[jnp.argsort(self.index)]

    @property
    def d(self) -> int:
        return self.values.shape[1]


USUAL = 2.0**20
"""Data whose largest number lies between 1 / so many and so many are taken as they are: float32 holds their squares, and sums of them."""


def unit_of(largest: float) -> float:
    """The power of two by which data are divided whose largest number this is: 1 for usual ones, and for data that are all 0."""
    if not 0 < largest < math.inf or 1 / USUAL <= largest <= USUAL:
        return 1.0
    return math.ldexp(1.0, max(math.frexp(largest)[1], -125))


def in_unit(values: Num[np.ndarray, "N D"] | Num[Array, "N D"]) -> tuple[Num[np.ndarray, "N D"] | Num[Array, "N D"], float]:
    """Concrete data in a unit of about their own size, and that unit; by the host, for XLA takes subnormal numbers for 0."""
    if values.dtype == np.uint8:
        return values, 1.0
    host = np.asarray(values)
    unit = unit_of(max(float(host.max()), -float(host.min())))
    return (values, 1.0) if unit == 1 else (np.multiply(host, np.asarray(1 / unit, host.dtype)), unit)


@bind(jax.jit, static_argnames="shards")
def statistics(values: Num[Array, "N D"], counts: Float[Array, " N"] | None, shards: Shards) -> tuple[Array, Array, Array, Array]:
    """Centre, square norms about it, the largest of them, and ‖centre‖² over their mean; in float64, block by block.

    Centre, largest and ratio are those of all shards. Rows with a count of 0 have no part in them, and norm 0.
    """
    n, d = values.shape
    block = max(1, min(n, 2**21 // d))
    valid = jnp.ones(n, bool) if counts is None else counts > 0
    with float64_scope():
        starts = jnp.arange(0, n, block, dtype=jnp.int32)

        def rows(start: Array) -> tuple[Array, Array, Array]:
            """A block of rows in float64, which of them are valid, and which no block before has held (the last is moved back to fit)."""
            first = jnp.minimum(start, n - block)
            block_rows, block_valid = (jax.lax.dynamic_slice_in_dim(x, first, block) for x in (values, valid))
            return to64(block_rows), block_valid, first + jnp.arange(block, dtype=jnp.int32) >= start

        def add(total: Array, start: Array) -> tuple[Array, None]:
            block_rows, block_valid, fresh = rows(start)
            return total + to64(fresh & block_valid) @ block_rows, None

        (number,) = shards.sum(to64(valid.sum()))
        (total,) = shards.sum(jax.lax.scan(add, jnp.zeros(d, jnp.float64), starts)[0])
        center = to32(total / number)

        def norms_of(norms: Array, start: Array) -> tuple[Array, None]:
            block_rows, block_valid, _ = rows(start)
            square = jnp.where(block_valid, to32(jnp.sum((block_rows - to64(center)) ** 2, axis=1)), 0)
            return jax.lax.dynamic_update_slice_in_dim(norms, square, jnp.minimum(start, n - block), 0), None

        norms, _ = jax.lax.scan(norms_of, jnp.zeros(n, jnp.float32), starts)
        (square,) = shards.sum(jnp.sum(to64(norms)))
        ratio = jnp.sum(to64(center) ** 2) / jnp.maximum(square / number, 1e-300)
        return center, norms, shards.max(norms.max()), to32(jnp.minimum(ratio, 1e30))


def by_class(data: Num[Array, "N D"], labels: Int[Array, " N"], counts: Float[Array, " N"] | None = None) -> Samples:
    """`prepare`, with the rows sorted by label, so that a query reads the blocks of its class only. Takes a copy where they are not yet."""
    order = jnp.argsort(labels, stable=True).astype(jnp.int32)
    if not isinstance(order, jax.core.Tracer) and bool((order == jnp.arange(len(order), dtype=jnp.int32)).all()):
        return dataclasses.replace(prepare(data, labels, counts), by_class=True)
    samples = prepare(data[order], labels[order], None if counts is None else counts[order])
    return dataclasses.replace(samples, index=order, by_class=True)


def prepare(
    data: Num[Array, "N D"],
    labels: Int[Array, " N"] | None = None,
    counts: Float[Array, " N"] | None = None,
    shift: bool | None = None,
    shards: Shards = ONE_DEVICE,
) -> Samples:
    """Prepare `data` for `posterior`: one pass over it, in float64.

    Data of an unusual size (largest number beyond 10⁶ or below 10⁻⁶) are copied and divided by a power of two, so that squares stay within
    float32; not under tracing, where their size cannot be known.

    Args:
      data: `[N, D]`, float32, bfloat16 or uint8.
      labels: `[N]` integers, or None.
      counts: `[N]`: how often each sample counts, 0: never; None: once each.
      shift: move blocks to the centre on the fly. Default: beyond `SHIFTED_FROM`, and always
        under tracing, where that cannot be known.
      shards: the devices of a `shard_map`, each with data of its own.
    """
    unit = 1.0
    if not isinstance(data, jax.core.Tracer):
        scaled, unit = in_unit(data)
        data = jnp.asarray(scaled)
    center, norms, largest, ratio = statistics(jax.lax.stop_gradient(data), counts, shards)
    if shift is None:
        shift = True if isinstance(ratio, jax.core.Tracer) else bool(ratio > SHIFTED_FROM)
    n = data.shape[0]
    return Samples(
        values=data,
        center=center,
        square_norms=norms,
        log_prior=None if counts is None else jnp.log(counts.astype(jnp.float32)),
        labels=labels,
        largest=largest,
        shifted=shift,
        index=None if shards.axis_name is None else (shards.number * n + jnp.arange(n)).astype(jnp.int32),
        unit=None if unit == 1 else jnp.asarray(unit, jnp.float32),
    )


def prior_mass(label: Int[Array, " B"], samples: Samples) -> Float[Array, " B"]:
    """Σ of the prior weights of the samples that count for each query; of this shard."""
    prior = jnp.ones(samples.n, jnp.float32) if samples.log_prior is None else jnp.exp(samples.log_prior)
    if samples.labels is None:
        return jnp.broadcast_to(prior.sum(), label.shape)
    known = samples.labels
    return jax.lax.map(lambda one: jnp.where((known == one) | (one == -1), prior, 0).sum(), label)


LARGEST_SCORE = 1e30
"""A score, or a product on the way to it, that float32 surely holds."""


class Queries(NamedTuple):
    """`B` noisy queries x = α y + σ noise, in NumPy or JAX arrays, as every engine is given them. In the caller's unit."""

    x: Float[Any, "B D"]
    """float32; float64 where the CPU engine has divided by the samples' unit."""
    alpha: Float[Any, " B"]
    sigma: Float[Any, " B"]
    label: Int[Any, " B"]
    """-1: all samples."""
    velocity_center: Float[Any, " B"] | None = None
    """κ in the velocity `A (E[y | x] - κ x)` that the mean is computed for, which says how exact the mean must be. None: 1/α."""
    velocity_rate: Float[Any, " B"] | None = None
    """A. Only the CPU engine, which returns the velocity too, reads it."""

    def at(self, rows: np.ndarray) -> "Queries":
        """The queries `rows`, in this order, in NumPy arrays; writable, because numba compiles anew for arrays that are not."""
        where = as_slice(rows)
        return Queries(*(None if v is None else np.require(v[where], requirements=["C", "W"]) for v in self))


def as_slice(rows: np.ndarray) -> np.ndarray | slice:
    """Rows that follow each other, as a slice: what it selects is not copied. Other rows as they are."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) > 0).all():
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CentredQueries:
    """`Queries` about the data's centre, float64 (made and used inside `float64_scope`), in the samples' unit: what XLA's passes read.

    The score of sample i, `direction · (y_i - center) - curvature · ‖y_i - center‖² + log prior_i`, is its log weight
    `-‖x - α y_i‖² / 2σ² + log prior_i` plus `offset`: the query's own norm has dropped out of what float32 must resolve.
    Rows with σ = 0 have no scores (theirs are all equal); `nearest` computes their moments.
    """

    x: Float[Array, "B D"]
    alpha: Float[Array, " B"]
    sigma: Float[Array, " B"]
    label: Int[Array, " B"]
    """-1: all samples."""
    velocity_center: Float[Array, " B"]
    """As in `Queries`."""
    direction: Float[Array, "B D"]
    """(α/σ²)(x - α center)."""
    curvature: Float[Array, " B"]
    """α²/2σ²."""
    offset: Float[Array, " B"]
    """‖x - α center‖² / 2σ²."""

    @classmethod
    def of(cls, queries: Queries, samples: Samples) -> "CentredQueries":
        """`queries` about the centre of `samples`; in float64, because at t = 0.999 scores are 10⁶ times the distances."""
        x, alpha, sigma = to64(queries.x), to64(queries.alpha), to64(queries.sigma)
        if samples.unit is not None:
            x, sigma = x / to64(samples.unit), sigma / to64(samples.unit)
        velocity_center = 1 / jnp.maximum(alpha, 1e-30) if queries.velocity_center is None else to64(queries.velocity_center)
        variance = jnp.where(sigma > 0, sigma, 1) ** 2
        rate = jnp.where(sigma > 0, alpha / variance, 0)
        centred = x - alpha[:, None] * to64(samples.center)
        return cls(
            x=x,
            alpha=alpha,
            sigma=sigma,
            label=jnp.asarray(queries.label),
            velocity_center=velocity_center,
            direction=rate[:, None] * centred,
            curvature=rate * alpha / 2,
            offset=jnp.sum(centred**2, axis=1) / (2 * variance),
        )

    def fit_float32(self, samples: Samples) -> Bool[Array, " B"]:
        """Whether float32 holds the scores, and the sums on the way to them; not for data that are 10¹² times larger than the noise."""
        reach = jnp.sqrt(to64(samples.largest)) + jnp.sqrt(jnp.sum(to64(samples.center) ** 2))
        size = jnp.sqrt(jnp.sum(self.direction**2, axis=1)) * jnp.maximum(reach, 1) + self.curvature * jnp.maximum(reach**2, 1)
        return size < LARGEST_SCORE

    def where(self, keep: Bool[Array, " B"]) -> "CentredQueries":
        """The same, but with all scores 0 in the other rows."""
        direction, curvature = jnp.where(keep[:, None], self.direction, 0), jnp.where(keep, self.curvature, 0)
        return dataclasses.replace(self, direction=direction, curvature=curvature)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moments:
    """The posterior of one sample index given `B` noisy queries, in NumPy or JAX arrays, in the caller's unit.

    `moments="velocity"` leaves all but `denoised` None. Engines extend this record by what their callers need to go on: `HostMoments` of
    the CPU engine, `RefinedMoments` of XLA, `OracleOutput`.
    """

    denoised: Float[Any, "B D"]
    """E[y | x] = Σ γ_i y_i."""
    log_density: Float[Any, " B"] | None = None
    """log p(x) of the mixture `Σ_i N(x; α y_i, σ² I) / N`, nats; over the samples that count for the query."""
    top1_weight: Float[Any, " B"] | None = None
    """max_i γ_i."""
    top1_index: Int[Any, " B"] | None = None
    """Its sample; the lowest index among equals."""
    entropy: Float[Any, " B"] | None = None
    """-Σ γ_i log γ_i, nats."""
    effective_samples: Float[Any, " B"] | None = None
    """1 / Σ γ_i²."""
    variance: Float[Any, " B"] | None = None
    """tr Cov[y | x] = Σ γ_i ‖y_i - E[y | x]‖²."""
    error_bound: Float[Any, " B"] | None = None
    """Bound on ‖denoised - exact‖₂ from samples left out: their share of the weight times the diameter of the data. 0: none."""

    def alone(self) -> "Moments":
        """The moments without what an engine's own record keeps beside them."""
        return Moments(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Moments)})

    def times(self: SomeMoments, unit: float | Array) -> SomeMoments:
        """The moments of data that are `unit` times as large."""
        d, log_unit = self.denoised.shape[-1], (np if isinstance(unit, float) else jnp).log(unit)
        return dataclasses.replace(
            self,
            denoised=self.denoised * unit,
            log_density=None if self.log_density is None else self.log_density - d * log_unit,
            variance=None if self.variance is None else self.variance * unit**2,
            error_bound=None if self.error_bound is None else self.error_bound * unit,
        )
