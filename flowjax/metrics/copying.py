"""Copies among generated samples: how near each comes to one training sample, beside how near unseen data come."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from flowjax.analysis.inspection import NEAR
from flowjax.analysis.statistics import Share, share
from flowjax.metrics.neighbours import NeighbourSearch

COPY_RATIO = 1 / 3
"""The literature's ratio, below which a sample is a copy of its nearest (Yoon et al. 2023; Gu et al. 2023)."""
FALSE_POSITIVES = 0.005
"""The share of unseen samples that the threshold may pass, where it is raised above a third."""
LEAST_SIDE = 14  # of a picture of means: distances of smaller ones tell images apart less well, of larger ones JPEG's errors count more
FIRST = 4
"""Neighbours that are looked for at once."""
_MORE = 8  # by how much more where all of them are near-duplicates of the nearest
_BLOCK = 2**25  # values at work at once


class Nearest(NamedTuple):
    """The nearest training sample of each sample, and the nearest that is none of its near-duplicates."""

    row: Int[np.ndarray, " B"]
    distance: Float[np.ndarray, " B"]
    second: Float[np.ndarray, " B"]
    """To the nearest training sample that is farther than `NEAR` from `row`; infinite where there is none."""
    twins: Int[np.ndarray, " B"]
    """How many near-duplicates of `row` lie nearer than that."""
    mirrored: Bool[np.ndarray, " B"]
    """Whether it is the mirror image of the sample that comes so near."""

    @property
    def ratio(self) -> Float[np.ndarray, " B"]:
        """Of the first distance to the second: 0 for a sample of the training set, about 1 for one that is like no training sample."""
        return self.distance / np.where(self.second > 0, self.second, np.inf)

    @property
    def below_a_third(self) -> Bool[np.ndarray, " B"]:
        """Whether the ratio is below `COPY_RATIO`."""
        return self.ratio < COPY_RATIO

    def part(self, which: Any) -> "Nearest":
        """Of some of the samples."""
        return Nearest(*(values[which] for values in self))


