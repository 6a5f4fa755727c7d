"""`PatchSums`: what a posterior over some of the images leaves behind. Cores, processes, and a device's blocks of images merge by it.

As `kernels.posterior.partial`, for a posterior at each place. NumPy arrays stay NumPy arrays: a compiled program calls patch fields back on
the host, where nothing of JAX may run.
"""

from types import ModuleType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float


class PatchSums(NamedTuple):
    """Weights w = 2^(score - peak) of the patches around each place, summed over patches of images.

    Arrays are float64 on the host, float32 in a compiled program.

    A commutative monoid: `none` is its unit and `merge` its operation, so that the images may be split in any way.
    """

    peak: Float[Any, "B P"]
    """The score that weights are relative to, in powers of two: the highest, or at most 60 below it; -inf for no images."""
    weight: Float[Any, "B P"]
    """Σ w."""
    center: Float[Any, "B C P"]
    """Σ w y, y the pixels at the centres of the patches."""

    @classmethod
    def none(cls, queries: int, channels: int, places: int, some: ModuleType = np) -> "PatchSums":
        """Of no images, in arrays of NumPy or of `jax.numpy`."""
        shape = (queries, places)
        return cls(some.full(shape, -np.inf), some.zeros(shape), some.zeros((queries, channels, places)))

    def merge(self, other: "PatchSums") -> "PatchSums":
        """Of the images of both."""
        some: Any = np if isinstance(self.peak, np.ndarray) else jnp
        peak = some.maximum(self.peak, other.peak)
        here, there = (some.exp2(part.peak - some.where(some.isneginf(peak), 0, peak)) for part in (self, other))
        center = here[:, None] * self.center + there[:, None] * other.center
        return PatchSums(peak, here * self.weight + there * other.weight, center)

    def put(self, rows: np.ndarray, some: "PatchSums") -> None:
        """Set the sums of some of the queries."""
        for mine, other in zip(self, some, strict=True):
            mine[rows] = other

    def means(self) -> Float[Any, "B C P"]:
        """Σ w y / Σ w; NaN for no images."""
        with np.errstate(invalid="ignore"):
            return self.center / self.weight[:, None]
