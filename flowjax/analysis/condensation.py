"""Condensation of noisy queries onto samples: the thresholds from which `flowjax.analysis.turning_point` predicts; (1) is derived there."""

import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from flowjax.analysis.spectrum import as_rows
from flowjax.data.distributed import DistributedDataSet
from flowjax.runtime import processes

NEAR = 1e-3  # of ‖y_i‖² + ‖y_j‖²: a squared distance below it, expanded in float32, may be wrong by more than a part in a thousand
BLOCK_ELEMENTS = 2**24  # float32 elements at work at once, 64 MiB


def condensation_thresholds(
    data: ArrayLike, labels: ArrayLike | None = None, *, num_queries: int = 512, seed: int = 0, queries: np.ndarray | None = None
) -> Float[np.ndarray, " Q"]:
    """The thresholds ρ* of `predict_turning_point_from_data`: the α/σ from which on a query's own sample has the largest weight.

    Rows that are equal (and of one class, if there are labels) count as one sample of multiplicity c, which beats another iff
    `ε + log(c_j / c_i) > 0`; the threshold is then the largest ρ at which any sample draws level.

    Distances come from float32 products of centred data, and from float64 differences for pairs so near that the former would
    be wrong by more than a part in a thousand. Working memory is about 200 MB beside the data, whatever N is.

    Args, Raises: as `predict_turning_point_from_data`; queries: `[num_queries]`, which samples these are, instead of drawing them.

    Returns:
      `[num_queries]` float64, >= 0. Of samples in several parts, each with the queries' own: the greatest over the parts.
    """
    return thresholds_beyond(data, labels, near=0.0, num_queries=num_queries, seed=seed, queries=queries).own


class Thresholds(NamedTuple):
    """The thresholds of `condensation_thresholds`, and what they are without near-duplicates of the queries' own samples."""

    own: Float[np.ndarray, " Q"]
    beyond: Float[np.ndarray, " Q"]
    """The α/σ from which on the own sample outweighs all that are no near-duplicates of it."""
    twins: Bool[np.ndarray, " Q"]
    """Whether it has near-duplicates that are no exact ones."""


def thresholds_beyond(
    data: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    near: float,
    num_queries: int = 512,
    seed: int = 0,
    queries: np.ndarray | None = None,
) -> Thresholds:
    """Both, in one pass.

    Args, Raises: as `condensation_thresholds`; near: the squared distance up to which samples are near-duplicates.
    """
    if num_queries < 1:
        raise ValueError(f"num_queries = {num_queries}: expected at least 1")
    found = Thresholds(np.zeros(num_queries), np.zeros(num_queries), np.zeros(num_queries, bool))
    for chunk, pairs in competitions(data, labels, queries, num_queries=num_queries, seed=seed):
        for values, part in zip(found, _largest_thresholds(pairs, near), strict=True):
            values[chunk] = part
    return found


class Pairs(NamedTuple):
    """Q queries and a block of B samples that compete with each query's own."""

    along: Float[np.ndarray, "Q B"]
    """z·(y_j - y_i)"""
    gap: Float[np.ndarray, "Q B"]
    """‖y_j - y_i‖²; 0 is the query's own sample."""
    log_odds: Float[np.ndarray, "Q B"]
    """log(c_j / c_i)"""
    row: Int[np.ndarray, " B"]
    """Which of the samples they are; of equal ones the first."""


