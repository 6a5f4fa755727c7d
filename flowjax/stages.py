"""The two stages of flow matching: where navigation turns into refinement, measured, predicted, and what to do with it."""

import dataclasses
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from flowjax.oracle import Oracle
from flowjax.path import Path, RectifiedFlow
from flowjax.schedules import uniform_timesteps
from flowjax.spectrum import checked_eigenvalues, covariance_spectrum
from flowjax.sweep import draw_pairs, sweep
from flowjax.turning_point import (
    annealed_turning_point,
    condensation_thresholds,
    predict_turning_point,
    predict_turning_point_by_class,
    predict_turning_point_from_data,
    solve_ratio,
    time_of_ratio,
)

T = TypeVar("T")

__all__ = [
    "Advice",
    "Recommendation",
    "TurningPoint",
    "advice",
    "advised_share",
    "annealed_turning_point",
    "condensation_thresholds",
    "covariance_spectrum",
    "measure_turning_point",
    "predict_turning_point",
    "predict_turning_point_by_class",
    "predict_turning_point_from_data",
    "turning_point_of_curve",
]


@dataclasses.dataclass(frozen=True)
class TurningPoint:
    """The t at which the mean top-1 posterior weight crosses ½, with a 95 % bootstrap interval; or None, and why."""

    measured: float | None
    ci_low: float | None
    ci_high: float | None
    reason: str | None = None


def turning_point_of_curve(t: ArrayLike, top1_weight: ArrayLike, *, seed: int = 0, num_bootstrap: int = 1000) -> TurningPoint:
    """The turning point of a measured curve: where the mean over queries first rises through ½, linearly interpolated in t.

    The interval is the percentile bootstrap's, 2.5 % to 97.5 %. A query is resampled with its whole row of times, since the same
    queries are followed through t. A resampled curve that never crosses counts as crossing at the end of t it stays next to.

    Args:
      t: `[T]`, rising.
      top1_weight: `[T, Q]`, the weight of each of Q queries at each t.
      seed: of the resampling.
      num_bootstrap: number of resamples.

    Returns:
      The turning point; all None, with a `reason`, where the mean starts at ½ or above, or stays below.

    Raises:
      ValueError: t is not a rising vector; top1_weight is not `[T, Q]` with values in [0, 1]; num_bootstrap is below 1.
    """
    times, weights = np.asarray(t, np.float64), np.asarray(top1_weight, np.float64)
    if times.ndim != 1 or not times.size or not (np.diff(times) > 0).all():
        raise ValueError(f"t has shape {times.shape}: expected [T], strictly rising")
    if weights.ndim != 2 or len(weights) != len(times) or not weights.size:
        raise ValueError(f"top1_weight has shape {weights.shape}: expected [T, Q] with T = {len(times)} and at least one query")
    if not ((weights >= 0) & (weights <= 1 + 1e-4)).all():
        raise ValueError(f"top1_weight has values from {weights.min()} to {weights.max()}: expected weights in [0, 1]")
    if num_bootstrap < 1:
        raise ValueError(f"num_bootstrap = {num_bootstrap}: expected at least 1")
    mean = weights.mean(1)
    if mean[0] >= 0.5:
        reason = f"the mean top-1 weight is already {mean[0]:.3f} at the first t, {times[0]:.3g}"
        return TurningPoint(None, None, None, reason)
    if mean.max() < 0.5:
        reason = f"the mean top-1 weight stays below 0.5: at most {mean.max():.3f}, up to t = {times[-1]:.3g}"
        return TurningPoint(None, None, None, reason)
    num_queries = weights.shape[1]
    counts = np.random.default_rng(seed).multinomial(num_queries, np.full(num_queries, 1 / num_queries), num_bootstrap)
    low, high = np.percentile(_first_crossing(times, counts @ weights.T / num_queries), [2.5, 97.5])
    return TurningPoint(float(_first_crossing(times, mean[None])[0]), float(low), float(high))


def _first_crossing(t: Float[np.ndarray, " T"], curves: Float[np.ndarray, "R T"]) -> Float[np.ndarray, " R"]:
    above = curves >= 0.5
    after = np.where(above.any(1), above.argmax(1), len(t) - 1)
    before = np.maximum(after - 1, 0)
    row = np.arange(len(curves))
    low, high = curves[row, before], curves[row, after]
    part = np.where(high > low, (0.5 - low) / np.where(high > low, high - low, 1), 1)
    return t[before] + np.clip(part, 0, 1) * (t[after] - t[before])