def nearest(
    search: NeighbourSearch,
    samples: Float[np.ndarray, "B D"],
    mirrored: Float[np.ndarray, "B D"] | None = None,
    *,
    own: Int[np.ndarray, " B"] | None = None,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Nearest:
    """Look samples up; where all that is near is a group of near-duplicates, as far as it takes to find what is none.

    Args:
      mirrored: the mirror image of each; whichever comes nearer counts.
      own: the row of the training set that each of them is, which does not count; -1: none.

    Raises:
      ValueError: as `NeighbourSearch`; a training set in which all samples are near-duplicates of one.
    """
    queries = samples if mirrored is None else np.concatenate([samples, mirrored])
    owns = np.tile(np.full(len(samples), -1, np.int64) if own is None else own, 1 if mirrored is None else 2)
    n = search.training.n
    found = Nearest(*(np.zeros(len(queries), kind) for kind in (np.int64, float, float, np.int64, bool)))
    left, k = np.arange(len(queries)), min(FIRST, n)
    while left.size:
        asked = queries if len(left) == len(queries) else queries[left]  # not a second copy of all of them
        near = search(asked, k, own=owns[left], progress=progress)
        apart = _apart(search, near.row)
        at = np.where(apart.any(1), apart.argmax(1), k)
        second = np.where(at < k, near.distance[np.arange(len(left)), np.minimum(at, k - 1)], np.inf)
        there = (near.row >= 0).sum(1)
        for values, part in zip(found, (near.row[:, 0], near.distance[:, 0], second, np.minimum(at, there) - 1), strict=False):
            values[left] = part
        left, k = (left[at == k], min(_MORE * k, n)) if k < n else (left[:0], k)
    if np.isinf(found.second).all():
        raise ValueError(
            f"the training set ({n:,} samples) has no two that differ: expected a second neighbour to compare the nearest with"
        )
    plain = found.part(slice(len(samples)))
    if mirrored is None:
        return plain
    other = found.part(slice(len(samples), None))._replace(mirrored=np.ones(len(samples), bool))
    nearer = other.distance < plain.distance
    return Nearest(*(np.where(nearer, two, one) for one, two in zip(plain, other, strict=True)))


def _apart(search: NeighbourSearch, row: Int[np.ndarray, "B K"]) -> Bool[np.ndarray, "B K"]:
    """Which of the neighbours are no near-duplicates of the first."""
    limit, apart = NEAR * search.mean_square, np.zeros(row.shape, bool)
    step = max(1, _BLOCK // (row.shape[1] * search.training.d))
    for start in range(0, len(row), step):
        part = row[start : start + step]
        index, place = np.unique(np.maximum(part, 0), return_inverse=True)
        values = search.training.read(index)[place.reshape(part.shape)]
        squares = ((values - values[:, :1]) ** 2).sum(2, dtype=np.float64)
        apart[start : start + step] = (squares > limit) & (part >= 0)
    return apart


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether samples are `[H, W]`, `[H, W, 1]` or `[H, W, 3]`, which can be mirrored and averaged over squares."""
    return len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))


class Pooling(NamedTuple):
    """Sides of the squares over which the values of images are averaged before they are compared; 1 for what is no image."""

    brightness: int
    colour: int

    @property
    def words(self) -> str:
        """For reports."""
        if self == (1, 1):
            return "values"
        if self.colour == self.brightness:
            return f"pixels, averaged over squares of {self.brightness}"
        return f"pixels, brightness averaged over squares of {self.brightness}, colour over squares of {self.colour}"


def pooling(shape: tuple[int, ...]) -> Pooling:
    """What copies of samples of a shape are found by.

    The squares of brightness have the largest side, a power of two, that leaves `LEAST_SIDE` values to a side; those of colour one up to
    four times as large. Averages keep what tells images apart, and lose most of what noise and JPEG do to them, which keeps less of
    colours. On Fashion-MNIST a copy in JPEG of quality 50 has a ratio up to 0.55 without, and up to 0.29 with squares of 2; on emoji of
    64 x 64 up to 0.55 with squares of 4 for all channels, and up to 0.32 with squares of 16 for colour.
    """
    side = colour = 1
    if is_image(shape):
        while min(shape[:2]) >= 2 * side * LEAST_SIDE and _divides(2 * side, shape):
            side *= 2
        colour = side
        while len(shape) == 3 and shape[2] == 3 and colour < 4 * side and _divides(2 * colour, shape):
            colour *= 2
    return Pooling(side, colour)


def _divides(side: int, shape: tuple[int, ...]) -> bool:
    return shape[0] % side == 0 and shape[1] % side == 0


def pooled(samples: Float[np.ndarray, "B *shape"], sides: Pooling) -> Float[np.ndarray, "B D"]:
    """Samples as vectors: images averaged over squares, those of three channels by brightness and colour (JPEG's Y, Cb, Cr)."""
    if sides.colour == sides.brightness:
        return _means(samples, sides.brightness)
    parts = samples @ _YCBCR
    # A square stands for as many values as it holds, in distances too.
    colour = _means(parts[..., 1:], sides.colour) * np.float32(sides.colour / sides.brightness)
    return np.concatenate([_means(parts[..., :1], sides.brightness), colour], axis=1)


_YCBCR = np.array([[0.299, -0.168736, 0.5], [0.587, -0.331264, -0.418688], [0.114, 0.5, -0.081312]], np.float32)


def _means(samples: Float[np.ndarray, "B *shape"], side: int) -> Float[np.ndarray, "B D"]:
    if side == 1:
        return np.ascontiguousarray(samples.reshape(len(samples), -1), np.float32)
    height, width = samples.shape[1:3]
    squares = samples.reshape(len(samples), height // side, side, width // side, side, -1)
    return np.ascontiguousarray(squares.mean((2, 4), dtype=np.float32).reshape(len(samples), -1))


def threshold(baseline: Float[np.ndarray, " M"]) -> float:
    """The ratio up to which a sample is called a copy.

    A third, the literature's, where that passes more of the unseen samples than `FALSE_POSITIVES`; else it is raised to the k-th least of
    their M ratios, k = max(1, ⌊`FALSE_POSITIVES` (M + 1)⌋). An unseen sample, exchangeable with those, falls there with probability
    k / (M + 1), whatever their distribution is.

    Args:
      baseline: the ratio of each of M unseen samples.

    References:
      Yoon et al. 2023; Gu et al. 2023 (a third); Vovk, Gammerman and Shafer 2005 (ranks of exchangeable scores).
    """
    rank = int(FALSE_POSITIVES * (len(baseline) + 1))
    return max(COPY_RATIO, float(np.sort(baseline)[rank - 1])) if rank else COPY_RATIO


def ranks(ratio: Float[np.ndarray, " B"], baseline: Float[np.ndarray, " M"]) -> Float[np.ndarray, " B"]:
    """How likely an unseen sample is to have so small a ratio: `(1 + #{unseen ≤ ratio}) / (M + 1)`, a p-value for each sample."""
    return (1 + np.searchsorted(np.sort(baseline), ratio, side="right")) / (len(baseline) + 1)


def excess(flagged: Bool[np.ndarray, " B"], unseen: Bool[np.ndarray, " M"]) -> Share:
    """The share π of copies, when a share of what is no copy is taken for one too: `flagged = π + (1 - π) unseen`.

    The interval is that of the difference of two shares, each with Wilson's (Newcombe's method 10), over 1 - unseen; within [0, 1].

    Args:
      flagged, unseen: which of the samples, and which of the unseen ones, the threshold passes.

    References:
      Newcombe 1998, Statistics in Medicine 17, 873; Rogan and Gladen 1978 (a prevalence behind a test that errs).
    """
    one, two = share(flagged), share(unseen)
    if two.value == 1:
        return Share(0.0, 0.0, 1.0)
    difference = one.value - two.value
    low = difference - np.hypot(one.value - one.low, two.high - two.value)
    high = difference + np.hypot(one.high - one.value, two.value - two.low)
    return Share(*(float(np.clip(end / (1 - two.value), 0, 1)) for end in (difference, low, high)))
