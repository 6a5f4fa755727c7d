"""Decision times: the t at which the layout and the details of a sample are decided, by one-step predictions along its trajectory."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from flowjax.analysis.statistics import Curve, mean_curve
from flowjax.schedules import checked_times

LAYOUT = 0.25
"""Frequencies below this share of the highest are layout, the others details."""


class Settling(NamedTuple):
    """Share of the way to the final sample, for each t and sample: 0 at the prediction of t = 0, 1 at the final sample."""

    layout: Float[np.ndarray, "T B"]
    details: Float[np.ndarray, "T B"]


def settling(one_step: Float[np.ndarray, "T B *shape"], ends: Float[np.ndarray, "B *shape"]) -> Settling:
    """`1 - ‖P (x̂_t - x_1)‖² / ‖P (x̂_0 - x_1)‖²`, x̂_t the one-step prediction at t and P low or high frequencies.

    Images `[H, W, C]` are split by the discrete cosine transform of their first two axes; vectors and all else by that of the values in
    their order, which means something where neighbours do.

    Args:
      one_step: predictions along runs, from t = 0 on (`flowjax.sampling.trajectory`).
      ends: where the runs end.

    References:
      arXiv 2512.02826, finding 4.
    """
    off = np.asarray(one_step, np.float64) - np.asarray(ends, np.float64)
    axes = (2, 3) if off.ndim == 5 else (2,)
    off = off if off.ndim == 5 else off.reshape(*off.shape[:2], -1)
    import scipy.fft

    spectrum = scipy.fft.dctn(off, axes=axes, norm="ortho")
    frequencies = np.meshgrid(*(np.arange(off.shape[axis]) / off.shape[axis] for axis in axes), indexing="ij")
    low = np.sqrt(sum(f**2 for f in frequencies)) < LAYOUT
    energy = spectrum**2 if off.ndim != 5 else (spectrum**2).sum(-1)
    flat, kept = energy.reshape(*off.shape[:2], -1), low.ravel()
    return Settling(*(_share(flat[..., chosen].sum(-1)) for chosen in (kept, ~kept)))


def _share(energy: Float[np.ndarray, "T B"]) -> Float[np.ndarray, "T B"]:
    return 1 - energy / np.maximum(energy[0], 1e-30)


class Settled(NamedTuple):
    """The t at which the mean share first reaches a level, with a 95 % bootstrap interval over samples; infinite where it never does."""

    t: float
    low: float
    high: float


def settled_at(
    t: Float[np.ndarray, " T"], share: Float[np.ndarray, "T B"], level: float, *, seed: int = 0, num_bootstrap: int = 1000
) -> Settled:
    """The t after which the mean over samples stays above a level, linearly interpolated.

    Raises:
      ValueError: a level outside (0, 1); times that do not rise in [0, 1].
    """
    t = checked_times(t)
    if not 0 < level < 1:
        raise ValueError(f"level = {level}: expected a share in (0, 1)")
    count = share.shape[1]
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), num_bootstrap) / count
    found = [_crossing(t, curve, level) for curve in weights @ share.T]
    low, high = np.percentile(found, [2.5, 97.5], method="nearest")  # between infinite ones nothing can be interpolated
    return Settled(_crossing(t, share.mean(1), level), float(low), float(high))


def _crossing(t: Float[np.ndarray, " T"], curve: Float[np.ndarray, " T"], level: float) -> float:
    below = np.flatnonzero(curve < level)
    if not below.size:
        return float(t[0])
    last = below[-1]
    if last == len(t) - 1:
        return float("inf")
    part = (level - curve[last]) / (curve[last + 1] - curve[last])
    return float(t[last] + part * (t[last + 1] - t[last]))


def settling_curves(found: Settling) -> dict[str, Curve]:
    """Means over samples, with intervals."""
    return {"layout": mean_curve(found.layout, 1.0), "details": mean_curve(found.details, 1.0)}
