"""The images of a patch posterior, eight abreast: all in memory, or read from a source in chunks."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Num

from kernels.patches.box_sums import LANES
from kernels.posterior.out_of_core.source import CHUNK_BYTES, Source, read_ahead

COPIES = 8
"""Times the bytes of a chunk in float32 that reading it takes: two buffers, rows padded and abreast, and what NumPy makes on the way."""


class Abreast(NamedTuple):
    """Images as the compiled loop reads them."""

    images: Float[np.ndarray, "K C PL"]
    """Chunk of eight, channel, place and image of the chunk; float32."""
    filled: Int[np.ndarray, " K"]
    """Images in each chunk."""

    @classmethod
    def of(cls, rows: Num[np.ndarray, "N D"], shape: tuple[int, int, int]) -> "Abreast":
        """Of images of shape H, W, C, flat."""
        height, width, channels = shape
        count = -(-len(rows) // LANES)
        padded = np.zeros((count * LANES, height * width, channels), np.float32)
        padded[: len(rows)] = rows.reshape(-1, height * width, channels)
        images = np.ascontiguousarray(padded.reshape(count, LANES, -1, channels).transpose(0, 3, 2, 1)).reshape(count, channels, -1)
        filled = np.full(count, LANES, np.int64)
        filled[count - 1 :] = len(rows) - (count - 1) * LANES
        return cls(images, filled)


@runtime_checkable
class Images(Protocol):
    """The images of a posterior."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """H, W, C."""

    @property
    def n(self) -> int:
        """How many there are."""

    @property
    def largest(self) -> float:
        """max |y|."""

    @property
    def queries(self) -> int:
        """How many queries are to share a reading of the images."""

    def parts(self, label: int) -> Iterator[Abreast]:
        """The images of a class, some at a time; of -1: all; of a class without images: none."""


@dataclasses.dataclass(frozen=True)
class PatchSet:
    """Images in memory, prepared for `patch_means`."""

    abreast: Abreast
    """A chunk holds images of one class."""
    shape: tuple[int, int, int]
    """H, W, C."""
    classes: dict[int, slice]
    """The chunks of each class; of -1: all."""
    n: int
    largest: float
    """max |y|."""
    queries: int = 2**62

    @classmethod
    def of(cls, rows: Float[np.ndarray, "N D"], shape: tuple[int, int, int], classes: dict[int, slice]) -> "PatchSet":
        """The images of rows that are sorted by class.

        Args:
          shape: H, W, C of an image.
          classes: the rows of each class; of -1: all.
        """
        own = {label: part for label, part in classes.items() if label != -1} or {-1: classes[-1]}
        each = {label: Abreast.of(rows[part], shape) for label, part in own.items()}
        ends = np.cumsum([0, *(len(part.filled) for part in each.values())])
        chunks = {label: slice(int(ends[k]), int(ends[k + 1])) for k, label in enumerate(each)}
        whole = Abreast(*(np.concatenate(parts) for parts in zip(*each.values(), strict=True)))
        return cls(whole, shape, chunks | {-1: slice(0, len(whole.filled))}, len(rows), float(np.abs(rows).max()))

    def parts(self, label: int) -> Iterator[Abreast]:
        """As in `Images`: at once."""
        if label in self.classes:
            chunks = self.classes[label]
            yield Abreast(self.abreast.images[chunks], self.abreast.filled[chunks])


@dataclasses.dataclass(frozen=True, eq=False)
class PatchSource:
    """Images that stay in their source and are read in chunks, by a thread that reads the next while one is computed with."""

    source: Source
    shape: tuple[int, int, int]
    """H, W, C."""
    labels: Int[np.ndarray, " N"] | None
    largest: float
    """max |y|."""
    chunk: int
    """Images in memory at a time."""
    queries: int

    @classmethod
    def of(
        cls, source: Source, shape: tuple[int, int, int], labels: Int[np.ndarray, " N"] | None, *, budget: int, cores: int
    ) -> "PatchSource":
        """One reading of a source.

        Args:
          shape: H, W, C of an image.
          budget: bytes that a call may hold beside its arguments and results.
          cores: how many work, each with sums of its own.

        Raises:
          ValueError: a budget that is too small, NaN or infinity in the data, and what the source raises.
        """
        (n, d), places = source.shape, shape[0] * shape[1]
        query = 8 * (cores + 1) * (places * 2 + d) + 3 * 8 * d  # sums of each core, and x scaled, in and out
        free = budget - 12 * n - cores * (16 * LANES * (d + places))  # labels and the order of rows, and each core's room
        least = max(4 * COPIES * 4 * d * LANES, 4 * query)
        if free < least:
            raise ValueError(
                f"budget={budget:,} bytes is too small for {n:,} images of {d:,} numbers: give at least {budget - free + least:,}"
            )
        chunk = max(LANES, min(CHUNK_BYTES, free // (2 * COPIES)) // (4 * d) // LANES * LANES)
        chunk = min(chunk, -(-n // LANES) * LANES)
        largest = 0.0
        for part, values in read_ahead(source, np.arange(n), chunk, np.asarray):
            high = np.abs(values[: len(part)].astype(np.float32, copy=False)).max(axis=1)
            if not np.isfinite(high).all():
                raise ValueError(f"the data have NaN or infinity, first in the sample at index {part[np.isfinite(high).argmin()]}")
            largest = max(largest, float(high.max()))
        return cls(source, shape, labels, largest, chunk, free // 4 // query)

    @property
    def n(self) -> int:
        """How many there are."""
        return self.source.shape[0]

    def parts(self, label: int) -> Iterator[Abreast]:
        """As in `Images`: a chunk at a time, of the rows of this class alone."""
        wanted = np.arange(self.n) if label == -1 or self.labels is None else np.flatnonzero(self.labels == label)
        for part, values in read_ahead(self.source, wanted, self.chunk, np.asarray):
            yield Abreast.of(values[: len(part)], self.shape)
