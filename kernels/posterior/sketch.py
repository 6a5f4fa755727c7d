"""A sketch of a data set: its numbers in one signed byte each, and the same in more bytes where that is asked for.

Products of bytes add up in int32 without any rounding, and today's CPUs multiply bytes ten to twenty times as fast as floats. With y
rounded to ŷ = o + s d, d bytes, and the query's direction g to g̃ = r b, what the rounding may hide of a score is known by Cauchy and
Schwarz, for every query and sample:

    g·(y - c) = r s b·d + g̃·(o - c) + (g - g̃)·(ŷ - c) + g·(y - ŷ) ≤ r s b·d + g̃·(o - c) + ‖g - g̃‖ ‖ŷ - c‖ + ‖g‖ ‖y - ŷ‖

Images are bytes already: of theirs nothing is hidden but the query's part.
"""

import dataclasses
import functools
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int8, Int32, Shaped

from kernels.posterior import native

BASE = 254
"""Each byte after the first has so many times the resolution of the one before: what rounding leaves, ±1/2, becomes ±127."""
MOST_BYTES = 3
FINE_ENOUGH = 2.0**-23
"""More bytes are of no use where those there are within this share of the data's range: float32 holds no more."""
KEPT_SHAPES = 8
"""Of products whose memory is kept."""
BLOCK, STEP, SMALL_STEP = 16_384, 512, 32
"""Rows of a block at most, and what their number is a multiple of (small blocks: the second), so that few programs are compiled. The
int32 scores of a block and 128 queries are 8 MB; half as many made more calls than they saved time."""


class Block(NamedTuple):
    """Samples `start` to `stop`, as bytes."""

    start: int
    stop: int
    digits: tuple[Int8[Array, "L D"], ...]
    """The first bytes, the second, ...; rows past `stop - start` are 0."""


