"""A data set that stays in its source, such as a file, and is read in chunks by a thread of its own, within a memory budget."""

import contextlib
import ctypes
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Num

from kernels.float64 import float64_scope, to32, to64
from kernels.posterior.partial import CANDIDATES
from kernels.posterior.settings import BlockSizes, default_block_sizes
from kernels.posterior.types import SHIFTED_FROM, Samples, unit_of

CHUNK_BYTES = 2**24
"""Bytes of one buffer at most: so many that the start of a program on it costs little, so few that reading the first one does too."""
PROBED = 4096
"""Rows, evenly spread, whose mean is the centre. Any point near the data may be the centre, so that not all rows need be read."""
SCATTERED = 4
"""Rows of a class are read alone where they are at most one in so many; else all rows are read, in order."""


@runtime_checkable
class Source(Protocol):
    """`N` rows that are read some at a time.

    Attributes:
      shape: (N, D).
      dtype: of the rows as read: float32, bfloat16 or uint8.
    """

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def read(self, index: Int[np.ndarray, " M"], out: Num[np.ndarray, "M D"], /) -> None:
        """Write the rows `index`, ascending and without repeats, to `out`. Called from one thread at a time."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How a memory budget is spent, in rows that are in memory at a time."""

    chunk: int
    """Samples in a buffer; there are two, and the device may have copies."""
    blocks: BlockSizes
    queries: int
    """Queries in one pass over the data; more than that read it again."""
    refined: int
    """Queries whose candidates are in memory together."""

    @classmethod
    def within(cls, budget: int, n: int, d: int, itemsize: int) -> "Sizes":
        """The sizes that keep a call below `budget` bytes, of which norms, labels and the order of rows take up to 20 a sample.

        Raises:
          ValueError: a budget that is too small for anything.
        """
        block, free = default_block_sizes("streaming"), budget - 20 * n
        least = 2**20 + 64 * 8 * d * 16
        if free < least:
            raise ValueError(f"budget={budget:,} bytes is too small for {n:,} samples of {d:,} numbers: give at least {20 * n + least:,}")
        # Shares of what is free, the compiler taking some too: two buffers and two copies of them, 1/4; a block in float64, thrice, 3/16;
        # queries and candidates, 1/8 each.
        samples = max(1, min(block.samples, n, free // (16 * 8 * d)))
        at_once = max(1, min(CHUNK_BYTES, free // 16) // (samples * d * itemsize))
        chunks = -(-n // (samples * at_once))
        samples = -(-n // (chunks * at_once))  # as many rows in each chunk, or nearly
        return cls(
            chunk=samples * at_once,
            blocks=BlockSizes(samples=samples, queries=block.queries),
            queries=max(1, free // (8 * 8 * 10 * d)),  # ten numbers for each of x
            refined=max(1, min(free // 8, 2**26) // (8 * 4 * CANDIDATES * d)),
        )


@dataclasses.dataclass(frozen=True)
class InUnit:
    """A source of floating-point rows, divided by a power of two as they are read."""

    source: Source
    unit: float

    @property
    def shape(self) -> tuple[int, int]:
        return self.source.shape

    @property
    def dtype(self) -> np.dtype:
        return self.source.dtype

    def read(self, index: Int[np.ndarray, " M"], out: Num[np.ndarray, "M D"], /) -> None:
        """As `Source.read`."""
        self.source.read(index, out)
        np.multiply(out, np.asarray(1 / self.unit, out.dtype), out=out)


class Chunk(NamedTuple):
    """Some rows, on the device; those past the end never count."""

    samples: Samples
    """Its `index` is that of the rows in the source."""
    rows: Int[np.ndarray, " n"]
    """The index of the rows in the source, on the host, without those past the end."""


@dataclasses.dataclass(frozen=True, eq=False)
class Chunks:
    """A prepared source: what `Samples` is for data in memory, without the rows."""

    source: Source
    sizes: Sizes
    center: Float[Array, " D"]
    square_norms: Float[np.ndarray, " N"]
    labels: Int[np.ndarray, " N"] | None
    largest: Float[Array, ""]
    shifted: bool
    unit: Float[Array, ""] | None = None
    """As `Samples.unit`: `source` gives rows in this unit."""

    @property
    def n(self) -> int:
        return self.source.shape[0]

    @property
    def d(self) -> int:
        return self.source.shape[1]

    def samples(self, values: ArrayLike, index: ArrayLike, square_norms: ArrayLike | None = None, **more: Any) -> Samples:
        """`values`, rows of the source, as samples about the centre of all."""
        values = jnp.asarray(values)
        norms = jnp.zeros(values.shape[0], jnp.float32) if square_norms is None else jnp.asarray(square_norms)
        more = {"log_prior": None, "labels": None, "unit": self.unit} | more
        return Samples(values, self.center, norms, largest=self.largest, shifted=self.shifted, index=jnp.asarray(index), **more)

    def rows(self, index: Int[np.ndarray, " M"]) -> Num[np.ndarray, "M D"]:
        """Any rows, in any order."""
        unique, inverse = np.unique(index, return_inverse=True)
        out = np.empty((len(unique), self.d), self.source.dtype)
        self.source.read(unique, out)
        return out[inverse]

    def of_labels(self, label: Int[np.ndarray, " B"]) -> Iterator[Chunk]:
        """The chunks that queries of these labels need, in the order of the source. A chunk is valid until the next is requested."""
        if self.labels is None or (label == -1).all():
            return self._read(np.arange(self.n), with_labels=False)
        mine = np.arange(self.n) if (label == -1).any() else np.flatnonzero(np.isin(self.labels, label))
        return self._read(mine if SCATTERED * len(mine) <= self.n else np.arange(self.n), with_labels=True)

    def _read(self, index: Int[np.ndarray, " M"], with_labels: bool) -> Iterator[Chunk]:
        def chunk(part: np.ndarray, values: Array) -> Chunk:
            def padded(v: np.ndarray, fill: float | int) -> np.ndarray:
                return np.concatenate([v, np.full(len(values) - len(part), fill, v.dtype)])

            labels = {"labels": jnp.asarray(padded(self.labels[part], 0))} if with_labels and self.labels is not None else {}
            log_prior = jnp.asarray(padded(np.zeros(len(part), np.float32), -np.inf))
            where, norms = padded(part.astype(np.int32), 0), padded(self.square_norms[part], 0)
            return Chunk(self.samples(values, where, norms, log_prior=log_prior, **labels), part)

        return (chunk(*read) for read in read_ahead(self.source, index, self.sizes.chunk))


def _on_device(buffer: np.ndarray) -> Any:
    return jax.device_put(buffer, may_alias=True)


def read_ahead(
    source: Source, index: Int[np.ndarray, " M"], size: int, place: Callable[[np.ndarray], Any] = _on_device
) -> Iterator[tuple[np.ndarray, Any]]:
    """`size` rows at a time: their indices, and their values on the device (or where `place` puts them), zeros where there are fewer.

    There are two buffers: while the caller computes on one, a thread fills the other. On a CPU the device reads the buffer itself, so the
    caller must be done with a chunk before it takes the next.
    """
    starts = range(0, len(index), size)
    buffers = [aligned((size, source.shape[1]), source.dtype) for _ in starts[:2]]

    def fill(k: int) -> tuple[np.ndarray, Any]:
        part, buffer = index[starts[k] : starts[k] + size], buffers[k % 2]
        source.read(part, buffer[: len(part)])
        buffer[len(part) :] = 0
        return part, place(buffer)

    with ThreadPoolExecutor(1, "read_ahead") as pool:
        ahead = [pool.submit(fill, k) for k in range(len(starts[:1]))]
        for k in range(len(starts)):
            ready = ahead.pop().result()
            if k + 1 < len(starts):
                ahead.append(pool.submit(fill, k + 1))
            yield ready


def give_back() -> None:
    """Return free memory to the system: glibc keeps the memory of a compilation, up to 200 MB."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def aligned(shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """An empty array that begins at a multiple of 64 bytes: a CPU device uses such an array without a copy."""
    size = shape[0] * shape[1] * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, np.uint8)
    first = -memory.ctypes.data % 64
    return memory[first : first + size].view(dtype).reshape(shape)


def prepare_chunks(
    source: Source,
    labels: Int[np.ndarray, " N"] | None,
    *,
    budget: int,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Chunks:
    """One pass over a source: norms about the mean of some rows, in float64.

    Args:
      labels: `[N]` int32, or None.
      budget: bytes that a call may hold beside its arguments and results.
      progress: wraps the chunks, for a progress bar.

    Raises:
      ValueError: a budget that is too small, NaN or infinity in the data, and what the source raises.
    """
    n, d = source.shape
    sizes = Sizes.within(budget, n, d, source.dtype.itemsize)
    probed = np.unique(np.linspace(0, n - 1, min(n, PROBED)).astype(np.int64))
    total, largest = np.zeros(d), 0.0
    for _, values in read_ahead(source, probed, min(sizes.chunk, len(probed))):
        of_chunk, of_largest = (np.asarray(v) for v in _total(values))
        total += of_chunk
        largest = max(largest, float(of_largest))
    unit = 1.0 if source.dtype == np.uint8 else unit_of(largest)
    if unit != 1:
        source, total = InUnit(source, unit), total / unit
    center = jnp.asarray((total / len(probed)).astype(np.float32))
    center = jnp.where(jnp.isfinite(center), center, 0)  # the pass below names the rows that are not finite
    norms, square, bad = np.empty(n, np.float32), 0.0, np.zeros(n, bool)
    chunks = read_ahead(source, np.arange(n), sizes.chunk)
    for _, (part, values) in zip(progress(range(-(-n // sizes.chunk))), chunks, strict=True):
        of_chunk, finite = (np.asarray(v)[: len(part)] for v in _norms(values, center))
        norms[part], bad[part] = of_chunk, ~finite
        square += float(of_chunk.sum(dtype=np.float64))
    if bad.any():
        raise ValueError(f"the data have NaN or infinity in {bad.sum()} of {n} samples, the first at index {bad.argmax()}")
    far = float(np.sum(np.asarray(center, np.float64) ** 2)) > SHIFTED_FROM * square / n
    give_back()
    return Chunks(source, sizes, center, norms, labels, jnp.asarray(norms.max()), far, None if unit == 1 else jnp.float32(unit))


@jax.jit
def _total(values: Num[Array, "n D"]) -> tuple[Float[Array, " D"], Float[Array, ""]]:
    """The sum of the rows, float64, and the largest of all |numbers|."""
    with float64_scope():
        rows = to64(values)
        return rows.sum(axis=0), jnp.abs(rows).max()


@jax.jit
def _norms(values: Num[Array, "n D"], center: Float[Array, " D"]) -> tuple[Float[Array, " n"], Bool[Array, " n"]]:
    with float64_scope():
        square = jnp.sum((to64(values) - to64(center)) ** 2, axis=1)
        return to32(square), jnp.isfinite(square)
