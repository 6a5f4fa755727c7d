"""`patch_means` validates nothing and computes: the posterior mean of the centre of each patch of noisy images."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from kernels.patches.reference import patch_means_ref


class PatchSettings(NamedTuple):
    """Which patches are compared with which."""

    size: int
    """The side of a patch, odd."""
    anywhere: bool
    """With patches around every place; else with those at their own."""
    position: bool
    """Only with patches that the borders clip alike; else patches are padded with zeros."""


@dataclasses.dataclass(frozen=True)
class PatchSet:
    """Images, prepared for `patch_means`."""

    images: Float[np.ndarray, "N H W C"]
    classes: dict[int, slice]

    @classmethod
    def of(cls, rows: Float[np.ndarray, "N D"], shape: tuple[int, int, int], classes: dict[int, slice]) -> "PatchSet":
        """The images of rows sorted by class; the rows of each class, and of -1: all."""
        return cls(rows.reshape(len(rows), *shape), classes)


def patch_means(
    patches: PatchSet,
    x: Float[np.ndarray, "B H W C"],
    alpha: Float[np.ndarray, " B"],
    sigma: Float[np.ndarray, " B"],
    label: Int[np.ndarray, " B"],
    settings: PatchSettings,
) -> Float[np.ndarray, "B H W C"]:
    """The definition is `patch_means_ref`."""
    found = np.empty(x.shape)
    for b in range(len(x)):
        images = patches.images[patches.classes[int(label[b])]]
        found[b] = patch_means_ref(
            images, x[b], alpha[b], sigma[b], size=settings.size, anywhere=settings.anywhere, position=settings.position
        )
    return found