class Direction(NamedTuple):
    """Queries as bytes. A score `g·(y - c) - κ ‖y - c‖²`, with g = (α/σ²)(x - α c) and κ = α²/2σ², is the log weight
    `-‖x - α y‖² / 2σ²` but for a constant of the query."""

    digits: Int8[np.ndarray, "B count D"]
    """g̃ = unit Σ_k digits_k / BASE^k."""
    unit: Float[np.ndarray, " B"]
    length: Float[np.ndarray, " B"]
    """‖g‖."""
    lost: Float[np.ndarray, " B"]
    """‖g - g̃‖."""
    curvature: Float[np.ndarray, " B"]
    """κ."""
    shift: Float[np.ndarray, " B"]
    """What a log weight has beside `unit sketch.unit (digits · digits) - κ ‖y - c‖²`, and what the bytes lack."""

    @classmethod
    def of(
        cls, sketch: "Sketch", x: Float[np.ndarray, "B D"], alpha: Float[np.ndarray, " B"], sigma: Float[np.ndarray, " B"], count: int
    ) -> "Direction":
        """Of noisy queries x = α y + σ noise, float64; their bytes so small that int32 adds up products with other bytes."""
        g, largest = np.empty_like(x), np.empty(len(x))
        squares = native.directions(x, alpha, sigma, sketch.center, g, largest)
        length, whole = np.sqrt(np.einsum("qi,qi->q", g, g)), g @ (sketch.origin - sketch.center)
        unit = np.where(largest > 0, largest, 1) / min(127, (2**31 - 1) // (128 * sketch.d))
        digits = np.empty((len(x), count, sketch.d), np.int8)
        native.to_bytes(g, unit, BASE, digits)  # leaves the rest in g
        lost = np.sqrt(np.einsum("qi,qi->q", g, g))
        whole -= g @ (sketch.origin - sketch.center)
        return cls(digits, unit, length, lost, alpha**2 / (2 * sigma**2), whole - squares / (2 * sigma**2))


@dataclasses.dataclass(frozen=True, eq=False)
class Sketch:
    """The sketch of `N` samples on the host. `build_sketch` makes it."""

    rows: Shaped[np.ndarray, "N D"]
    """The samples, float32 or uint8."""
    center: Float[np.ndarray, " D"]
    """Their mean, float64: scores are about it."""
    origin: float
    unit: float
    """A sample is `origin + unit (d_0 + d_1 / BASE + ...)`."""
    blocks: tuple[Block, ...]
    """In the order of the rows; no block holds samples of two classes."""
    square_norms: Float[np.ndarray, " N"]
    """‖y - center‖², float64."""
    lengths: Float[np.ndarray, " N"]
    """At least ‖ŷ - center‖, float32; ŷ: of the first byte."""
    hidden: Float[np.ndarray, " N"]
    """At least ‖y - ŷ‖, float32."""
    rest: float
    """max |y - ŷ|."""
    reach: float
    """max ‖ŷ - origin‖."""
    log_prior: Float[np.ndarray, " N"]
    """float64; 0 without counts."""
    index: Int[np.ndarray, " N"]
    """The caller's index of each row."""
    classes: dict[int, slice]
    """The rows of each class; none for data without labels."""
    norms32: Float[np.ndarray, " N"] = dataclasses.field(init=False)
    prior32: Float[np.ndarray, " N"] = dataclasses.field(init=False)
    """`square_norms` and `log_prior`, rounded to float32."""
    _columns: dict[int, Array] = dataclasses.field(default_factory=dict, repr=False)
    _fine: list[tuple[Block, ...]] = dataclasses.field(default_factory=list, repr=False)
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "norms32", self.square_norms.astype(np.float32))
        object.__setattr__(self, "prior32", self.log_prior.astype(np.float32))

    @property
    def n(self) -> int:
        return self.rows.shape[0]

    @property
    def d(self) -> int:
        return self.rows.shape[1]

    @functools.cached_property
    def radius(self) -> float:
        """max ‖y - center‖."""
        return float(np.sqrt(self.square_norms.max()))

    @functools.cached_property
    def largest_prior(self) -> float:
        """max |log prior| of the samples that count."""
        return float(np.abs(self.log_prior[self.log_prior > -1e29]).max(initial=0.0))

    def part(self, label: int) -> slice:
        """The rows of a class; -1: all."""
        return slice(0, self.n) if label < 0 else self.classes[label]

    def blocks_of(self, part: slice) -> tuple[Block, ...]:
        """The blocks of a part."""
        return tuple(block for block in self.blocks if part.start <= block.start < part.stop)

    def fine_blocks_of(self, part: slice) -> tuple[Block, ...]:
        """The same in as many bytes as the data need, three at most; made at the first call."""
        with self._lock:
            if not self._fine:
                self._fine.append(tuple(self._finer(block) for block in self.blocks))
        return tuple(block for block in self._fine[0] if part.start <= block.start < part.stop)

    def columns_of(self, block: Block) -> Array:
        """The first bytes of a block as `[D, L]` bfloat16, which holds them exactly; made at the first call."""
        with self._lock:
            if block.start not in self._columns:
                self._columns[block.start] = jnp.asarray(np.ascontiguousarray(np.asarray(block.digits[0]).T)).astype(jnp.bfloat16)
            return self._columns[block.start]

    @functools.cached_property
    def typical(self) -> float:
        """Root mean square of ‖y - center‖."""
        return float(np.sqrt(self.square_norms.mean()))

    @property
    def bytes_needed(self) -> int:
        """How many bytes a number of the data takes to be as exact as in float32."""
        hidden, count = self.rest / (255 * self.unit), 1
        while hidden > FINE_ENOUGH and count < MOST_BYTES:
            hidden, count = hidden / BASE, count + 1
        return count

    def _finer(self, block: Block) -> Block:
        if self.bytes_needed == 1:
            return block
        y = (self.rows[block.start : block.stop].astype(np.float64) - self.origin) / self.unit
        more = in_bytes(y, self.bytes_needed)[0][1:]
        return block._replace(digits=(*block.digits, *(_padded(digits, len(block.digits[0])) for digits in more)))


def in_bytes(v: Float[np.ndarray, "m D"], count: int) -> tuple[tuple[Int8[np.ndarray, "m D"], ...], Float[np.ndarray, "m D"]]:
    """`v`, within ±127.5, as Σ_k bytes_k / BASE^k, and what is left of it."""
    digits, scale = [], 1.0
    for _ in range(count):
        digit = np.rint(v * scale)
        digits.append(digit.astype(np.int8))
        v = v - digit / scale
        scale *= BASE
    return tuple(digits), v


class Products(threading.local):
    """Products of bytes, into memory that each thread keeps: fresh pages cost more than the product that fills them."""

    def __init__(self) -> None:
        self._free: dict[tuple[int, int], list[Array]] = {}

    def of(self, digits: Int8[Array, "L D"], queries: Int8[np.ndarray, "D B"]) -> Int32[Array, "L B"]:
        """Exact: int32 adds them up. To be given back once it is used up."""
        shape = digits.shape[0], queries.shape[1]
        free = self._free.setdefault(shape, [])
        return _product(digits, queries, free.pop() if free else jnp.zeros(shape, jnp.int32)).block_until_ready()

    def give_back(self, products: list[Array]) -> None:
        """Take their memory for later ones; a little is kept, and of the latest shapes."""
        for one in products:
            self._free.setdefault((one.shape[0], one.shape[1]), []).append(one)
        while len(self._free) > KEPT_SHAPES:
            self._free.pop(next(iter(self._free)))


