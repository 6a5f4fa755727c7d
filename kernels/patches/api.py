"""`patch_means`: the posterior mean of the centre of each patch of noisy images, over patches of a set of images."""

import functools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from kernels.patches.box_sums import EXCLUDED, LANES, Boxes, Room, add_images
from kernels.patches.images import Abreast, Images
from kernels.patches.sums import PatchSums
from kernels.posterior.cpu.threads import cores, on_every_core

FLOAT32_FROM = 2**28
"""Pairs of patches from which on scores may be summed in float32: for fewer it takes longer to compile the loop for another dtype."""
LARGEST_SCORE = 400.0
"""Scores whose terms may add up to more than so many nats are summed in float64: in float32 their rounding could exceed 2e-5."""
PAIRS_AT_ONCE = 2**31
"""Pairs of patches in a call of a compiled function, a second or two: it cannot be interrupted."""


class PatchSettings(NamedTuple):
    """Which patches are compared with which."""

    size: int
    """The side of a patch, odd."""
    anywhere: bool
    """With patches around every place; else with those at their own."""
    position: bool
    """Only with patches that the borders clip alike; else patches are padded with zeros."""


def patch_means(
    images: Images,
    x: Float[np.ndarray, "B H W C"],
    alpha: Float[np.ndarray, " B"],
    sigma: Float[np.ndarray, " B"],
    label: Int[np.ndarray, " B"],
    settings: PatchSettings,
) -> Float[np.ndarray, "B H W C"]:
    """For each place u of each query Σ γ y_i(v), γ = softmax(-‖P_u x - α P_v y_i‖² / 2σ²) over images i and places v, float64.

    `patch_means_ref` is the definition; results are within 1e-5 of it. Scores are summed in float32 where their rounding cannot show, in
    float64 elsewhere; weights are float32. The work is the number of pairs of patches, whatever their size: one to two nanoseconds each on
    a core, and for `anywhere` there are (H W)² pairs for each image and query.

    Args:
      images: in memory, or in a source.
      x: finite.
      alpha, sigma: x = α y + σ noise; σ > 0.
      label: a class, or -1: all images. NaN for a class without images.

    Source: Kamb and Ganguli 2024, arXiv 2412.20292, equations of the local and the equivariant local score machine.
    """
    return in_places(patch_sums(images, x, alpha, sigma, label, settings), images.shape)


def in_places(sums: PatchSums, shape: tuple[int, int, int]) -> Float[np.ndarray, "B H W C"]:
    """The means of sums, as images."""
    return sums.means().transpose(0, 2, 1).reshape(-1, *shape)


def patch_sums(
    images: Images,
    x: Float[np.ndarray, "B H W C"],
    alpha: Float[np.ndarray, " B"],
    sigma: Float[np.ndarray, " B"],
    label: Int[np.ndarray, " B"],
    settings: PatchSettings,
) -> PatchSums:
    """The sums whose ratio `patch_means` is, over these images: those of other images can be merged with them."""
    height, width, channels = images.shape
    sums = PatchSums.none(len(x), channels, height * width)
    rate, curvature = alpha / sigma**2, alpha**2 / (2 * sigma**2)
    reach = rate * np.abs(x).max(axis=(1, 2, 3), initial=0) * images.largest + curvature * images.largest**2
    taken = min(settings.size, 2 * height - 1) * min(settings.size, 2 * width - 1) * channels
    few = images.n * len(x) * (height * width) ** (2 if settings.anywhere else 1) < FLOAT32_FROM
    exact = (taken * reach > LARGEST_SCORE) | few | (not settings.anywhere)
    for wide, own in sorted({(bool(wide), int(own)) for wide, own in zip(exact, label, strict=True)}):
        (rows,) = np.nonzero((exact == wide) & (label == own))
        dtype = np.float64 if wide else np.float32
        for start in range(0, len(rows), images.queries):
            some = rows[start : start + images.queries]
            scaled = np.log2(np.e) * rate[some, None, None, None] * x[some]
            queries = (
                np.ascontiguousarray(scaled.reshape(len(some), height * width, channels).transpose(0, 2, 1), dtype),
                (np.log2(np.e) * curvature[some]).astype(dtype),
            )
            sums.put(some, _sums(images, own, queries, settings))
    return sums


def _sums(images: Images, label: int, queries: tuple[Any, Any], settings: PatchSettings) -> PatchSums:
    """Of queries of one class, by all cores; a part of the images after the other."""
    boxes = boxes_of(images.shape, settings)
    dtype, (b, channels, places) = queries[0].dtype, queries[0].shape
    pairs = b * LANES * int(np.prod([(part[:, 2] - part[:, 1]).sum() for part in (boxes.rows, boxes.columns)]))
    step = max(1, PAIRS_AT_ONCE // pairs)
    rooms = [room_of(images.shape, settings, dtype) for _ in range(cores())]
    each = [PatchSums.none(b, channels, places) for _ in range(cores())]

    def add(part: Abreast) -> None:
        bias = np.where(np.arange(LANES) < part.filled[:, None], 0, EXCLUDED).astype(dtype)

        def work(core: int) -> None:
            own = np.arange(core, len(part.images), cores())
            for start in range(0, len(own), step):
                add_images(part.images, bias, own[start : start + step], queries, boxes, rooms[core], tuple(each[core]))

        on_every_core(work)

    for part in images.parts(label):
        add(part)
    return functools.reduce(PatchSums.merge, each)


def boxes_of(shape: tuple[int, int, int], settings: PatchSettings) -> Boxes:
    """Displacements, and the places for each."""
    height, width, _ = shape
    half = settings.size // 2
    rows, columns = (_displacements(n, half, settings) for n in (height, width))
    return Boxes(height, width, min(half, max(height, width)), rows, columns)


def _displacements(n: int, half: int, settings: PatchSettings) -> Int[np.ndarray, "S 3"]:
    """Displacements along one side of n pixels, and the first and (one beyond) the last of the places for each."""
    if not settings.anywhere:
        return np.array([[0, 0, n]])
    if not settings.position:
        return np.array([[s, max(0, -s), min(n, n - s)] for s in range(1 - n, n)])
    inner = n - 2 * half  # places whose patches are not clipped: they are compared with each other
    moved = [[s, half + max(0, -s), half + min(inner, inner - s)] for s in range(1 - inner, inner) if s]
    return np.array([[0, 0, n], *moved])


def room_of(shape: tuple[int, int, int], settings: PatchSettings, dtype: Any) -> Room:
    """Working memory of one thread."""
    height, width, channels = shape
    half = min(settings.size // 2, max(height, width))
    return Room(
        norms=np.zeros(height * width * LANES, dtype),
        column=np.zeros((width + half + 1) * LANES, dtype),
        zeros=np.zeros(width, dtype),
        bias=np.zeros(LANES, dtype),
        sums=np.zeros((1 + channels, height * width * LANES), np.float32),
        weights=np.zeros(width * LANES, np.float32),
        peaks=np.zeros(height * width, np.float32),
    )
