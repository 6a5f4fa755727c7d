"""The posterior over a data set larger than memory: the host does chunk by chunk what `api` does in one program.

    Partials of chunks, merged → candidates read back and refined → unsettled queries once more in float64 → queries with σ = 0

Every pass reads the data once for all queries that a budget holds. All of it happens inside `float64_scope`, on concrete arrays.
"""

import dataclasses
from collections.abc import Callable, Hashable
from functools import partial as bind
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from kernels.float64 import to64
from kernels.posterior import partial as partials
from kernels.posterior.api import PosteriorSettings, partial_of
from kernels.posterior.distributed.collectives import ONE_DEVICE
from kernels.posterior.out_of_core.source import Chunks, give_back
from kernels.posterior.partial import CANDIDATES, NO_SAMPLE, Partial
from kernels.posterior.types import CentredQueries, Moments, Queries, Samples
from kernels.posterior.xla import differences
from kernels.posterior.xla.batching import FALLBACK_ROWS, in_tiles
from kernels.posterior.xla.refine import RefinedMoments, refine
from kernels.posterior.xla.zero_noise import TIE

Rows = TypeVar("Rows")
Output = TypeVar("Output")


def posterior_out_of_core(queries: Queries, chunks: Chunks, how: PosteriorSettings) -> Moments:
    """`posterior64` for a prepared source: float64, concrete. To be called inside `float64_scope`, and not under tracing.

    Raises:
      ValueError, OSError: what the source raises.
    """
    how = dataclasses.replace(how, blocks=chunks.sizes.blocks)
    nothing = chunks.samples(jnp.zeros((0, chunks.d), chunks.source.dtype), jnp.zeros(0, jnp.int32))

    def some(index: np.ndarray) -> Moments:
        centred = _centred(_taken(queries, index), nothing)
        return _in_callers_frame(_refined(centred, chunks, how), centred, nothing)

    return _in_pieces(some, len(queries.x), chunks.sizes.queries)


_COMPILED: set[Hashable] = set()
"""Passes that have been compiled."""
_centred = jax.jit(CentredQueries.of)
_in_callers_frame = jax.jit(RefinedMoments.in_callers_frame)
_fit = jax.jit(CentredQueries.fit_float32)
_where = jax.jit(CentredQueries.where)
_no_sums = jax.jit(differences.no_sums, static_argnums=(0, 1))
_moments_of_sums = jax.jit(bind(differences.moments_of_sums, shards=ONE_DEVICE))
_empty = jax.jit(partials.empty, static_argnums=(0, 1), static_argnames=("candidates", "full", "dtype"))


def _refined(queries: CentredQueries, chunks: Chunks, how: PosteriorSettings) -> RefinedMoments:
    """As `api.refined`; host arrays."""

    def once(some: CentredQueries, dtype: DTypeLike) -> RefinedMoments:
        return _refine(_pass(some, chunks, how, dtype), some, chunks)

    at_limit = np.asarray(queries.sigma) == 0
    if at_limit.all():
        return _nearest(queries, chunks, how.full)
    fits = _fit(queries, chunks.samples(jnp.zeros((0, chunks.d), chunks.source.dtype), jnp.zeros(0, jnp.int32)))
    moments = once(_where(queries, fits), jnp.float32)
    if how.precision != "highest":
        denoised: Any = np.where(np.asarray(fits)[:, None], np.asarray(moments.denoised), np.nan)
        moments = dataclasses.replace(moments, denoised=denoised)
        return _repeat(at_limit, lambda some: _nearest(some, chunks, how.full), queries, moments)
    unsettled = ~at_limit & (moments.unsettled | ~np.asarray(fits))
    moments = _repeat(unsettled, lambda some: once(some, jnp.float64), queries, dataclasses.replace(moments, unsettled=unsettled))
    twice = moments.unsettled & ~at_limit
    pivots = np.asarray(moments.pivot)
    moments = _repeat(twice, lambda some: _from_differences(*some, chunks, how.full), (queries, pivots), moments)
    return _repeat(at_limit, lambda some: _nearest(some, chunks, how.full), queries, moments)


