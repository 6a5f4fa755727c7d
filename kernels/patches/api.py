"""`patch_means`: the posterior mean of the centre of each patch of noisy images, over patches of a set of images."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from kernels.patches.box_sums import EXCLUDED, LANES, Boxes, Room, add_images
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


@dataclasses.dataclass(frozen=True)
class PatchSet:
    """Images, eight abreast, prepared for `patch_means`."""

    images: Float[np.ndarray, "K C PL"]
    """Chunk, channel, place and image of the chunk; float32. A chunk holds images of one class."""
    filled: Int[np.ndarray, " K"]
    """Images in each chunk."""
    shape: tuple[int, int, int]
    """H, W, C."""
    classes: dict[int, slice]
    """The chunks of each class; of -1: all."""
    largest: float
    """max |y|."""

    @classmethod
    def of(cls, rows: Float[np.ndarray, "N D"], shape: tuple[int, int, int], classes: dict[int, slice]) -> "PatchSet":
        """The images of rows that are sorted by class.

        Args:
          shape: H, W, C of an image.
          classes: the rows of each class; of -1: all.
        """
        height, width, channels = shape
        parts = {label: part for label, part in classes.items() if label != -1} or {-1: classes[-1]}
        counts = {label: -(-(part.stop - part.start) // LANES) for label, part in parts.items()}
        images = np.zeros((sum(counts.values()), channels, height * width * LANES), np.float32)
        filled = np.full(len(images), LANES, np.int64)
        own, start = dict[int, slice](), 0
        for label, part in parts.items():
            stop = start + counts[label]
            some = np.zeros((counts[label] * LANES, height * width, channels), np.float32)
            some[: part.stop - part.start] = rows[part].reshape(-1, height * width, channels)
            images[start:stop] = (
                some.reshape(-1, LANES, height * width, channels).transpose(0, 3, 2, 1).reshape(counts[label], channels, -1)
            )
            filled[stop - 1] = part.stop - part.start - (counts[label] - 1) * LANES
            own[label], start = slice(start, stop), stop
        return cls(images, filled, shape, own | {-1: slice(0, len(images))}, float(np.abs(rows).max()))


def patch_means(
    patches: PatchSet,
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
      x: finite.
      alpha, sigma: x = α y + σ noise; σ > 0.
      label: a class of `patches`, or -1: all images.

    Source: Kamb and Ganguli 2024, arXiv 2412.20292, equations of the local and the equivariant local score machine.
    """
    height, width, channels = patches.shape
    found = np.empty(x.shape)
    rate, curvature = alpha / sigma**2, alpha**2 / (2 * sigma**2)
    reach = rate * np.abs(x).max(axis=(1, 2, 3), initial=0) * patches.largest + curvature * patches.largest**2
    taken = min(settings.size, 2 * height - 1) * min(settings.size, 2 * width - 1) * channels
    few = len(patches.images) * LANES * len(x) * (height * width) ** (2 if settings.anywhere else 1) < FLOAT32_FROM
    exact = (taken * reach > LARGEST_SCORE) | few | (not settings.anywhere)
    for wide, own in {(bool(wide), int(own)) for wide, own in zip(exact, label, strict=True)}:
        (rows,) = np.nonzero((exact == wide) & (label == own))
        dtype = np.float64 if wide else np.float32
        scaled = np.log2(np.e) * rate[rows, None, None, None] * x[rows]
        queries = (
            np.ascontiguousarray(scaled.reshape(len(rows), height * width, channels).transpose(0, 2, 1), dtype),
            (np.log2(np.e) * curvature[rows]).astype(dtype),
        )
        means = _means(patches, np.arange(*patches.classes[own].indices(len(patches.images))), queries, settings)
        found[rows] = means.transpose(0, 2, 1).reshape(len(rows), *x.shape[1:])
    return found


def _means(
    patches: PatchSet, chunks: Int[np.ndarray, " K"], queries: tuple[Any, Any], settings: PatchSettings
) -> Float[np.ndarray, "B C P"]:
    """The means of queries of one class, by all cores."""
    boxes = boxes_of(patches.shape, settings)
    dtype = queries[0].dtype
    bias = np.where(np.arange(LANES) < patches.filled[:, None], 0, EXCLUDED).astype(dtype)
    pairs = len(queries[0]) * LANES * int(np.prod([(part[:, 2] - part[:, 1]).sum() for part in (boxes.rows, boxes.columns)]))
    step = max(1, PAIRS_AT_ONCE // pairs)

    def work(core: int) -> tuple[Any, ...]:
        own = chunks[core :: cores()]
        room, totals = room_of(patches.shape, settings, dtype), _totals(queries[0])
        for start in range(0, len(own), step):
            add_images(patches.images, bias, own[start : start + step], queries, boxes, room, totals)
        return totals

    every = on_every_core(work)
    highest = np.max([peaks for peaks, _, _ in every], axis=0)
    shares = [np.exp2(peaks - highest) for peaks, _, _ in every]
    weights = sum(share * one for share, (_, one, _) in zip(shares, every, strict=True))
    means = sum(share[:, None] * one for share, (_, _, one) in zip(shares, every, strict=True))
    return np.asarray(means / np.asarray(weights)[:, None])


def _totals(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    b, channels, places = x.shape
    return np.full((b, places), -np.inf), np.zeros((b, places)), np.zeros((b, channels, places))


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
