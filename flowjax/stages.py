"""The two stages of flow matching, navigation and refinement: the turning point between them, measured or predicted, and advice."""

import dataclasses
import itertools
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import expit, logit

from flowjax.analysis.condensation import condensation_thresholds
from flowjax.analysis.spectrum import checked_eigenvalues, covariance_spectrum
from flowjax.analysis.sweep import draw_pairs
from flowjax.analysis.turning_point import (
    Prediction,
    annealed_turning_point,
    predict_turning_point,
    predict_turning_point_by_class,
    predict_turning_point_from_data,
    predict_turning_point_with_interval,
    prediction_of_thresholds,
    solve_ratio,
    time_of_ratio,
)
from flowjax.oracle import Oracle
from flowjax.path import Path, RectifiedFlow
from flowjax.runtime import processes
from flowjax.schedules import checked_times, uniform_timesteps

T = TypeVar("T")

__all__ = [
    "Advice",
    "Prediction",
    "Recommendation",
    "TurningPoint",
    "advice",
    "advised_share",
    "annealed_turning_point",
    "bracketing_times",
    "condensation_thresholds",
    "covariance_spectrum",
    "interval_in_words",
    "measure_turning_point",
    "predict_turning_point",
    "predict_turning_point_by_class",
    "predict_turning_point_from_data",
    "predict_turning_point_with_interval",
    "prediction_of_thresholds",
    "turning_point_of_curve",
    "with_remark_on_scale",
]


EARLIEST, LATEST = 2.0**-70, 1 - 2.0**-16  # a crossing is searched between them; the noise of the latter has 8 digits in float32
COARSE, RESOLVED = (
    np.log(2),
    np.log(1.25),
)  # steps in log odds of t: of more than the first, those about a crossing are made at most the second
ODDS = 4  # by which a grid grows, step by step
CONFIDENT = (2.5, 97.5)  # percentiles of a bootstrap
SCALED = (1 / 8, 8)  # standard deviations of data, beside noise of 1, that need no remark


@dataclasses.dataclass(frozen=True)
class TurningPoint:
    """The t at which the mean top-1 posterior weight crosses ½, with a 95 % bootstrap interval; or None, and why.

    `remark` says what is wrong with the scale of the data where that is what the turning point shows.
    """

    measured: float | None
    ci_low: float | None
    ci_high: float | None
    reason: str | None = None
    remark: str | None = None


def turning_point_of_curve(t: ArrayLike, top1_weight: ArrayLike, *, seed: int = 0, num_bootstrap: int = 1000) -> TurningPoint:
    """The turning point of a measured curve: where the mean over queries first rises through ½.

    Between two times the mean is taken to be linear in the logarithm of t / (1 - t), which is right on uniform grids and on geometric ones
    towards either end; in t where a step ends at t = 1. In a step from t = 0 nothing can be interpolated: the crossing may lie at any
    power of ten. The interval is the percentile bootstrap's, 2.5 % to 97.5 %. A query is resampled with its whole row of times, since the
    same queries are followed through t. A resampled curve that never crosses counts as crossing at the end of t it stays next to.

    Args:
      t: `[T]`, in [0, 1], strictly rising.
      top1_weight: `[T, Q]`, the weight of each of Q queries at each t.
      seed: of the resampling.
      num_bootstrap: number of resamples.

    Returns:
      The turning point; all None, with a `reason`, where the mean starts at ½ or above, stays below, or crosses in a step from t = 0.

    Raises:
      ValueError: t is not a rising vector of times; top1_weight is not `[T, Q]` with values in [0, 1]; num_bootstrap is below 1.
    """
    times, weights = checked_times(np.asarray(t, np.float64)), np.asarray(top1_weight, np.float64)
    if weights.ndim != 2 or len(weights) != len(times) or not weights.size:
        raise ValueError(f"top1_weight has shape {weights.shape}: expected [T, Q] with T = {len(times)} and at least one query")
    if not ((weights >= 0) & (weights <= 1 + 1e-4)).all():
        raise ValueError(f"top1_weight has values from {weights.min()} to {weights.max()}: expected weights in [0, 1]")
    if num_bootstrap < 1:
        raise ValueError(f"num_bootstrap = {num_bootstrap}: expected at least 1")
    mean = weights.mean(1)
    if mean[0] >= 0.5:
        where = f"the mean top-1 weight is already {mean[0]:.3f} at the first t, {times[0]:.3g}"
        why = "one distinct sample makes up half of the data, or more" if times[0] == 0 else "the crossing lies before it, if there is one"
        return TurningPoint(None, None, None, f"{where}: {why}")
    if mean.max() < 0.5:
        reason = f"the mean top-1 weight stays below 0.5: at most {mean.max():.3f}, up to t = {times[-1]:.8g}"
        return TurningPoint(None, None, None, reason)
    if times[0] == 0 and mean[1] >= 0.5:
        reason = (
            f"the mean top-1 weight is {mean[0]:.3f} at t = 0 and already {mean[1]:.3f} at t = {times[1]:.3g}: times between are needed"
        )
        return TurningPoint(None, None, None, reason)
    low, high = np.percentile(_first_crossing(times, _resampled(weights, seed, num_bootstrap)), CONFIDENT)
    return TurningPoint(float(_first_crossing(times, mean[None])[0]), float(low), float(high))


