"""How far the loss of a model, against t, is from a smooth curve: a number for what a reader of the plot calls wavy."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.polynomial import chebyshev

from flowjax.analysis.statistics import Interval
from flowjax.schedules import checked_times


class Waviness(NamedTuple):
    """Of one curve."""

    value: Interval
    """Root mean square of the residual of log loss about its smooth fit: 0.1 is a loss that goes up and down by about a tenth."""
    fit: Float[np.ndarray, " T"]
    """The loss that is fitted: the smooth curve, not its logarithm."""


def waviness(
    t: Float[np.ndarray, " T"], errors: Float[np.ndarray, "T Q"], *, degree: int = 2, seed: int = 0, num_bootstrap: int = 1000
) -> Waviness:
    """The residual of log mean error about the best polynomial in t, a parabola by default; scale-free: a factor changes nothing.

    Finitely many queries make a smooth loss look wavy. What they add to the mean square is estimated by the bootstrap over queries, each
    resampled with all its times, and taken off, never below 0; from each resampled curve twice, since it holds that noise twice. The
    interval is its 2.5 and 97.5 percentiles.

    Args:
      t: `[T]` times, rising.
      errors: `[T, Q]`, squared errors of Q queries, of mean above 0 at each t.

    Raises:
      ValueError: no more times than the polynomial has coefficients, or times that do not rise in [0, 1]; means that are not above 0.

    References:
      arXiv 2512.02826, finding 9, which compares shapes by eye.
    """
    t = checked_times(t)
    mean = errors.mean(1)
    if len(t) <= degree + 1:
        raise ValueError(f"t has {len(t)} values: expected more than the {degree + 1} coefficients of the smooth fit")
    if not (np.isfinite(mean) & (mean > 0)).all():
        raise ValueError("errors: expected a mean above 0 at each t")
    count = errors.shape[1]
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), num_bootstrap) / count
    curves = np.log(np.concatenate([mean[None], weights @ errors.T]))
    design = chebyshev.chebvander(2 * (t - t.min()) / (t.max() - t.min()) - 1, degree)
    smooth = design @ np.linalg.lstsq(design, curves.T, rcond=None)[0]
    square = ((curves.T - smooth) ** 2).mean(0)
    noise = max(0.0, float(square[1:].mean() - square[0]))
    resampled = np.sqrt(np.maximum(square[1:] - 2 * noise, 0))
    low, high = np.percentile(resampled, [2.5, 97.5])
    value = float(np.sqrt(max(square[0] - noise, 0)))
    return Waviness(Interval(value, min(float(low), value), max(float(high), value)), np.exp(smooth[:, 0]))
