"""Speciation and collapse, the two transitions of Biroli et al., from a data set: beside the turning point, for every affine path.

Both are statements about α_t/σ_t = ρ, so that any affine path has them at its own t of that ratio; their e^{-t} and Δ_t of the
Ornstein-Uhlenbeck process are α and σ². With y_i the samples and x = α y_i + σ z a query (i uniform, z ~ N(0, I)):

Speciation, from the spectrum. `ρ² Λ = 1`, Λ the largest eigenvalue of the data's covariance: from here on the data stand out from the noise
  in their leading direction. Their t_S = ½ log Λ is the same for large Λ. For two classes at ±m of width s, Λ = m² + s² and the log-density
  gets its second maximum at ρ² (m² - s²) = 1.

Speciation, from the classes. Two runs of the exact backward process, cloned at x, end in classes drawn independently from P(c | x): they
  agree with probability `φ(t) = E Σ_c P(c | x)²`, which is E P(own class | x), since the own class is one more such draw (Nishimori). The
  classes count as decided where φ is halfway from chance, Σ_c p_c², to 1. No run is needed.

Collapse, from the entropy. The excess entropy `f(t) = h(p_t) - log N - (D/2) log(2πe σ²)` is negative while N Gaussians of width σ can fill
  the volume of the noised population; the empirical distribution then looks like it. It collapses onto its samples where f rises to 0, that
  is `I(x_1; x) = log N`. Of the population, f is known for Gaussians (½ Σ log(1 + ρ²λ) = log N, `annealed_turning_point`). From N samples
  it is estimated with the query's own sample left out of the mixture, `-E log p_{-i}(x)` for h: then

      f = -E L_i + log(1 - 1/N),     L_i = log Σ_{j≠i} (c_j / c_i) e^{ε_j},     ε_j = ρ z·(y_j - y_i) - ½ρ² ‖y_j - y_i‖²

  and the own weight is γ_i = 1 / (1 + e^{L_i}). The collapse is where the mean of L_i is 0. The turning point is where half of the queries
  have their own sample on top, max_j ε_j < 0 (`flowjax.analysis.turning_point`). One asks for the sum of the others, the other for the
  largest of them, which is less: the turning point comes first, and the two draw together as the sum comes to be that of its largest term,
  which is the condensation of a random-energy model. The population's f crosses 0 later than the estimate, since E log ≤ log E (quenched
  below annealed). A Gaussian of the same covariance has the largest entropy, so that its f crosses earlier than the population's: for
  clustered data it may come before all the others.

What differs from the paper: their f of real data is that of the empirical mixture itself, minus the mean entropy of the weights, which only
tends to 0 and needs a threshold; leaving the own sample out it crosses 0. Left out, the own sample decides no class either.

References:
  Biroli, Bonnaire, de Bortoli and Mézard 2024, Nature Communications 15 (arXiv 2402.18491).
"""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from flowjax.analysis.condensation import Pairs, checked_labels, competitions
from flowjax.analysis.spectrum import as_rows, covariance_spectrum
from flowjax.analysis.turning_point import solve_ratio, time_of_ratio
from flowjax.path import Path, RectifiedFlow

NUM_RATIOS = 32
"""Values of α/σ, evenly spaced by their logarithm, at which both curves are computed."""
SPAN = (1 / 4, 4)
"""Of the speciation's α/σ and the collapse's, as the spectrum has them: the least and the largest of those values."""


@dataclasses.dataclass(frozen=True)
class Crossing:
    """The t of a transition, with the 95 % bootstrap interval over queries; or None, and why."""

    t: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