def _resampled(weights: Float[np.ndarray, "T Q"], seed: int, num_bootstrap: int = 1000) -> Float[np.ndarray, "R T"]:
    """Means over queries that are drawn again, each with its whole row of times."""
    num_queries = weights.shape[1]
    counts = np.random.default_rng(seed).multinomial(num_queries, np.full(num_queries, 1 / num_queries), num_bootstrap)
    return counts @ weights.T / num_queries


def _first_crossing(t: Float[np.ndarray, " T"], curves: Float[np.ndarray, "R T"]) -> Float[np.ndarray, " R"]:
    above = curves >= 0.5
    after = np.where(above.any(1), above.argmax(1), len(t) - 1)
    before = np.maximum(after - 1, 0)
    row = np.arange(len(curves))
    low, high = curves[row, before], curves[row, after]
    part = np.clip(np.where(high > low, (0.5 - low) / np.where(high > low, high - low, 1), 1), 0, 1)
    straight = t[before] + part * (t[after] - t[before])
    start, end = (np.where((t > 0) & (t < 1), t, 0.5)[index] for index in (before, after))
    inside = (t[before] > 0) & (t[after] < 1)
    return np.where(inside & (after > before), expit(logit(start) + part * (logit(end) - logit(start))), straight)


def bracketing_times(t: ArrayLike, top1_weight: ArrayLike, *, seed: int = 0) -> Float[np.ndarray, " A"]:
    """Times at which to measure next, until the crossing of ½ and its interval lie between neighbouring times that are close.

    Where a 95 % bootstrap interval begins before the first t above 0, or ends behind the last, the grid grows there by a factor of 4 in
    t / (1 - t), from 2^-70 to 1 - 2^-16 at most. Then steps that the interval touches are divided, if they are of more than a factor
    of 2. The times follow from the grid and from which step holds the crossing, not from where in it: rounding does not move them.

    Args:
      t, top1_weight, seed: as `turning_point_of_curve`.

    Returns:
      `[A]`, rising, none of them among t, each a float32; empty where the grid is fine enough.
    """
    times, weights = checked_times(np.asarray(t, np.float64), one=False), np.asarray(top1_weight, np.float64)
    curves = np.concatenate([weights.mean(1)[None], _resampled(weights, seed)])
    positive = times[times > 0]
    allowed = CONFIDENT[0] / 100  # of the resampled curves may cross beyond an end
    early, late = curves[:, -len(positive)] >= 0.5, curves.max(1) < 0.5
    if early[0] or early.mean() > allowed:
        if times[0] > 0:
            return np.zeros(1)
        if curves[0, 0] < 0.5 and positive[0] > EARLIEST:
            return _as_float32(np.array([max(logit(positive[0]) - np.log(ODDS), logit(EARLIEST))]))
    if (late[0] or late.mean() > allowed) and times[-1] < LATEST:
        return _as_float32(np.array([min(logit(times[-1]) + np.log(ODDS), logit(LATEST))]))
    if late[0] or curves[0, 0] >= 0.5:
        return np.zeros(0)
    low, high = np.percentile(_first_crossing(times, curves), CONFIDENT)
    odds, found = logit(positive), []
    for start, end in itertools.pairwise(odds):
        if end - start > COARSE and expit(end) >= low and expit(start) <= high:
            found.append(np.linspace(start, end, int(np.ceil((end - start) / RESOLVED)) + 1)[1:-1])
    return np.setdiff1d(_as_float32(np.concatenate(found)), times) if found else np.zeros(0)