PRODUCTS = Products()


@functools.partial(jax.jit, donate_argnums=2, keep_unused=True)
def _product(digits: Int8[Array, "L D"], queries: Int8[Array, "D B"], memory: Int32[Array, "L B"]) -> Int32[Array, "L B"]:
    """In this orientation XLA hands it to a library that knows the byte instructions of the CPU (jax 0.10 and 0.12)."""
    return jnp.dot(digits, queries, preferred_element_type=jnp.int32)


def build_sketch(
    rows: Shaped[np.ndarray, "N D"],
    *,
    log_prior: Float[np.ndarray, " N"] | None = None,
    labels: Int[np.ndarray, " N"] | None = None,
    index: Int[np.ndarray, " N"] | None = None,
) -> Sketch:
    """The sketch of a data set: one pass over it.

    Memory: a byte for each number (two or three more once a dense pass has asked for them); other dtypes than float32 and uint8 are
    copied to float32.

    Args:
      rows: sorted by class where there are labels.
    """
    started = time.perf_counter()
    if rows.dtype not in (np.float32, np.uint8):
        rows = rows.astype(np.float32)
    n, d = rows.shape
    center = rows.mean(axis=0, dtype=np.float64)
    low, high = float(rows.min()), float(rows.max())
    unit = (high - low) / 255 if high > low else 1.0
    origin = low + 128 * unit
    classes = {} if labels is None else _classes(labels)
    square_norms, lengths, hidden = np.empty(n), np.empty(n, np.float32), np.empty(n, np.float32)
    blocks, rest, reach = [], 0.0, 0.0
    for start, stop, length in _cuts(classes.values() or [slice(0, n)]):
        first = []
        for a, b in _some_rows(start, stop, d):
            y = rows[a:b].astype(np.float64)
            square_norms[a:b] = np.sum((y - center) ** 2, axis=1)
            (digits,), left = in_bytes((y - origin) / unit, 1)
            left *= unit
            lengths[a:b] = 1.000001 * np.sqrt(np.sum((y - left - center) ** 2, axis=1))
            hidden[a:b] = 1.000001 * np.sqrt(np.sum(left**2, axis=1))
            rest = max(rest, float(np.abs(left).max()))
            reach = max(reach, unit * float(np.sqrt(np.sum(digits.astype(np.float64) ** 2, axis=1).max())))
            first.append(digits)
        blocks.append(Block(start, stop, (_padded(np.concatenate(first), length),)))
    logging.getLogger(__name__).info("sketched %d samples of %d numbers in %.1f s", n, d, time.perf_counter() - started)
    return Sketch(
        rows=rows,
        center=center,
        origin=origin,
        unit=unit,
        blocks=tuple(blocks),
        square_norms=square_norms,
        lengths=lengths,
        hidden=hidden,
        rest=rest,
        reach=reach,
        log_prior=np.zeros(n) if log_prior is None else np.maximum(log_prior, -1e30),
        index=np.arange(n, dtype=np.int32) if index is None else index,
        classes=classes,
    )


def _classes(labels: Int[np.ndarray, " N"]) -> dict[int, slice]:
    known, first = np.unique(labels, return_index=True)
    ends = [*first[1:], len(labels)]
    return {int(label): slice(int(a), int(b)) for label, a, b in zip(known, first, ends, strict=True)}


def _cuts(parts: Iterable[slice]) -> Iterator[tuple[int, int, int]]:
    """Start, stop and padded length of each block: those of a part about equally long."""
    for part in parts:
        n = part.stop - part.start
        few = -(-n // BLOCK)
        step = STEP if n >= STEP else SMALL_STEP
        length = -(-n // (few * step)) * step
        for start in range(part.start, part.stop, length):
            yield start, min(start + length, part.stop), length


def _some_rows(start: int, stop: int, d: int) -> Iterator[tuple[int, int]]:
    step = max(1, 2**20 // d)
    for a in range(start, stop, step):
        yield a, min(a + step, stop)


def _padded(digits: Int8[np.ndarray, "m D"], length: int) -> Int8[Array, "L D"]:
    return jnp.asarray(np.pad(digits, ((0, length - len(digits)), (0, 0))))
