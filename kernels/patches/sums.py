"""`PatchSums`: what a posterior over some of the images leaves behind. Cores and processes merge by it.

As `kernels.posterior.partial`, for a posterior at each place, in NumPy: a compiled program calls patch fields back on the host, where
nothing of JAX may run.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class PatchSums(NamedTuple):
    """Weights w = 2^(score - peak) of the patches around each place, summed over patches of images; float64.

    A commutative monoid: `none` is its unit and `merge` its operation, so that the images may be split in any way.
    """

    peak: Float[np.ndarray, "B P"]
    """The score that weights are relative to, in powers of two: the highest, or at most 60 below it; -inf for no images."""
    weight: Float[np.ndarray, "B P"]
    """Σ w."""
    center: Float[np.ndarray, "B C P"]
    """Σ w y, y the pixels at the centres of the patches."""

    @classmethod
    def none(cls, queries: int, channels: int, places: int) -> "PatchSums":
        """Of no images."""
        shape = (queries, places)
        return cls(np.full(shape, -np.inf), np.zeros(shape), np.zeros((queries, channels, places)))

    def merge(self, other: "PatchSums") -> "PatchSums":
        """Of the images of both."""
        peak = np.maximum(self.peak, other.peak)
        here, there = (np.exp2(part.peak - np.where(np.isneginf(peak), 0, peak)) for part in (self, other))
        center = here[:, None] * self.center + there[:, None] * other.center
        return PatchSums(peak, here * self.weight + there * other.weight, center)

    def put(self, rows: np.ndarray, some: "PatchSums") -> None:
        """Set the sums of some of the queries."""
        for mine, other in zip(self, some, strict=True):
            mine[rows] = other

    def means(self) -> Float[np.ndarray, "B C P"]:
        """Σ w y / Σ w; NaN for no images."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.center / self.weight[:, None])