def _as_float32(log_odds: Float[np.ndarray, " A"]) -> Float[np.ndarray, " A"]:
    """The times of these log odds, rounded to float32 as an oracle rounds them."""
    return expit(log_odds).astype(np.float32).astype(np.float64)


def with_remark_on_scale(found: TurningPoint, samples: ArrayLike) -> TurningPoint:
    """The turning point, with a remark if it lies so near an end of t, or beyond it, because the data's scale is not that of the noise.

    Args:
      found: as measured.
      samples: `[Q, *shape]`, some of the data: their standard deviation about their mean is compared with the noise's, 1.
    """
    values = np.asarray(samples, np.float64)
    scale = float(np.sqrt(values.var(0).mean()))
    if scale == 0 or SCALED[0] <= scale <= SCALED[1] or (found.measured is not None and 0.02 < found.measured < 0.98):
        return found
    remark = (
        f"the data's standard deviation is {scale:.3g} where the noise's is 1: scale the data to about 1, as models are trained "
        "(8-bit grey levels: x / 127.5 - 1; 16-bit ones: x / 32767.5 - 1; latents: by their statistics)"
    )
    return dataclasses.replace(found, remark=remark, reason=None if found.reason is None else f"{found.reason}; {remark}")


def measure_turning_point(
    oracle: Oracle, t: ArrayLike | None = None, *, label: str | None = None, num_queries: int = 256, seed: int = 0
) -> TurningPoint:
    """The turning point of an oracle's own data set, measured: `x_t = α y_i + σ z`, i uniform over the samples.

    Exact duplicates count as one sample with a multiplicity (`Oracle.unique`): they could never be told apart. The same queries
    (i, z) are followed through t, and `turning_point_of_curve` reads off the crossing. Where it lies beyond an end of the grid, or in a
    wide step of it, the grid grows: `bracketing_times`.

    Args:
      oracle: the oracle; its data, labels and path are used.
      t: `[T]` times in [0, 1), rising, to begin with. None: 25 uniform steps from 0, then 25 more across the two steps around the crossing.
      label: None for the oracle over all samples, "own" for that of each query's own class.
      num_queries: number of queries.
      seed: of the queries and of the bootstrap.

    Returns:
      The turning point, or None with a reason; with a remark where the data's scale is far from the noise's (`with_remark_on_scale`).

    Raises:
      ValueError: label is neither None nor "own", or the oracle has no labels; t is not a rising vector in [0, 1); num_queries is below 1.

    Examples:
      >>> found = measure_turning_point(Oracle(np.random.default_rng(0).standard_normal((200, 8)).astype(np.float32)))
      >>> found.ci_low < found.measured < found.ci_high
      True
    """
    if label not in (None, "own"):
        raise ValueError(f'label = {label!r}: expected None or "own"')
    if label == "own" and oracle.labels is None:
        raise ValueError('label = "own": expected an oracle with labels')
    times = uniform_timesteps(25)[:-1] if t is None else checked_times(np.asarray(t, np.float64), one=False)
    distinct = oracle.unique(by_class=label == "own")
    pairs = draw_pairs(distinct.data, num_queries, seed, labels=distinct.labels, counts=distinct.counts)

    def curve(times: np.ndarray) -> Float[np.ndarray, "T Q"]:
        out = distinct.along_path(pairs.x_0, pairs.x_1, times, pairs.labels, gap=False)
        return np.asarray(processes.whole(out).top1_weight, np.float64)

    weights = curve(times)

    def look_at(more: np.ndarray) -> None:
        nonlocal times, weights
        order = np.argsort(np.r_[times, more])
        times, weights = np.r_[times, more][order], np.concatenate([weights, curve(more)])[order]

    while (more := bracketing_times(times, weights, seed=seed)).size:
        look_at(more)
    found = turning_point_of_curve(times, weights, seed=seed)
    if t is None and found.measured is not None:
        after = int((weights.mean(1) >= 0.5).argmax())
        step = logit(times[after]) - logit(times[after - 1])
        fine = _as_float32(logit(found.measured) + step * np.linspace(-1, 1, 25))
        look_at(np.setdiff1d(fine[fine <= LATEST], times))
        found = turning_point_of_curve(times, weights, seed=seed)
    return with_remark_on_scale(found, pairs.x_1)


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
    the widest interval, the narrowest empty (both ends t_low) where the evidence allows for none. None where the interval is empty.
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
    thirds and four fifths. Where as much is resolved before the turn there is no interval, and the evidence says so.

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

    Examples:
      >>> found = advice(0.3, [1.0, 1.0], share=None)
      >>> round(found.shift.value, 3), found.guidance_interval.value[0]
      (0.689, 0.3)

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
    return Advice(shift, _guidance(turning_point, values, path or RectifiedFlow()))