def _from_differences(queries: CentredQueries, pivot: np.ndarray, chunks: Chunks, full: bool) -> RefinedMoments:
    """As `differences.from_differences`; `pivot` is an index in the source."""
    pivots = chunks.rows(np.clip(pivot, 0, chunks.n - 1)).astype(np.float64)
    total = _no_sums(pivots.shape[:1], chunks.d)
    for chunk in chunks.of_labels(np.asarray(queries.label)):
        total = jax.block_until_ready(_add_samples(total, queries, pivots, chunk.samples))
    nothing = chunks.samples(jnp.zeros((0, chunks.d), chunks.source.dtype), jnp.zeros(0, jnp.int32))
    moments = jax.tree.map(np.asarray, _moments_of_sums(total, queries, pivots, nothing))
    return moments if full else moments.velocity_only()


def _pass(queries: CentredQueries, chunks: Chunks, how: PosteriorSettings, dtype: DTypeLike) -> Partial:
    """One reading of the data."""
    k = min(CANDIDATES, chunks.sizes.chunk)
    total = _empty(*queries.x.shape, candidates=k, full=how.full, dtype=dtype)
    for number, chunk in enumerate(chunks.of_labels(np.asarray(queries.label))):
        total = jax.block_until_ready(_add(total, queries, chunk.samples, how=how, dtype=dtype))
        if number == 0 and (program := (queries.x.shape, chunks.sizes, how, np.dtype(dtype))) not in _COMPILED:
            _COMPILED.add(program)
            give_back()  # what compiling took
    give_back()
    return total


@bind(jax.jit, static_argnames=("how", "dtype"))
def _add(total: Partial, queries: CentredQueries, chunk: Samples, how: PosteriorSettings, dtype: DTypeLike) -> Partial:
    def tile(args: tuple[CentredQueries, Partial]) -> Partial:
        here = partial_of(args[0], chunk, how, dtype)
        return partials.merge(args[1], dataclasses.replace(here, top_index=_in_source(here.top_index, chunk)))

    return in_tiles(tile, (queries, total), how.blocks.queries if dtype == jnp.float32 else FALLBACK_ROWS)


def _in_source(position: Int[Array, "B k"], chunk: Samples) -> Int[Array, "B k"]:
    """The index in the source of rows of a chunk."""
    assert chunk.index is not None
    return jnp.where(position == NO_SAMPLE, NO_SAMPLE, chunk.index[jnp.minimum(position, chunk.n - 1)])


def _refine(partial: Partial, queries: CentredQueries, chunks: Chunks) -> RefinedMoments:
    """`refine`, the candidates of some queries at a time read back from the source."""
    candidates = np.asarray(partial.top_index)

    def some(rows: np.ndarray) -> RefinedMoments:
        index = candidates[rows].ravel()
        index = np.where(index == NO_SAMPLE, 0, index)
        held = chunks.samples(chunks.rows(index), index)
        return _refine_held(*_taken((partial, queries), rows), held, n=chunks.n)

    moments = _in_pieces(some, len(candidates), chunks.sizes.refined)
    give_back()
    return moments


