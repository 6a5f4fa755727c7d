"""The posterior over all samples on the host: scores and weighted sums by matrix products, weights between them while they are in a cache.

Scores are float32 and wrong by some 1e-5 nats early in time. Over many samples of about equal weight these errors average out. Few samples
have a share of the weight so large that their own error would show: the candidates. They are left out of the sums, weighed from
differences, and put back. Late in time scores are wrong by whole nats, and every sample that may carry weight is a candidate.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from kernels.posterior.cpu.accumulate import ApproximateSums, Pairs, Pivots, Task, moments
from kernels.posterior.cpu.dense_sums import dense_sums
from kernels.posterior.cpu.expected_scores import ExpectedScores, error_of_scores
from kernels.posterior.cpu.host_samples import HostSamples
from kernels.posterior.cpu.results import HostMoments, tiles_of
from kernels.posterior.cpu.tuning import TUNING, UNIT
from kernels.posterior.types import Queries


def dense_posterior(samples: HostSamples, queries: Queries, rows: Int[np.ndarray, " m"], into: HostMoments) -> None:
    """Moments of the queries `rows`, all with σ > 0, put into `into`, exact to float32. Where exactness is not certain, nothing is put.

    Queries that a first pass leaves unanswered are repeated, with all samples whose error could show as candidates.
    """
    _passes(samples, queries, rows, into, TUNING.tile_queries, all_candidates=False)
    left = rows[~into.answered[rows]]
    if left.size:
        _passes(samples, queries, left, into, TUNING.repeated_queries, all_candidates=True)


def _passes(samples: HostSamples, queries: Queries, rows: np.ndarray, into: HostMoments, size: int, *, all_candidates: bool) -> None:
    for groups in _together(tiles_of(samples, queries, rows, size), size):
        tile = np.concatenate([own for _, own in groups]) if len(groups) > 1 else groups[0][1]
        ends = np.cumsum([0, *(len(own) for _, own in groups)])
        places = [(part, slice(int(a), int(b))) for (part, _), a, b in zip(groups, ends[:-1], ends[1:], strict=True)]
        work = sum((part.stop - part.start) * samples.d * len(own) for part, own in groups)
        with into.at(tile) as own:
            dense_tile(Task(samples, queries.at(tile), alone=work <= TUNING.one_core), places, own, all_candidates=all_candidates)


def _together(tiles: list[tuple[slice, np.ndarray]], size: int) -> list[list[tuple[slice, np.ndarray]]]:
    """Tiles of one class each as tiles of several, of `size` queries at most."""
    groups: list[list[tuple[slice, np.ndarray]]] = []
    for tile in tiles:
        if not groups or sum(len(own) for _, own in groups[-1]) + len(tile[1]) > size:
            groups.append([])
        groups[-1].append(tile)
    return groups


def dense_tile(task: Task, groups: list[tuple[slice, slice]], into: HostMoments, *, all_candidates: bool = False) -> None:
    """`dense_posterior` for one tile of queries; `into` has their rows alone.

    Args:
      groups: of the queries that follow each other in the tile, the rows of the samples that count for them, and the queries.
    """
    samples, most = task.samples, TUNING.most_candidates_of_all if all_candidates else TUNING.most_candidates
    expected = ExpectedScores.of(task, all_candidates=all_candidates)
    sums = dense_sums(task, groups, expected, most)
    top = sums.top
    if expected.equal.any():
        for part, own in groups:
            first = part.start + np.flatnonzero(samples.log_prior[part] == samples.log_prior[part].max())
            top[own] = np.where(expected.equal[own], first[samples.original[first].argmin()], top[own])
    pivots = Pivots.at(task, top)
    # The sums are relative to the float32 score of the peak, the pivot's weight to its exact score.
    others = ApproximateSums(sums.sums[:4], sums.weighted, np.ones(len(top))).scaled(sums.peak - expected.offset - pivots.score)
    pairs = Pairs.together(sums.pairs)
    unknown = np.zeros(len(pairs.rows))
    weighed, approximate = moments(task, pivots, np.full(len(top), np.inf), pairs, unknown, unknown > 0, into, others), others.sums
    with np.errstate(over="ignore", invalid="ignore"):
        left_out = sums.sums[5] * np.exp(np.minimum(sums.peak - expected.offset - pivots.score, 600)) / weighed.total
        left_out = np.where(
            expected.margin > TUNING.left_out_rounding, samples.n * np.exp(-expected.cut), left_out * np.exp(TUNING.left_out_rounding)
        )
        left_out = left_out * 2 * samples.radius
        into.error_bound[:] = np.where(left_out <= UNIT * weighed.size, 0, left_out)  # no more than the mean's own rounding
        size = np.abs(pivots.score) + expected.curvature * samples.square_norms[top]
        as_expected = error_of_scores(samples.d, size) <= TUNING.unexpected_error * np.maximum(expected.error, TUNING.score_error)
        approximate_share = approximate[0] / weighed.total
        slip = left_out + 4 * UNIT * approximate_share * samples.radius
        into.answered[:] = as_expected & (sums.counts <= most) & (slip <= TUNING.velocity_error * weighed.moving)
        into.answered[:] &= into.variance >= TUNING.least_spread * approximate[3] / weighed.total
        into.answered[:] &= _steady(samples, expected, into.variance, weighed.moving) | (approximate_share == 0)
    into.survivors[:] = sums.counts


def _steady(
    samples: HostSamples, expected: ExpectedScores, variance: Float[np.ndarray, " B"], moving: Float[np.ndarray, " B"]
) -> Bool[np.ndarray, " B"]:
    """Whether the part of the scores' rounding that does not average out is too small to show.

    Directions are rounded to float32 once for all samples: by δ, ‖δ‖ ≤ 2⁻²⁴ ‖g‖. That moves scores by δ·(y - mean), and the mean by
    Cov δ. Rounding prefers no direction, so that δ has a component of about ‖δ‖ / √D along any one. Near-copies share all their rounding.
    """
    spread, turn = np.sqrt(variance), 2 * UNIT * expected.length / samples.d**0.5
    steady: Bool[np.ndarray, " B"] = (turn * variance <= TUNING.velocity_error * moving) & (turn * spread <= TUNING.common_rounding)
    if samples.has_near_copies:  # products round their sums alike too
        steady &= (expected.error * spread + 256 * UNIT * samples.radius) <= TUNING.velocity_error * moving
    return steady