def _guidance(turning_point: float, eigenvalues: Float[np.ndarray, " K"], path: Path) -> Recommendation[tuple[float, float]]:
    """The guidance interval of `advice`."""
    low, middle, high = (max(turning_point, _resolution_time(eigenvalues, left, path)) for left in UNRESOLVED)
    if interval_in_words((turning_point, middle)) == EMPTY:
        early = _resolution_time(eigenvalues, UNRESOLVED[1], path)
        nothing = (
            f"No guidance interval: a linear denoiser has resolved three quarters of the variance at t = {early:.3g}, where the interval "
            f"would end, before the turning point at t = {turning_point:.3g}, where it would begin. Sample without guidance, or "
            "look for an interval by trial."
        )
        return Recommendation(None, None, nothing)
    return Recommendation(
        (turning_point, middle),
        ((turning_point, low), (turning_point, high)),
        "From the turning point to where a linear denoiser has resolved three quarters of the variance (range: two thirds to four "
        "fifths); the rule was chosen by one published optimum (ImageNet latents, 0.1 to 0.6). At scale 2.5 it landed 9 % from the best "
        "interval on Fashion-MNIST, which is better than none, and begins later (0.4 to 0.6, turning point 0.29); on digits no guidance at "
        "all was best. Before the turning point guidance did harm on both: docs/results.md.",
    )


_SHARE_BY_TURN = (
    "the share is t*^0.8, by the 14 % to 18 % of the one published study (ImageNet latents, turning point 0.1). It landed within 1.2 % of "
    "the best shift on digits (turning point 0.49) and 1.0 % on Fashion-MNIST (0.29), at 10 and 25 steps: docs/results.md."
)
_SHARE_ALONE = (
    "the best shifts in the one published study (ImageNet latents, turning point 0.1) put 14 % to 18 % there. The same 16 % came 17 % "
    "worse than the best shift at 10 steps on digits (turning point 0.49), 44 % on Fashion-MNIST (0.29): docs/results.md."
)


EMPTY = "none"


def interval_in_words(interval: tuple[float, float]) -> str:
    """An interval of t to three digits, `[0.1, 0.6]`; "none" where it is empty at that precision."""
    low, high = (f"{end:.3g}" for end in interval)
    return EMPTY if interval[0] >= interval[1] or low == high else f"[{low}, {high}]"


def _resolution_time(eigenvalues: Float[np.ndarray, " K"], unresolved: float, path: Path) -> float:
    """The t at which the best linear denoiser leaves this share of the variance: `Σ λ / (1 + ρ²λ) = unresolved Σ λ`."""
    total = eigenvalues.sum()
    ratio = solve_ratio(
        lambda ratio: unresolved - (eigenvalues / (1 + ratio**2 * eigenvalues)).sum() / total, 1 / np.sqrt(eigenvalues.max())
    )
    return time_of_ratio(ratio, path)