def measure_turning_point(
    oracle: Oracle, t: ArrayLike | None = None, *, label: str | None = None, num_queries: int = 256, seed: int = 0
) -> TurningPoint:
    """The turning point of an oracle's own data set, measured: `x_t = α y_i + σ z`, i uniform over the samples.

    Exact duplicates count as one sample with a multiplicity (`Oracle.unique`): they could never be told apart. The same queries
    (i, z) are followed through t, and `turning_point_of_curve` reads off the crossing.

    Args:
      oracle: the oracle; its data, labels and path are used.
      t: `[T]` times in [0, 1), rising. None: 25 uniform steps from 0, then 25 more across the two steps around the crossing.
      label: None for the oracle over all samples, "own" for that of each query's own class.
      num_queries: number of queries.
      seed: of the queries and of the bootstrap.

    Returns:
      The turning point, or None with a reason.

    Raises:
      ValueError: label is neither None nor "own", or the oracle has no labels; t is not a rising vector in [0, 1); num_queries is below 1.
    """
    if label not in (None, "own"):
        raise ValueError(f'label = {label!r}: expected None or "own"')
    if label == "own" and oracle.labels is None:
        raise ValueError('label = "own": expected an oracle with labels')
    distinct = oracle.unique(by_class=label == "own")
    pairs = draw_pairs(distinct.data, num_queries, seed, labels=distinct.labels, counts=distinct.counts)

    def curve(times: np.ndarray) -> Float[np.ndarray, "T Q"]:
        return sweep(distinct, pairs, times).columns["top1_weight"]

    if t is not None:
        times = np.asarray(t, np.float64)
        if times.ndim != 1 or not times.size or not (np.diff(times) > 0).all() or times[0] < 0 or times[-1] >= 1:
            raise ValueError(f"t = {times}: expected a vector of times in [0, 1), strictly rising")
        return turning_point_of_curve(times, curve(times), seed=seed)
    coarse = uniform_timesteps(25)[:-1]
    weights = curve(coarse)
    found = turning_point_of_curve(coarse, weights, seed=seed)
    if found.measured is None:
        return found
    fine = found.measured + np.linspace(-1, 1, 25) * coarse[1]
    fine = np.setdiff1d(fine[(fine > 0) & (fine < coarse[-1])], coarse)
    order = np.argsort(np.r_[coarse, fine])
    return turning_point_of_curve(np.r_[coarse, fine][order], np.concatenate([weights, curve(fine)])[order], seed=seed)


@dataclasses.dataclass(frozen=True)
class Recommendation(Generic[T]):
    """A setting, the range that the evidence allows, and the evidence in a sentence. None where there is nothing to say."""

    value: T | None
    range: tuple[T, T] | None
    evidence: str


@dataclasses.dataclass(frozen=True)
class Advice:
    """What a turning point says about the timestep shift and the guidance interval.

    `shift.value` is s of `flowjax.schedules.shift`; `guidance_interval.value` is (t_low, t_high), and its range the narrowest and
    the widest interval.
    """

    shift: Recommendation[float]
    guidance_interval: Recommendation[tuple[float, float]]


SHARE = 0.16  # of uniform steps before t* = 0.1, which the published best shifts bracket: 0.7 puts 14 % there, 0.5 puts 18 %
SPREAD = 1 / 8  # by how much of it they differ from it
UNRESOLVED = (1 / 3, 1 / 4, 1 / 5)  # of the variance at the upper end of the guidance interval: early, advised, late


def advised_share(turning_point: float) -> float:
    """The share of uniform steps to spend before the turning point: `p = t*^κ`, κ = log 0.16 / log 0.1 = 0.80.

    A share that is none at t* = 0 and all at t* = 1, and the published 16 % at t* = 0.1: the later the turn, the more steps it takes to get
    there. The same 16 % for all data failed: docs/results.md.

    Args:
      turning_point: t*, in (0, 1).

    References:
      arXiv 2512.02826, Table 2, for the constant; the form is ours.
    """
    return float(turning_point ** (np.log(SHARE) / np.log(0.1)))


