"""The portable implementation: `lax.scan` over blocks of samples, each merged into a running Partial."""

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from kernels.posterior import partial as partials
from kernels.posterior.partial import CANDIDATES, NO_SAMPLE, Partial, Top
from kernels.posterior.settings import BlockSizes
from kernels.posterior.types import CentredQueries, Samples
from kernels.precision import LAX_PRECISION, Precision

Tree = TypeVar("Tree")

SLICE, SLICES = 256, 16
"""Numbers of a sample that a CPU sums up in order, for a score, and into how many parts they are divided at most."""
RUN = 32
"""Samples in a run. The search for candidates compares the maxima of runs first."""


class Block(NamedTuple):
    """One block of samples, and the scores of all queries on it."""

    scores: Float[Array, "B n"]
    rows: Float[Array, "n D"]
    rows_center: Float[Array, " D"]
    square_norms: Float[Array, " n"]
    mass: Float[Array, " B"]
    positions: Int[Array, " n"]


def streaming(
    queries: CentredQueries, samples: Samples, *, full: bool, dtype: DTypeLike, blocks: BlockSizes, precision: Precision
) -> Partial:
    """One pass over the data: distance, online softmax and weighted sum, `blocks.samples` rows at a time.

    Args:
      full: keep all moments; False: only what the velocity needs.
      dtype: of the scores, weights and sums: float32, or float64 where float32 is not exact enough for a query.
    """
    k = min(CANDIDATES, samples.n)
    lax_precision = LAX_PRECISION[precision]

    def step(total: Partial, start: Array) -> Partial:
        block = read_block(queries, samples, start, dtype=dtype, blocks=blocks, precision=precision)
        top = top_if_better(block, total)
        mass = block.mass if full else None
        here = partials.of_block(block.scores, block.rows, block.rows_center, block.square_norms, mass, top, precision=lax_precision)
        return partials.merge(total, here)

    start = partials.empty(*queries.x.shape, candidates=k, full=full, dtype=dtype)
    return over_blocks(step, start, queries, samples, blocks)