@dataclasses.dataclass(frozen=True)
class RegimeTimes:
    """Speciation and collapse of a data set; t = 0 is noise.

    Attributes:
      speciation: where ρ² Λ = 1; None for data without variance.
      leading_eigenvalue: Λ.
      classes_decided: where φ is halfway from `chance` to 1; None without classes.
      collapse: where the excess entropy crosses 0, of each class within itself if `by_class`.
      gaussian_collapse: the same of a Gaussian of this covariance; None if by class.
    """

    speciation: float | None
    leading_eigenvalue: float
    classes_decided: Crossing | None
    chance: float | None
    collapse: Crossing
    gaussian_collapse: float | None
    by_class: bool

    def sentence(self) -> str:
        """What they say, for a report."""
        parts = []
        if self.speciation is not None:
            parts.append(f"the data stand out from the noise in their leading direction at t = {self.speciation:.3g} (speciation)")
        if self.classes_decided is not None and self.classes_decided.t is not None:
            decided = self.classes_decided
            parts.append(f"half of the classes is decided at {decided.t:.3g} (95 %: {decided.low:.3g} to {decided.high:.3g})")
        if self.collapse.t is None:
            parts.append(f"no collapse was found: {self.collapse.reason}")
        else:
            collapse = self.collapse
            parts.append(
                f"{'within classes ' * self.by_class}the samples no longer fill the volume of their population at {collapse.t:.3g} "
                f"(95 %: {collapse.low:.3g} to {collapse.high:.3g}; collapse)"
            )
        told = "; ".join(parts)
        return f"By the criteria of Biroli et al., {told}."


class LeaveOneOut(NamedTuple):
    """Of each query at each ρ, with its own sample left out."""

    log_odds: Float[np.ndarray, "Q G"]
    """L, the logarithm of the others' weight over the own sample's."""
    own_class: Float[np.ndarray, "Q G"]
    """The share of the others' weight that lies in the query's own class."""


def regime_times(
    data: ArrayLike,
    labels: ArrayLike | None = None,
    path: Path | None = None,
    *,
    by_class: bool = False,
    num_queries: int = 256,
    seed: int = 0,
) -> RegimeTimes:
    """Both transitions of a data set.

    Two matrix products of queries and samples, and 32 exponentials for each pair: a few seconds for 60,000 images.

    Args:
      data: `[N, *shape]`, real.
      labels: None, or `[N]` integers.
      path: the probability path; rectified flow by default.
      by_class: whether a query collapses within its own class, as under an oracle by class; needs labels.
      num_queries: drawn from the samples, each as often as any other.
      seed: of the queries and of the bootstrap.

    Raises:
      ValueError: as `predict_turning_point_from_data`; by_class without labels.
    """
    rows, path = as_rows(data), path or RectifiedFlow()
    classes = None if labels is None else checked_labels(labels, len(rows))
    if by_class and classes is None:
        raise ValueError("by_class = True needs labels: give them, or leave it False")
    eigenvalues = covariance_spectrum(rows)
    leading = float(eigenvalues.max(initial=0.0))
    if leading == 0:
        nothing = Crossing(None, reason="all samples are alike")
        return RegimeTimes(None, 0.0, None, None, nothing, None, by_class)
    log_n = np.log(len(rows))
    speciation = leading**-0.5
    gaussian = solve_ratio(lambda ratio: np.log1p(ratio**2 * eigenvalues).sum() / 2 - log_n, np.sqrt(2 * log_n / eigenvalues.sum()))
    ratios = np.geomspace(SPAN[0] * min(speciation, gaussian), SPAN[1] * max(speciation, gaussian), NUM_RATIOS)

    whole = _left_out(rows, classes, ratios, num_queries, seed, within=False)
    within = _left_out(rows, classes, ratios, num_queries, seed, within=True) if by_class else whole
    decided = chance = None
    if classes is not None and len(np.unique(classes)) > 1:
        chance = float(((np.unique(classes, return_counts=True)[1] / len(classes)) ** 2).sum())
        decided = _crossing(ratios, whole.own_class, (1 + chance) / 2, path, seed, "the class is never decided")
    collapse = _crossing(ratios, -within.log_odds, 0.0, path, seed, "the others' weight never falls to that of the own sample")
    return RegimeTimes(
        time_of_ratio(speciation, path), leading, decided, chance, collapse, None if by_class else time_of_ratio(gaussian, path), by_class
    )