def advice(turning_point: float | None, eigenvalues: ArrayLike, *, share: float | None = SHARE, path: Path | None = None) -> Advice:
    """Settings for training and sampling that follow from where the turning point lies.

    Shift: `s = t* (1 - p) / (p (1 - t*))` puts a share p of uniform steps before t*, that is `shift(p, s) = t*`.

    Guidance interval: from t*, since before it guidance only pushes between modes not yet chosen, to the t at which the best
    linear denoiser has resolved three quarters of the variance, `Σ λ / (1 + ρ²λ) = ¼ Σ λ` with ρ = α/σ (what a Wiener filter of
    x_t leaves of the variance; t = 0.63 for unit isotropic data, where the published optimum is [0.1, 0.6]). Its range takes two
    thirds and four fifths. The upper end is never below t*: the interval is empty where all is resolved before the turn.

    Args:
      turning_point: t*, in (0, 1), measured or predicted; None (never crosses) gives advice without values.
      eigenvalues: `[K]`, of the sample covariance.
      share: p, in (0, 1); None: `advised_share` of the turning point, as the binaries have it. The range of the shift spans an eighth of p
        to either side, as the published shifts do.
      path: the probability path; rectified flow by default.

    Returns:
      The advice, with ranges and evidence.

    Raises:
      ValueError: turning_point or share is not in (0, 1); eigenvalues is not a finite vector of numbers >= 0, some above 0.

    References:
      arXiv 2512.02826, Table 2 (shift) and Table 3 (guidance interval).
    """
    if share is not None and not 0 < share < 1:
        raise ValueError(f"share = {share}: expected a share of steps in (0, 1)")
    if turning_point is None:
        nothing = "No turning point: the mean top-1 weight never crosses 0.5, so there is no navigation stage to set apart."
        return Advice(Recommendation(None, None, nothing), Recommendation(None, None, nothing))
    if not 0 < turning_point < 1:
        raise ValueError(f"turning_point = {turning_point}: expected a time in (0, 1), or None")
    values = checked_eigenvalues(eigenvalues)
    if not values.size:
        raise ValueError("eigenvalues are all 0: expected data with some variance")
    odds = turning_point / (1 - turning_point)
    by_turn, share = share is None, advised_share(turning_point) if share is None else share
    least, most = share * (1 - SPREAD), min(share * (1 + SPREAD), 0.999)
    shift = Recommendation(
        odds * (1 - share) / share,
        (odds * (1 - most) / most, odds * (1 - least) / least),
        f"Puts {share:.0%} of uniform steps before the turning point; {_SHARE_BY_TURN if by_turn else _SHARE_ALONE}",
    )
    low, middle, high = (max(turning_point, _resolution_time(values, left, path or RectifiedFlow())) for left in UNRESOLVED)
    guidance = Recommendation(
        (turning_point, middle),
        ((turning_point, low), (turning_point, high)),
        "From the turning point to where a linear denoiser has resolved three quarters of the variance (range: two thirds to four "
        "fifths); the rule was chosen by one published optimum (ImageNet latents, 0.1 to 0.6). At scale 2.5 it landed 9 % from the best "
        "interval on Fashion-MNIST, which is better than none, and begins later (0.4 to 0.6, turning point 0.29); on digits no guidance at "
        "all was best. Before the turning point guidance did harm on both: docs/results.md.",
    )
    return Advice(shift, guidance)


_SHARE_BY_TURN = (
    "the share is t*^0.8, by the 14 % to 18 % of the one published study (ImageNet latents, turning point 0.1). It landed within 1.1 % of "
    "the best shift on digits (turning point 0.49) and 1.0 % on Fashion-MNIST (0.29), at 10 and 25 steps: docs/results.md."
)
_SHARE_ALONE = (
    "the best shifts in the one published study (ImageNet latents, turning point 0.1) put 14 % to 18 % there. The same 16 % came 17 % "
    "worse than the best shift at 10 steps on digits (turning point 0.49), 44 % on Fashion-MNIST (0.29): docs/results.md."
)


def _resolution_time(eigenvalues: Float[np.ndarray, " K"], unresolved: float, path: Path) -> float:
    """The t at which the best linear denoiser leaves this share of the variance: `Σ λ / (1 + ρ²λ) = unresolved Σ λ`."""
    total = eigenvalues.sum()
    ratio = solve_ratio(
        lambda ratio: unresolved - (eigenvalues / (1 + ratio**2 * eigenvalues)).sum() / total, 1 / np.sqrt(eigenvalues.max())
    )
    return time_of_ratio(ratio, path)
