"""Where the posterior condenses onto one sample, predicted: from the data, or from its spectrum alone.

Queries are `x = α y_i + σ z`, i uniform over the N samples, z ~ N(0, I); ρ = α/σ. Sample j has a larger posterior weight than i iff

    ε_j = ρ z·(y_j - y_i) - ½ρ²‖y_j - y_i‖² > 0                                                                   (1)

The mean top-1 weight has a second reading. Given x and the data, i is itself distributed as the posterior γ (Nishimori's
identity), so that `E[max_j γ_j] = P(i = argmax_j γ_j)`: exactly, for every data set. The turning point, where this is ½, is
therefore a question about (1) alone, and no softmax is ever needed.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import ndtr

from flowjax.analysis.condensation import Thresholds, checked_labels, competitions, thresholds_beyond, top_weights
from flowjax.analysis.inspection import NEAR
from flowjax.analysis.near_duplicates import LEAST_SHARE, find_groups, in_group_means, near_square
from flowjax.analysis.spectrum import as_rows, checked_eigenvalues, covariance_spectrum
from flowjax.path import Path, RectifiedFlow

NUM_DRAWS = 1024  # of (y, z) in the Gaussian model, in antithetic pairs: the answer moves by less than 1 % with the seed
NUM_GROUPS = 32  # of nearly equal eigenvalues, each within its share of the logarithmic range
SURE = 1.2  # of α/σ: a median whose interval is wider is ill-determined; on digits, MNIST, Fashion-MNIST and Gaussians it is 1.07 to 1.12
MISLED = 1.08  # of t: by how much later than between groups it turns between samples, where near-duplicates are told of
NUM_RATIOS = 16  # at which the weights themselves are averaged, where it is


def time_of_ratio(ratio: float, path: Path) -> float:
    """The t at which α/σ takes the value `ratio`; 0 where `ratio` is 0."""
    return float(path.time_of_log_snr(2 * np.log(ratio))) if ratio > 0 else 0.0


# From the data.


class Prediction(NamedTuple):
    """A turning point predicted from the data, with the 95 % interval that finitely many queries leave."""

    t: float
    low: float
    high: float
    unsure: str | None = None
    """Why the prediction says little, in a sentence; None where the interval is narrow."""
    near_duplicates: str | None = None
    """Why the turn between samples, however sure, says little of the layout, and where it turns between groups; None where it does."""


def predict_turning_point_from_data(
    data: ArrayLike,
    labels: ArrayLike | None = None,
    path: Path | None = None,
    *,
    num_queries: int = 512,
    seed: int = 0,
    between_groups: bool = False,
) -> float:
    """The turning point of a data set, from one threshold per query instead of a sweep over t.

    By (1) each query (i, z) has one threshold, `ρ*_i = max_j 2 z·(y_j - y_i) / ‖y_j - y_i‖²` (at least 0): its own sample is on
    top iff α/σ >= ρ*_i. The mean top-1 weight at t is the share of thresholds up to α_t/σ_t, so that it crosses ½ where α/σ
    is their median. Two matrix products in all, for every t at once and for every path: 4 % of the arithmetic of a sweep of 50 t by
    256 queries. Where the median is ill-determined, as among near-duplicates, the weights themselves are averaged:
    `predict_turning_point_with_interval`, which also says how sure the answer is.

    Args:
      data: `[N, *shape]`, real.
      labels: None, or `[N]` integers: then each query competes within its own class, and the classes' queries are pooled.
      path: the probability path; rectified flow by default.
      num_queries: queries drawn from the samples, each sample as often as any other. The standard error of the posterior weight is at
        most ½/√num_queries, 0.022 at 512, which is 1 % to 3 % of t on images.
      seed: of the queries.
      between_groups: the turning point between groups of near-duplicates (`find_groups`, at the greatest δ) instead of between samples,
        each sample in its group's mean. Finding them costs more than the prediction: half a minute for 60,000 x 784 on two cores.

    Returns:
      t in [0, 1). 0 if there is one distinct sample, or group (per class).

    Raises:
      ValueError: data is not `[N, *shape]` of finite real numbers; labels is not `[N]`; num_queries is below 1.

    Warns:
      UserWarning: near-duplicates make the answer misleading, or between_groups is asked for where there are none to speak of
        (`Prediction.near_duplicates`).

    Examples:
      >>> samples = np.random.default_rng(0).standard_normal((200, 8))
      >>> 0.3 < predict_turning_point_from_data(samples) < 0.6
      True
    """
    found = predict_turning_point_with_interval(data, labels, path, num_queries=num_queries, seed=seed, between_groups=between_groups)
    if found.near_duplicates:
        warnings.warn(found.near_duplicates, stacklevel=2)
    return found.t


def predict_turning_point_with_interval(
    data: ArrayLike,
    labels: ArrayLike | None = None,
    path: Path | None = None,
    *,
    num_queries: int = 512,
    seed: int = 0,
    between_groups: bool = False,
) -> Prediction:
    """The same with its interval, and with what near-duplicates make of it, said instead of warned of.

    Of samples that come in pairs of near-duplicates, half of the queries find their own sample early and the others late: the share of
    thresholds rests at ½ in between, and their median says little. There the mean of the top-1 weights themselves, which hardly scatter, is
    taken at some ratios α/σ about the median, for the price of another two products and of as many exponentials as there are ratios.

    Args, Raises: as `predict_turning_point_from_data`.
    """
    rows = as_rows(data)
    near = near_square(rows)
    if between_groups:
        classes = None if labels is None else np.asarray(labels)
        groups = find_groups(rows, classes, seed=seed) if near > 0 else None
        merged = rows if groups is None else in_group_means(rows, groups.of[-1])
        found = predict_turning_point_with_interval(merged, labels, path, num_queries=num_queries, seed=seed)
        return found._replace(near_duplicates=_no_groups(near, None if groups is None else int(groups.of[-1].max()) + 1))
    thresholds = thresholds_beyond(rows, labels, near=near, num_queries=num_queries, seed=seed)
    found = _with_weights(thresholds.own, rows, labels, path, num_queries=num_queries, seed=seed)
    return found._replace(near_duplicates=_misled(found, thresholds, path))


def _misled(found: Prediction, thresholds: Thresholds, path: Path | None) -> str | None:
    """See `Prediction.near_duplicates`: from the thresholds against what is no near-duplicate."""
    share = float(thresholds.twins.mean())
    between = prediction_of_thresholds(thresholds.beyond, path)
    if share < LEAST_SHARE or found.t <= MISLED * between.t or found.low <= between.t:
        return None
    return (
        f"{share:.0%} of the samples have near-duplicates, nearer than {np.sqrt(NEAR):.2f} of the root mean squared distance of two, which "
        f"share the weight long after the layout is decided: it turns at t = {found.t:.3g} between samples, and near {between.t:.3g} "
        "between groups of them (between_groups=True predicts that, experiments.oracle_sweep measures it)"
    )


def _no_groups(near: float, count: int | None) -> str | None:
    """Why a prediction between groups is none, or says nothing."""
    if near == 0:
        return (
            "samples of so few dimensions come near each other by chance, or all are equal: there are no groups, it turns between samples"
        )
    if count is None:
        return f"fewer than {LEAST_SHARE:.0%} of the samples have near-duplicates: there are no groups, it turns between samples"
    return (
        "all samples are connected by near-duplicates, and are one group: there is no turning point between groups" if count == 1 else None
    )


def _with_weights(
    thresholds: Float[np.ndarray, " Q"], data: ArrayLike, labels: ArrayLike | None, path: Path | None, *, num_queries: int, seed: int
) -> Prediction:
    """From the thresholds, and where their median is ill-determined from the weights themselves."""
    found = prediction_of_thresholds(thresholds, path)
    near = _ranks(thresholds, 3.0)
    if found.unsure is None or near[0] <= 0:
        return found
    ratios = np.geomspace(near[0], near[-1], NUM_RATIOS)
    weights = np.zeros((num_queries, NUM_RATIOS))
    for chunk, pairs in competitions(data, labels, None, num_queries=num_queries, seed=seed):
        weights[chunk] = top_weights(pairs, ratios)
    mean, error = weights.mean(0), 1.96 * weights.std(0) / np.sqrt(num_queries)
    low, middle, high = (
        float(np.exp(np.interp(0.5, np.maximum.accumulate(curve), np.log(ratios)))) for curve in (mean + error, mean, mean - error)
    )
    return _prediction(low, middle, high, path or RectifiedFlow())


def prediction_of_thresholds(thresholds: Float[np.ndarray, " Q"], path: Path | None = None) -> Prediction:
    """What the thresholds of `condensation_thresholds` predict: their median, with the interval of their order."""
    return _prediction(*_ranks(thresholds, 1.96), path or RectifiedFlow())


def _ranks(thresholds: Float[np.ndarray, " Q"], deviations: float) -> tuple[float, float, float]:
    """The median of the thresholds, between those that so many standard deviations of a share of ½ leave."""
    spread = min(0.5, deviations * 0.5 / np.sqrt(len(thresholds)))
    low, middle, high = np.quantile(thresholds, [0.5 - spread, 0.5, 0.5 + spread])
    return float(low), float(middle), float(high)


def _prediction(low: float, middle: float, high: float, path: Path) -> Prediction:
    t, early, late = (time_of_ratio(ratio, path) for ratio in (middle, low, high))
    unsure = None
    if middle > 0 and high > SURE * low:
        unsure = (
            f"it may lie anywhere from t = {early:.3g} to {late:.3g} (95 %): the top-1 weight rests near one half, as where most samples "
            "have near-duplicates, or where samples or dimensions are few; rely on the measured one"
        )
    return Prediction(t, early, late, unsure)


# From the spectrum.


class _Draws(NamedTuple):
    """S draws of a query (y_i, z), as far as the Gaussian model sees them: sums over each of G groups of equal eigenvalues."""

    eigenvalue: Float[np.ndarray, " G"]
    multiplicity: Float[np.ndarray, " G"]
    zz: Float[np.ndarray, "S G"]  # Σ z²
    zy: Float[np.ndarray, "S G"]  # Σ z y/√λ
    yy: Float[np.ndarray, "S G"]  # Σ y²/λ


def _draw(eigenvalues: Float[np.ndarray, " K"]) -> _Draws:
    edges = np.geomspace(eigenvalues.min(), eigenvalues.max(), NUM_GROUPS + 1)
    index = np.searchsorted(edges[1:-1], eigenvalues, side="right")
    size = np.bincount(index, minlength=NUM_GROUPS)
    total = np.bincount(index, eigenvalues, minlength=NUM_GROUPS)
    multiplicity = size[size > 0].astype(float)
    rng = np.random.default_rng(0)
    shape = (NUM_DRAWS // 2, len(multiplicity))
    # Bartlett: the three sums are a 2 x 2 Wishart matrix, drawn without drawing its coordinates.
    zz = rng.chisquare(multiplicity, shape)
    normal = rng.standard_normal(shape)
    yy = normal**2 + 2 * rng.standard_gamma((multiplicity - 1) / 2, shape)
    zy = np.sqrt(zz) * normal
    return _Draws(total[size > 0] / multiplicity, multiplicity, np.r_[zz, zz], np.r_[zy, -zy], np.r_[yy, yy])


def _probability_of_beating(ratio: float, draws: _Draws) -> Float[np.ndarray, " S"]:
    """P(ε > 0) over y' ~ N(0, Λ) given (y, z), by Lugannani and Rice; the derivation is in `predict_turning_point`."""
    a = ratio**2 * draws.eigenvalue
    ww = draws.zz + 2 * np.sqrt(a) * draws.zy + a * draws.yy
    noise = draws.zz.sum(1)

    def slopes(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = 1 + theta[:, None] * a
        first = noise - (draws.multiplicity * a / x + ww / x**2).sum(1)
        second = (draws.multiplicity * (a / x) ** 2 + 2 * ww * a / x**3).sum(1)
        return first / 2, second / 2

    # K' rises and is concave, so Newton from the left of its root stays left of it and cannot fail. At 1/‖z‖² - 1/max(a) the
    # largest a alone outweighs ‖z‖²; 0 is nearer wherever K'(0), the mean of ε, is negative.
    theta = np.full(len(noise), -1 / a.max()) + 1 / noise
    theta = np.where(slopes(np.zeros_like(theta))[0] < 0, np.maximum(theta, 0), theta)
    for _ in range(100):
        first, second = slopes(theta)
        step = -first / second
        theta = theta + step
        if np.abs(step).max() <= 1e-8 * np.abs(theta).max():
            break
    x = 1 + theta[:, None] * a
    cgf = (theta * noise - (draws.multiplicity * np.log(x)).sum(1) - theta * (ww / x).sum(1)) / 2
    r = np.sign(theta) * np.sqrt(np.maximum(-2 * cgf, 0))
    u = theta * np.sqrt(slopes(theta)[1])
    regular = np.abs(r) > 1e-3  # below it 1/u - 1/r is a small number lost in the difference of two large ones
    safe_r, safe_u = np.where(regular, r, 1), np.where(regular, u, 1)
    density = np.exp(-(r**2) / 2) / np.sqrt(2 * np.pi)
    return np.clip(ndtr(-r) + np.where(regular, density * (1 / safe_u - 1 / safe_r), 0), 0, 1)


def _own_on_top(ratio: float, draws: _Draws, n: int) -> float:
    """The model's mean top-1 weight, E[(1 - p)^(N-1)]."""
    with np.errstate(divide="ignore"):  # p = 1: log 0 = -inf, and the weight is 0
        return float(np.mean(np.exp((n - 1) * np.log1p(-_probability_of_beating(ratio, draws)))))


def solve_ratio(excess: Callable[[float], float], start: float) -> float:
    """The root ρ of a function that rises in ρ, bracketed outwards from `start`."""
    from scipy.optimize import brentq

    low = high = np.log(start)
    while excess(np.exp(low)) > 0:
        low -= 0.3
    while excess(np.exp(high)) < 0:
        high += 0.3
    return float(np.exp(brentq(lambda log_ratio: excess(np.exp(log_ratio)), low, high, xtol=1e-4))) if low < high else start


def _condensed_at(classes: list[tuple[np.ndarray, int]]) -> float:
    """The ρ at which the top-1 weight crosses ½, pooled over classes of (eigenvalues, size) in proportion to size; 0 if it starts there."""
    total = sum(n for _, n in classes)
    # A class of one distinct sample is always on top; the others start from 1/n at ρ = 0.
    single = sum(n for eigenvalues, n in classes if n == 1 or not eigenvalues.size) / total
    spread = [(_draw(eigenvalues), n) for eigenvalues, n in classes if n > 1 and eigenvalues.size]
    if single + len(spread) / total >= 0.5:
        return 0.0
    start = max(np.sqrt(2 * np.log(n) / (draws.multiplicity @ draws.eigenvalue)) for draws, n in spread)
    return solve_ratio(lambda ratio: single + sum(n / total * _own_on_top(ratio, draws, n) for draws, n in spread) - 0.5, start)


def predict_turning_point(eigenvalues: ArrayLike, n: int, path: Path | None = None) -> float:
    """The turning point of n samples, as far as their covariance spectrum tells it.

    The model: samples are independent draws from N(0, Λ). Given the query (y, z) the n - 1 others are then independent, each on
    top of the query's own sample with the same probability p, so that by the identity at the head of this module

        E[max_j γ_j] = E_{y,z}[(1 - p(y, z))^(n-1)],     p(y, z) = P(ε > 0),     ε = ½‖z‖² - ½‖ρ y' - w‖²,     w = z + ρ y

    (ε is (1), its square completed). Over y' ~ N(0, Λ), ε has the cumulant generating function, with a_k = ρ²λ_k,

        K(θ) = ½θ‖z‖² - ½ Σ_k log(1 + θ a_k) - ½θ Σ_k w_k² / (1 + θ a_k)

    With K'(θ) = 0, r = sign(θ) √(-2K(θ)) and u = θ √K''(θ), Lugannani and Rice give `p = 1 - Φ(r) + φ(r) (1/u - 1/r)`. The outer
    mean is over a fixed sample of (y, z), the same at every ρ; the criterion "= ½" is then solved for ρ. N is finite
    throughout, and no constant is fitted to anything.

    The plain criterion, `½ Σ log(1 + a_k) = log n`, is what remains of this as n → ∞: E K(1) = -½ Σ log(1 + a_k), so it says
    n e^K(1) = 1. It bounds the tail p by e^K (Chernoff) and drops the factor 1/(u √2π), about 1/√(4π log n): others seem more
    dangerous than they are, and the turn comes late. That is ½ log log n beside log n, which no n in use makes small.

    The samples' own spread of the eigenvalues (Marchenko and Pastur) hardly matters here, see `covariance_spectrum`. On unit
    Gaussians, D from 16 to 4,096 and n from 64 to 16,384, the answer is within 3 % of the measured one, from the samples'
    spectrum or from the population's. Real data are clustered, not Gaussian, and turn later than this, by up to 17 % on images:
    `predict_turning_point_from_data` sees that.

    Args:
      eigenvalues: `[K]`, of the sample covariance, in any order; zeros may be left out.
      n: number of samples.
      path: the probability path; rectified flow by default.

    Returns:
      t in [0, 1); 0 for n <= 2, where the top-1 weight is never below ½, and where every eigenvalue is 0.

    Raises:
      ValueError: eigenvalues is not a finite vector of numbers >= 0 (rounding below 0 passes); n is below 1.

    Examples:
      >>> few, many = (predict_turning_point(np.ones(64), n) for n in (100, 10_000))
      >>> few < many  # more samples: they are told apart later
      True

    References:
      Lugannani and Rice 1980, Adv. Appl. Probab. 12, 475 (tail); Biroli, Bonnaire, de Bortoli and Mézard 2024, Nature
      Communications 15 (the condensation criterion); arXiv 2512.02826 (the turning point).
    """
    return time_of_ratio(_condensed_at([(checked_eigenvalues(eigenvalues), _checked_size(n))]), path or RectifiedFlow())


def predict_turning_point_by_class(
    data: ArrayLike, labels: ArrayLike, path: Path | None = None, *, sizes: Mapping[int, int] | None = None
) -> tuple[float, dict[int, float]]:
    """The spectral prediction for a class-conditional oracle, from within-class spectra and sizes.

    A query of class c competes with its n_c - 1 fellows only: `Σ_c (n_c / N) E_c[(1 - p)^(n_c - 1)] = ½`.

    Args:
      data: `[N, *shape]`, real.
      labels: `[N]` integers.
      path: the probability path; rectified flow by default.
      sizes: of each class, by its label, where `data` are some of their samples only.

    Returns:
      The turning point pooled over queries, and that of each class by its label.

    Raises:
      ValueError: as `covariance_spectrum`; labels is not `[N]` integers.
    """
    rows = as_rows(data)
    classes = checked_labels(labels, len(rows))
    spectra = {}
    for label in np.unique(classes):
        members = rows[classes == label]
        spectra[int(label)] = (checked_eigenvalues(covariance_spectrum(members)), len(members) if sizes is None else int(sizes[int(label)]))
    path = path or RectifiedFlow()
    return time_of_ratio(_condensed_at(list(spectra.values())), path), {
        label: time_of_ratio(_condensed_at([spectrum]), path) for label, spectrum in spectra.items()
    }


def annealed_turning_point(eigenvalues: ArrayLike, n: int, path: Path | None = None) -> float:
    """The plain criterion `½ Σ log(1 + (α/σ)² λ) = log n` (Biroli et al. 2024): the limit of infinitely many samples, for comparison.

    Args, Returns, Raises: as `predict_turning_point`; 0 for n = 1.
    """
    values, size = checked_eigenvalues(eigenvalues), _checked_size(n)
    if size == 1 or not values.size:
        return 0.0
    start = np.sqrt(2 * np.log(size) / values.sum())
    return time_of_ratio(solve_ratio(lambda ratio: np.log1p(ratio**2 * values).sum() / 2 - np.log(size), start), path or RectifiedFlow())


def _checked_size(n: int) -> int:
    if n < 1:
        raise ValueError(f"n = {n}: expected a number of samples of at least 1")
    return n