def over_blocks(step: Callable[[Tree, Array], Tree], total: Tree, queries: CentredQueries, samples: Samples, blocks: BlockSizes) -> Tree:
    """`total` after `step(total, first row)` for each block; of rows sorted by class, those of the classes asked for and between."""
    n = min(blocks.samples, samples.n)
    if samples.labels is None or not samples.by_class:
        starts = jnp.arange(0, samples.n, n, dtype=jnp.int32)
        return jax.lax.scan(lambda carry, start: (step(carry, start), None), total, starts)[0]
    everything = jnp.any(queries.label == -1)
    first, stop = (
        jnp.searchsorted(samples.labels, label, side=side).astype(jnp.int32)
        for label, side in ((queries.label.min(), "left"), (queries.label.max(), "right"))
    )
    first, stop = jnp.where(everything, 0, first), jnp.where(everything, samples.n, stop)
    return jax.lax.fori_loop(0, (stop - first + n - 1) // n, lambda i, carry: step(carry, first + i * n), total)


def read_block(
    queries: CentredQueries,
    samples: Samples,
    start: Array,
    *,
    dtype: DTypeLike,
    blocks: BlockSizes,
    precision: Precision,
    product: Callable[[Array, Array], Array] | None = None,
) -> Block:
    """The block that begins at `start`; the last one is moved back to fit, and rows of the block before it do not count.

    Args:
      product: computes direction · rows for the block from a first row on, in place of XLA's matmul.
    """
    n = min(blocks.samples, samples.n)
    first = jnp.minimum(start, samples.n - n)

    def cut(x: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(x, first, n)

    index = first + jnp.arange(n, dtype=jnp.int32)
    center = samples.center.astype(dtype)
    rows, rows_center = cut(samples.values).astype(dtype), center
    square_norms = cut(samples.square_norms).astype(dtype)
    if samples.shifted or dtype == jnp.float64:
        rows, rows_center = rows - center, jnp.zeros_like(center)
    if dtype == jnp.float64:
        square_norms = jnp.sum(rows**2, axis=1)  # those kept are rounded to float32
    direction = queries.direction.astype(dtype)
    scores = _scores(direction, rows, LAX_PRECISION[precision]) if product is None else product(direction, first)
    scores -= jnp.dot(direction, rows_center, precision=jax.lax.Precision.HIGHEST)[:, None]
    scores -= queries.curvature.astype(dtype)[:, None] * square_norms
    prior = jnp.ones(n, dtype)
    if samples.log_prior is not None:
        log_prior = cut(samples.log_prior).astype(dtype)
        scores, prior = scores + log_prior, jnp.exp(log_prior)
    counts = _counts(queries, samples, cut, index >= start)
    mass = jnp.broadcast_to(jnp.where(counts, prior, 0).sum(axis=1), queries.alpha.shape)
    return Block(jnp.where(counts, scores, -jnp.inf), rows, rows_center, square_norms, mass, index)


def _scores(direction: Float[Array, "B D"], rows: Float[Array, "n D"], precision: jax.lax.Precision) -> Float[Array, "B n"]:
    """Directions times rows. A CPU sums in order, so it sums `SLICE` numbers at a time: half of the rounding, fewer repeats."""

    def in_slices(direction: Array, rows: Array) -> Array:
        count = min(SLICES, -(-direction.shape[1] // SLICE))
        cuts = [direction.shape[1] * k // count for k in range(count + 1)]
        parts = [jnp.dot(direction[:, a:b], rows[:, a:b].T, precision=precision) for a, b in itertools.pairwise(cuts)]
        return functools.reduce(jnp.add, parts)

    def at_once(direction: Array, rows: Array) -> Array:
        return jnp.dot(direction, rows.T, precision=precision)

    return jax.lax.platform_dependent(direction, rows, cpu=in_slices, default=at_once)


def _counts(queries: CentredQueries, samples: Samples, cut, fresh: Bool[Array, " n"]) -> Bool[Array, "#B n"]:  # type: ignore[no-untyped-def]
    """Which samples of a block count for which query: the `fresh` ones, of the query's class if it names one."""
    if samples.labels is None:
        return fresh[None]
    return fresh & ((queries.label[:, None] == cut(samples.labels)) | (queries.label[:, None] == -1))


def top_if_better(block: Block, total: Partial) -> Top:
    """The block's candidates for a place in `total`, computed only where some query has one: late in a pass few blocks hold any."""
    best = block.scores.max(axis=1)
    none = Top(jnp.full_like(total.top_score, -jnp.inf), jnp.full_like(total.top_index, NO_SAMPLE), best)
    return jax.lax.cond(jnp.any(best > total.top_score[:, -1]), lambda: _top(block, best, total.top_score.shape[1]), lambda: none)


def _top(block: Block, best: Float[Array, " B"], k: int) -> Top:
    b, n = block.scores.shape
    # XLA's fast top-k is for float32, and it knows it only if nothing else slices the result: it would sort the whole block instead.
    below_best = (block.scores - jnp.where(jnp.isneginf(best), 0, best)[:, None]).astype(jnp.float32)
    below, position = _largest(below_best, min(k, n))
    short = ((0, 0), (0, k - position.shape[1]))
    score = jnp.pad(jnp.take_along_axis(block.scores, position, axis=1), short, constant_values=-jnp.inf)
    index = jnp.pad(block.positions[position], short, constant_values=NO_SAMPLE)
    # The k-th score bounds all others, but for its rounding; a block no longer than the list has no others.
    bound = best + below.min(axis=1).astype(best.dtype) * (1 - 2.0**-22)
    return Top(score, index, bound if n > k else jnp.full(b, -jnp.inf, best.dtype))


def _largest(x: Float[Array, "B n"], k: int) -> tuple[Float[Array, "B k"], Int[Array, "B k"]]:
    """As `jax.lax.top_k`, equal values by the lower index: of the k runs with the largest maxima alone, since no other can hold one.

    A pass over the maxima runs at the speed of memory; a top-k compares every value by itself.
    """
    b, n = x.shape
    if n < 4 * k * RUN:
        values, position = jax.lax.top_k(x, k)
        return values, position
    runs = jnp.pad(x, ((0, 0), (0, -n % RUN)), constant_values=-jnp.inf).reshape(b, -1, RUN)
    _, chosen = jax.lax.top_k(runs.max(axis=2), k)
    chosen = jnp.sort(chosen, axis=1)  # so that what is equal stays in order
    values, position = jax.lax.top_k(jnp.take_along_axis(runs, chosen[:, :, None], axis=1).reshape(b, k * RUN), k)
    return values, jnp.take_along_axis(chosen, position // RUN, axis=1) * RUN + position % RUN