def competitions(
    data: ArrayLike, labels: ArrayLike | None, queries: np.ndarray | None, *, num_queries: int, seed: int
) -> Iterator[tuple[np.ndarray, Iterator[Pairs]]]:
    """Groups of queries, each with the samples that compete with their own, block by block; queries as in `condensation_thresholds`."""
    rows = as_rows(data)
    classes = checked_labels(labels, len(rows))
    first, counts, group = _distinct(rows, classes)
    rng = np.random.default_rng(seed)
    if queries is None:
        queries = np.concatenate([rng.permutation(len(rows)) for _ in range(-(-num_queries // len(rows)))])[:num_queries]
    own = group[queries]
    noise = rng.standard_normal((num_queries, rows.shape[1]), dtype=np.float32)
    mean = rows.mean(0, dtype=np.float64)

    class_of_distinct = classes[first]
    for label in np.unique(class_of_distinct[own]):
        members = np.flatnonzero(class_of_distinct == label)
        among = np.flatnonzero(class_of_distinct[own] == label)
        # Few queries at a time, so that blocks stay long enough for BLAS.
        for chunk in np.array_split(among, -(-len(among) // 1024)):
            yield chunk, _pairs(rows, mean, first[members], counts[members], first[own[chunk]], counts[own[chunk]], noise[chunk])


def checked_labels(labels: ArrayLike | None, n: int) -> np.ndarray:
    """Classes of n samples, `[n]` integers; all 0 without labels. ValueError for what is not `[n]` integers."""
    classes = np.zeros(n, int) if labels is None else np.asarray(labels)
    if classes.shape != (n,) or not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(f"labels has shape {classes.shape} and dtype {classes.dtype}: expected [{n}] integers, one for each sample")
    return classes


def _distinct(rows: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index of the first occurrence of each distinct (row, class), its multiplicity, and the distinct row of each row."""
    seen: dict[tuple[bytes, int], int] = {}
    # + 0 turns -0.0, which differs in its bytes only, into 0.0.
    group = np.array([seen.setdefault(((row + 0).tobytes(), int(label)), len(seen)) for row, label in zip(rows, classes, strict=True)])
    _, first, counts = np.unique(group, return_index=True, return_counts=True)
    return first, counts, group


def _pairs(
    rows: np.ndarray,
    mean: np.ndarray,
    others: np.ndarray,
    other_counts: np.ndarray,
    own: np.ndarray,
    own_counts: np.ndarray,
    noise: np.ndarray,
) -> Iterator[Pairs]:
    """The rows `others` against each query's own row, `own`, block by block."""
    sample = (rows[own] - mean).astype(np.float32)
    sample_norm = np.einsum("qd,qd->q", sample, sample)
    along_own = np.einsum("qd,qd->q", noise, sample)
    step = max(64, BLOCK_ELEMENTS // (3 * rows.shape[1] + 6 * len(own)))
    for start in range(0, len(others), step):
        at = others[start : start + step]
        block = (rows[at] - mean).astype(np.float32)
        norms = sample_norm[:, None] + np.einsum("nd,nd->n", block, block)
        along = noise @ block.T - along_own[:, None]
        gap = norms - 2 * (sample @ block.T)
        q, j = np.nonzero(gap <= NEAR * norms)
        pairs = max(1, BLOCK_ELEMENTS // (4 * rows.shape[1]))
        for s in range(0, len(q), pairs):
            qs, js = q[s : s + pairs], j[s : s + pairs]
            difference = rows[at[js]].astype(np.float64) - rows[own[qs]]
            along[qs, js] = np.einsum("pd,pd->p", noise[qs], difference)
            gap[qs, js] = np.einsum("pd,pd->p", difference, difference)
        log_odds = np.log(other_counts[start : start + step]) - np.log(own_counts)[:, None]
        yield Pairs(along, gap, log_odds.astype(np.float32), at)


def _largest_thresholds(blocks: Iterable[Pairs], near: float) -> Thresholds:
    """For each query the largest ρ at which any of the others draws level with its own sample."""
    best, beyond, twins = np.zeros(1), np.zeros(1), np.zeros(1, bool)
    for along, gap, log_odds, _ in blocks:
        # ρ along - ½ρ² gap + log odds = 0: the larger root, if there is one. A gap of 0 is the query's own sample.
        under_root = along * along + 2 * gap * log_odds
        level = (gap > 0) & (under_root >= 0)
        roots = (along + np.sqrt(np.where(level, under_root, 0))) / np.where(level, gap, 1)
        roots = np.where(level, roots, 0)
        best = np.maximum(best, roots.max(1))
        if near > 0:
            beyond = np.maximum(beyond, np.where(gap > near, roots, 0).max(1))
            twins = twins | ((gap > 0) & (gap <= near)).any(1)
    return Thresholds(best, beyond if near > 0 else best, twins)


def top_weights(blocks: Iterable[Pairs], ratios: Float[np.ndarray, " G"]) -> Float[np.ndarray, "Q G"]:
    """The largest posterior weight of each query at each ρ."""
    peak, total = np.full((1, len(ratios)), -np.inf), np.zeros((1, len(ratios)))
    for along, gap, log_odds, _ in blocks:
        peaks, totals = [], []
        for ratio in ratios.astype(np.float32):
            scores = ratio * along - ratio**2 / 2 * gap + log_odds
            peaks.append(scores.max(1))
            totals.append(np.exp(scores - peaks[-1][:, None]).sum(1))
        here = np.stack(peaks, 1).astype(np.float64)
        higher = np.maximum(peak, here)
        total = total * np.exp(peak - higher) + np.stack(totals, 1) * np.exp(here - higher)
        peak = higher
    return 1 / total


def distributed_thresholds(
    samples: DistributedDataSet, *, by_class: bool, num_queries: int = 512, seed: int = 0
) -> Float[np.ndarray, " Q"]:
    """`condensation_thresholds` of samples that several processes hold: each compares the queries with its own. Called by all alike."""
    drawn = np.random.default_rng(seed).permutation(samples.n)[:num_queries]
    others = ~np.isin(samples.index, drawn)
    queries = samples.queries(drawn)
    values = np.concatenate([queries.data, samples.own.data[others]])
    labels = None
    if by_class and queries.labels is not None and samples.own.labels is not None:
        labels = np.concatenate([queries.labels, samples.own.labels[others]])
    found = condensation_thresholds(values, labels, seed=seed, queries=np.arange(len(drawn)), num_queries=len(drawn))
    return np.max([json.loads(text) for text in processes.gather(json.dumps(found.tolist()))], axis=0)