def _left_out(
    rows: np.ndarray, classes: np.ndarray | None, ratios: Float[np.ndarray, " G"], num_queries: int, seed: int, *, within: bool
) -> LeaveOneOut:
    """Of all queries; `within`: among the samples of their own class alone."""
    rng = np.random.default_rng(seed)
    queries = np.concatenate([rng.permutation(len(rows)) for _ in range(-(-num_queries // len(rows)))])[:num_queries]
    found = LeaveOneOut(*np.empty((2, num_queries, len(ratios))))
    groups = competitions(rows, classes if within else None, queries, num_queries=num_queries, seed=seed)
    own = np.zeros(num_queries, int) if classes is None else classes[queries]
    for chunk, blocks in groups:
        same = ((pairs, own[chunk][:, None] == (own[:1] if classes is None else classes[pairs.row])) for pairs in blocks)
        for whole, part in zip(found, leave_one_out(same, ratios), strict=True):
            whole[chunk] = part
    return found


def leave_one_out(blocks: Iterable[tuple[Pairs, Bool[np.ndarray, "Q B"]]], ratios: Float[np.ndarray, " G"]) -> LeaveOneOut:
    """From blocks of competing samples, each with whether it is of the query's own class; a gap of 0 is the own sample, and left out."""
    peak, total, of_class = np.full((1, len(ratios)), -np.inf), np.zeros((1, len(ratios))), np.zeros((1, len(ratios)))
    for (along, gap, log_odds, _), same in blocks:
        here, sums, own = (np.empty((len(along), len(ratios))) for _ in range(3))
        others = np.where(gap > 0, log_odds, -np.inf)
        for g, ratio in enumerate(ratios.astype(np.float32)):
            scores = ratio * along - ratio**2 / 2 * gap + others
            here[:, g] = scores.max(1)
            weights = np.exp(scores - np.where(np.isfinite(here[:, g]), here[:, g], 0).astype(np.float32)[:, None])
            sums[:, g], own[:, g] = weights.sum(1), (weights * same).sum(1)
        higher = np.maximum(peak, here)
        level = np.where(np.isfinite(higher), higher, 0)
        old, new = np.exp(peak - level), np.exp(here - level)
        total, of_class, peak = total * old + sums * new, of_class * old + own * new, higher
    with np.errstate(divide="ignore", invalid="ignore"):
        return LeaveOneOut(peak + np.log(total), of_class / total)


def _crossing(
    ratios: Float[np.ndarray, " G"], values: Float[np.ndarray, "Q G"], level: float, path: Path, seed: int, never: str
) -> Crossing:
    """Where the mean over queries first rises through a level, linearly in log ρ between two values."""
    if not np.isfinite(values).all():
        return Crossing(None, reason="a sample has no other to compete with")
    count = len(values)
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), 1000) / count
    curves = np.concatenate([values.mean(0)[None], weights @ values]) - level
    if curves[0, 0] >= 0:
        return Crossing(0.0, 0.0, 0.0)
    if curves[0].max() < 0:
        return Crossing(None, reason=never)
    after = np.where((curves >= 0).any(1), (curves >= 0).argmax(1), len(ratios) - 1).clip(min=1)
    row, logs = np.arange(len(curves)), np.log(ratios)
    low, high = curves[row, after - 1], curves[row, after]
    part = np.clip(-low / np.where(high > low, high - low, 1), 0, 1)
    at = np.exp(logs[after - 1] + part * (logs[after] - logs[after - 1]))
    t, early, late = (time_of_ratio(float(ratio), path) for ratio in (at[0], *np.percentile(at[1:], [2.5, 97.5])))
    return Crossing(t, early, late)