@jax.jit
def _add_samples(total: differences.Sums, queries: CentredQueries, pivots: Float[Array, "B D"], chunk: Samples) -> differences.Sums:
    size = max(1, min(chunk.n, differences.BLOCK // chunk.d))
    return differences.add_samples(total, queries, pivots, jnp.zeros_like(queries.x), chunk, size)


@bind(jax.jit, static_argnames="n")
def _refine_held(partial: Partial, queries: CentredQueries, held: Samples, n: int) -> RefinedMoments:
    where = jnp.arange(held.n, dtype=jnp.int32).reshape(partial.top_index.shape)
    here = dataclasses.replace(partial, top_index=jnp.where(partial.top_index == NO_SAMPLE, NO_SAMPLE, where))
    moments = refine(here, queries, held, ONE_DEVICE, n=n)
    assert held.index is not None
    return dataclasses.replace(moments, pivot=held.index[jnp.minimum(moments.pivot, held.n - 1)])


def _nearest(queries: CentredQueries, chunks: Chunks, full: bool) -> RefinedMoments:
    """As `nearest`: a pass for the shortest distance, a pass for the samples at that distance, and these read back."""
    b = len(queries.x)
    shortest = np.full(b, np.inf)
    tied: list[list[np.ndarray]] = [[] for _ in range(b)]
    label = np.asarray(queries.label)
    for chunk in chunks.of_labels(label):
        shortest = np.minimum(shortest, np.asarray(_distances(queries, chunk.samples)).min(axis=1))
    for chunk in chunks.of_labels(label):
        distance = np.asarray(_distances(queries, chunk.samples))[:, : len(chunk.rows)]
        near = np.isfinite(distance) & (distance <= shortest[:, None] * (1 + TIE))
        for row in np.flatnonzero(near.any(axis=1)):
            tied[row].append(chunk.rows[near[row]])
    nearest = [np.concatenate(parts) if parts else np.empty(0, np.int64) for parts in tied]
    size = np.array([len(rows) for rows in nearest], np.float64)
    size[size == 0] = np.nan  # nothing of the query's class, or NaN in x
    mean = np.stack([_sum(rows, np.asarray, chunks) for rows in nearest]) / size[:, None]
    known: dict[str, Any] = {"denoised": mean, "keeps_rest": np.zeros(b, bool), "unsettled": np.zeros(b, bool)}
    known |= {"log_total": np.full(b, np.inf), "pivot": np.full(b, NO_SAMPLE, np.int32)}
    if full:
        apart = [_sum(rows, bind(_square_distance, of), chunks).sum() for rows, of in zip(nearest, mean, strict=True)]
        index = np.array([rows[0] if len(rows) else NO_SAMPLE for rows in nearest], np.int32)
        known |= {"log_density": np.where(shortest > 0, -np.inf, np.inf), "error_bound": np.zeros(b)}
        known |= {"top1_weight": 1 / size, "top1_index": index, "variance": np.array(apart) / size}
        known |= {"effective_samples": size, "entropy": np.log(size)}
    return RefinedMoments(**known)


def _square_distance(of: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.square(y - of)


@jax.jit
def _distances(queries: CentredQueries, chunk: Samples) -> Float[Array, "B n"]:
    """‖x - α y‖² from differences, float64; infinite where a sample does not count."""

    def one(query: tuple[Array, Array, Array]) -> Array:
        x, alpha, label = query
        distance = jnp.sum((x - alpha * to64(chunk.values)) ** 2, axis=1)
        assert chunk.log_prior is not None
        counts = jnp.isfinite(chunk.log_prior)
        if chunk.labels is not None:
            counts &= (chunk.labels == label) | (label == -1)
        return jnp.where(counts, distance, jnp.inf)

    return jax.lax.map(one, (queries.x, queries.alpha, queries.label))


def _sum(rows: Int[np.ndarray, " M"], f: Callable[[np.ndarray], np.ndarray], chunks: Chunks) -> Float[np.ndarray, " D"]:
    """Σ f(y - center) over some rows, read a chunk at a time."""
    total, center = np.zeros(chunks.d), np.asarray(chunks.center, np.float64)
    for start in range(0, len(rows), chunks.sizes.chunk):
        total += f(chunks.rows(rows[start : start + chunks.sizes.chunk]).astype(np.float64) - center).sum(axis=0)
    return total


def _taken(tree: Output, rows: np.ndarray) -> Output:
    """Rows of every array, by the host: on the device each shape would be compiled for."""
    return jax.tree.map(lambda v: np.asarray(v)[rows], tree)


def _in_pieces(f: Callable[[np.ndarray], Output], b: int, size: int) -> Output:
    """`f(rows)` for `size` of `b` rows at a time, one after the other; of one shape, the last repeating row b - 1. Host arrays."""
    size = min(b, size)
    parts = [jax.tree.map(np.asarray, f(np.minimum(np.arange(start, start + size), b - 1))) for start in range(0, b, size)]
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *v: np.concatenate(v)[:b], *parts)


def _repeat(which: np.ndarray, f: Callable[[Rows], RefinedMoments], queries: Rows, results: RefinedMoments) -> RefinedMoments:
    """`results` with the rows `which` replaced by `f` of those queries, all in one go; their number is rounded up, for few compilations."""
    rows = np.flatnonzero(which)
    if not len(rows):
        return results
    size = min(len(which), FALLBACK_ROWS * 2 ** int(np.ceil(np.log2(max(1, len(rows) / FALLBACK_ROWS)))))
    index = np.append(rows, np.full(size - len(rows), rows[-1]))
    fresh = f(_taken(queries, index))

    def put(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        out = np.array(old)
        out[rows] = np.asarray(new)[: len(rows)]
        return out

    return jax.tree.map(put, results, fresh)
