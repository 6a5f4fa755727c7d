"""A sketch of a data set: what bounds all scores from above by one small matrix product, and what pins any of them by one product of bytes.

A score is what is wanted of a sample y for a query: `g·(y - c) - κ ‖y - c‖² + log prior`, with `g = (α/σ²)(x - α c)` and `κ = α²/2σ²`: its
log weight but for a constant of the query. Two tables say what it can be at most, for every query, by Cauchy and Schwarz:

*Columns*, some tens of float32 for each sample: its first coordinates z in an orthonormal basis of leading directions, and of the others,
group by group, their norm:

    g·(y - c) ≤ Σ_k g_k z_k + Σ_G ‖g_G‖ ‖z_G‖

*Bytes*, one for each number: y = o + u ∘ d + left, d bytes. With `u ∘ g ≈ s b`, b of 16 bits,

    |g·(y - c) - s b·d - g·(o - c)| ≤ ‖u ∘ g - s b‖ ‖d‖ + ‖g‖ ‖left‖

Images are bytes already: of theirs nothing is left. Between the two, the coordinates that the columns have only as groups, in a byte each.
"""

import dataclasses
import functools
import itertools
import logging
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int8, Int16, Shaped

from kernels.posterior import native
from kernels.posterior.cores import on_every_core, one_thread_each, share

UNIT = 2.0**-24
"""Half of a float32's last place, relative."""
EDGES = (16, 32, 64, 96, 128, 192)
"""Where groups of coordinates begin, the leading ones first; the last group is what lies outside of the basis."""
DIRECTIONS = 256
LEVELS = (16, 32, 64)
"""How many coordinates may stand by themselves in a bound: it is finer, and costs more, the more do."""
FINE = LEVELS[-1]
BYTES = 0
"""In their place: a bound by all bytes, which is nearly the score itself, and costs most."""
SAMPLED = 2**25
"""Numbers of the data from which the directions are found."""
ROUNDS = 3
SLICE = 512
"""Coordinates are summed in float32 over so many numbers, and in float64 from there on."""
ROWS = 2048
"""Samples that a core looks at together: their scores for 128 queries are 1 MB."""
GRID = 1e-6
"""Of a byte's step: data within this of whole steps are taken to be bytes."""


class Bytes(NamedTuple):
    """Samples as bytes: origin + step ∘ digits + what is left."""

    digits: Int8[np.ndarray, "N M"]
    lengths: Float[np.ndarray, " N"]
    """At least ‖digits‖, float32."""
    left: Float[np.ndarray, " N"]
    """At least the norm of what is left, float32."""

    @classmethod
    def room(cls, n: int, m: int) -> "Bytes":
        """To be filled."""
        return cls(np.empty((n, m), np.int8), np.empty(n, np.float32), np.empty(n, np.float32))


class Bits(NamedTuple):
    """Queries for products with bytes: unit ∘ g = step bits + what is lost."""

    bits: Int16[np.ndarray, "B M"]
    step: Float[np.ndarray, " B"]
    lost: Float[np.ndarray, " B"]
    """At least the norm of what is lost."""
    length: Float[np.ndarray, " B"]
    """At least ‖g‖."""

    @classmethod
    def of(cls, g: Float[np.ndarray, "B M"], unit: Float[np.ndarray, " M"], longest: float) -> "Bits":
        """So small that int32 holds their products with bytes of norms up to `longest`."""
        b, m = g.shape
        bits = cls(np.empty((b, m), np.int16), *(np.empty(b) for _ in range(3)))
        rounding = 0.5 * m**0.5
        native.to_bits(g, unit, max((2**31 - 1) / max(longest, 1.0) - rounding, 1.0), *bits)
        return bits


class Table(NamedTuple):
    """What is looked at, sample by sample."""

    columns: Float[np.ndarray, "N C"]
    """float32: the coordinates, the leading ones last; the norm outside of the basis, log prior, ‖y - center‖²; the norms of the groups."""
    middle: Bytes
    """The coordinates that have no column."""
    whole: Bytes
    """All numbers."""
    norms: Float[np.ndarray, " N"]
    """‖y - center‖², float64."""
    prior: Float[np.ndarray, " N"]
    """float64; 0 without counts."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sketch:
    """The sketch of `N` samples on the host. `build_sketch` makes it."""

    rows: Shaped[np.ndarray, "N D"]
    """The samples, float32 or uint8."""
    center: Float[np.ndarray, " D"]
    """Their mean, float64: scores are about it."""
    basis: Float[np.ndarray, "D K"]
    """Orthonormal, float32, the leading directions first."""
    groups: tuple[tuple[int, int], ...]
    """Coordinates from and to, of each group."""
    table: Table
    origin: Float[np.ndarray, " D"]
    step: Float[np.ndarray, " D"]
    """Of the bytes of all numbers; ..."""
    middle_step: Float[np.ndarray, " M"]
    """... of those of coordinates, whose origin is 0."""
    index: Int[np.ndarray, " N"]
    """The caller's index of each row."""
    classes: dict[int, slice]
    """The rows of each class; none for data without labels."""

    @property
    def n(self) -> int:
        return self.rows.shape[0]

    @property
    def d(self) -> int:
        return self.rows.shape[1]

    @property
    def square_norms(self) -> Float[np.ndarray, " N"]:
        return self.table.norms

    @property
    def log_prior(self) -> Float[np.ndarray, " N"]:
        return self.table.prior

    @functools.cached_property
    def mean_square(self) -> float:
        """Mean of ‖y - center‖²."""
        return float(self.square_norms.mean())

    @functools.cached_property
    def radius(self) -> float:
        """max ‖y - center‖."""
        return float(np.sqrt(self.square_norms.max()))

    @functools.cached_property
    def longest(self) -> tuple[float, float]:
        """Of the bytes of all numbers, the largest norm, and the largest of what is left."""
        return float(self.table.whole.lengths.max()), float(self.table.whole.left.max())

    @functools.cached_property
    def longest_middle(self) -> float:
        """The largest norm of the bytes of coordinates."""
        return float(self.table.middle.lengths.max())

    @functools.cached_property
    def largest_prior(self) -> float:
        """max |log prior| of the samples that count."""
        return float(np.abs(self.log_prior[self.log_prior > -1e29]).max(initial=0.0))

    @property
    def rounding(self) -> float:
        """‖coordinates - exact ones‖ at most, of a vector of length 1."""
        return rounding_of(self.d, self.basis.shape[1])

    def part(self, label: int) -> slice:
        """The rows of a class; -1: all."""
        return slice(0, self.n) if label < 0 else self.classes[label]


class Aim(NamedTuple):
    """Queries as a sketch reads them."""

    g: Float[np.ndarray, "B D"]
    kappa: Float[np.ndarray, " B"]
    constant: Float[np.ndarray, " B"]
    """What a log weight `-‖x - α y‖² / 2σ² + log prior` has beside the score."""
    coordinates: Float[np.ndarray, "B K"]
    columns: Float[np.ndarray, "B C"]
    """float32: what the columns but the groups are multiplied by, ..."""
    groups: Float[np.ndarray, "B G"]
    """... and the groups that have no coordinate among them."""
    middle: Bits
    whole: Bits
    offset: Float[np.ndarray, " B"]
    """g·(o - c)."""
    slack: Float[np.ndarray, " B"]
    """What float32 may take from a bound by columns, ..."""
    slack_of_bytes: Float[np.ndarray, " B"]
    """... float64 from a score by bytes, ..."""
    slack_of_products: Float[np.ndarray, " B"]
    """... and float32 from that."""

    @classmethod
    def at(cls, sketch: Sketch, x: Float[np.ndarray, "B D"], alpha: Float[np.ndarray, " B"], sigma: Float[np.ndarray, " B"]) -> "Aim":
        """Of noisy queries x = α y + σ noise, float64."""
        g, squares, offset = np.empty_like(x), np.empty(len(x)), np.empty(len(x))
        away = sketch.origin - sketch.center
        native.directions(x, alpha, sigma, sketch.center, away, g, squares, offset)
        kappa, constant, z = alpha**2 / (2 * sigma**2), -squares / (2 * sigma**2), _coordinates(g, sketch.basis)
        whole = Bits.of(g, sketch.step, sketch.longest[0])
        middle = Bits.of(np.ascontiguousarray(z[:, FINE:]), sketch.middle_step, sketch.longest_middle)
        length, radius = whole.length, sketch.radius
        outside = np.sqrt(np.maximum(length**2 - np.sum(z**2, axis=1), 0) + 3 * sketch.rounding * length**2)
        columns = np.stack([*z[:, :FINE].T[::-1], outside, np.ones_like(kappa), -kappa], axis=1).astype(np.float32)
        size = 3 * length * radius + kappa * radius**2 + sketch.largest_prior
        slack = 2 * sketch.rounding * length * radius + (sketch.table.columns.shape[1] + 8) * UNIT * size
        distance = float(np.linalg.norm(away))
        of_bytes = 1e-13 * (size + length * distance)
        of_products = 8 * UNIT * (length * (radius + 2 * distance) + kappa * radius**2 + sketch.largest_prior)
        groups = _of_groups(sketch, z, FINE).astype(np.float32)
        return cls(g, kappa, constant, z, columns, groups, middle, whole, offset, slack, of_bytes, of_products)

    def widest(self, sketch: Sketch) -> Float[np.ndarray, " B"]:
        """How far from what its bytes say of it a score may lie, at most."""
        length, left = sketch.longest
        return self.whole.lost * length + self.whole.length * left + self.slack_of_bytes

    def coefficients(self, sketch: Sketch, coordinates: int, *, bound: bool) -> Float[np.ndarray, "B columns"]:
        """By which the last of the columns, with so many coordinates, become bounds of the scores; or estimates, without the groups and
        what is outside."""
        own = self.columns[:, max(self.columns.shape[1] - 3 - coordinates, 0) :].copy()
        if not bound:
            own[:, -3] = 0
        of_groups = _of_groups(sketch, self.coordinates, coordinates if bound else sketch.d)
        return np.concatenate([own, of_groups], axis=1, dtype=np.float32, casting="same_kind")


def _of_groups(sketch: Sketch, z: Float[np.ndarray, "B K"], first: int) -> Float[np.ndarray, "B G"]:
    """The norms of the groups from coordinate `first` on; of others 0."""
    return _norms(z, sketch.groups) * [*(a >= first for a, _ in sketch.groups), *[0] * (native.GROUPS - len(sketch.groups))]


def _norms(z: Float[np.ndarray, "m K"], groups: tuple[tuple[int, int], ...]) -> Float[np.ndarray, "m G"]:
    """Of the coordinates of each group; 0 where there is room for more groups."""
    found = np.zeros((len(z), native.GROUPS))
    for g, (a, b) in enumerate(groups):
        found[:, g] = np.sqrt(np.einsum("mk,mk->m", z[:, a:b], z[:, a:b]))
    return found


def rounding_of(d: int, k: int) -> float:
    """‖z - exact‖ of k coordinates by `_coordinates` of a vector of d numbers and length 1: the worst that float32 can do."""
    return float(np.sqrt(k)) * (min(d, SLICE) + 3) * UNIT


def _coordinates(v: Float[np.ndarray, "m D"], basis: Float[np.ndarray, "D K"]) -> Float[np.ndarray, "m K"]:
    """In float32, slice by slice, summed in float64."""
    found = np.zeros((len(v), basis.shape[1]))
    for start in range(0, len(basis), SLICE):
        found += v[:, start : start + SLICE].astype(np.float32) @ basis[start : start + SLICE]
    return found


def build_sketch(
    rows: Shaped[np.ndarray, "N D"],
    *,
    log_prior: Float[np.ndarray, " N"] | None = None,
    labels: Int[np.ndarray, " N"] | None = None,
    index: Int[np.ndarray, " N"] | None = None,
) -> Sketch:
    """The sketch of a data set: two passes over it, and a few over a part.

    Memory: a byte for each number, and some 75 float32 and 192 bytes for each sample; other dtypes than float32 and uint8 are copied to
    float32.

    Args:
      rows: sorted by class where there are labels.
    """
    started = time.perf_counter()
    if rows.dtype not in (np.float32, np.uint8):
        rows = rows.astype(np.float32)
    n, d = rows.shape
    center, origin, step = _center_and_bytes(rows)
    basis, seen = leading_directions(rows, center)
    middle_step = np.maximum(np.abs(seen[:, FINE:]).max(axis=0, initial=0) / 100, 1e-30)  # what is beyond is left
    edges = [*(edge for edge in EDGES if LEVELS[0] <= edge < basis.shape[1]), basis.shape[1]]
    groups = tuple(itertools.pairwise(edges))
    fine, most = min(FINE, basis.shape[1]), 3 * rounding_of(d, basis.shape[1])
    table = Table(
        columns=np.empty((n, fine + 3 + native.GROUPS), np.float32),
        middle=Bytes.room(n, basis.shape[1] - fine),
        whole=Bytes.room(n, d),
        norms=np.empty(n),
        prior=np.zeros(n) if log_prior is None else np.maximum(log_prior, -1e30),
    )

    def work(core: int) -> None:
        for a, b in _some_rows(*share(n, core), d):
            native.to_bytes(rows[a:b], origin, step, *(v[a:b] for v in table.whole))
            y = rows[a:b] - center
            z = _coordinates(y, basis)
            native.to_bytes(np.ascontiguousarray(z[:, fine:]), np.zeros(len(middle_step)), middle_step, *(v[a:b] for v in table.middle))
            norms = table.norms[a:b] = np.einsum("ni,ni->n", y, y)
            outside = np.sqrt(np.maximum(norms - np.sum(z**2, axis=1), 0) + most * norms)
            table.columns[a:b] = np.stack([*z[:, :fine].T[::-1], outside, table.prior[a:b], norms, *_norms(z, groups).T], axis=1)

    with one_thread_each():
        on_every_core(work)
    logging.getLogger(__name__).info("sketched %d samples of %d numbers in %.1f s", n, d, time.perf_counter() - started)
    return Sketch(
        rows=rows,
        center=center,
        basis=basis,
        groups=groups,
        table=table,
        origin=origin,
        step=step,
        middle_step=middle_step,
        index=np.arange(n, dtype=np.int32) if index is None else index,
        classes={} if labels is None else _classes(labels),
    )


def leading_directions(rows: Shaped[np.ndarray, "N D"], center: Float[np.ndarray, " D"]) -> tuple[np.ndarray, np.ndarray]:
    """An orthonormal basis `[D, K]` of about the leading principal directions, and the coordinates of a part of the samples, on which it
    was found by a few rounds of subspace iteration.

    Source: Halko, Martinsson and Tropp, "Finding structure with randomness" (2011), algorithm 4.4.
    """
    n, d = rows.shape
    k = min(DIRECTIONS, d, n)
    some = (rows[:: max(1, n * d // SAMPLED)] - center).astype(np.float32)
    if k == d:
        basis = np.eye(d)
    else:
        basis = np.random.default_rng(0).standard_normal((d, k))
        for _ in range(ROUNDS):
            basis = _orthonormal((some.T @ (some @ basis.astype(np.float32))).astype(np.float64))
    seen = some @ basis.astype(np.float32)
    turn = np.linalg.eigh((seen.T @ seen).astype(np.float64))[1][:, ::-1]
    return (basis @ turn).astype(np.float32), seen @ turn


def _orthonormal(columns: Float[np.ndarray, "D K"]) -> Float[np.ndarray, "D k"]:
    """A basis of what the columns span, but for what is below rounding; twice, since once leaves the rounding of their condition."""
    for _ in range(2):
        size, turn = np.linalg.eigh(columns.T @ columns)
        if size[-1] <= 0:
            return np.eye(len(columns), 1)
        kept = size > 1e-12 * size[-1]
        columns = columns @ (turn[:, kept] / np.sqrt(size[kept]))
    return columns


def _center_and_bytes(rows: Shaped[np.ndarray, "N D"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean, and origin and step of the bytes: one of all numbers where that says all, as it does of images, or of each coordinate."""
    d = rows.shape[1]

    def work(core: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        total, low, high = np.zeros(d), np.full(d, np.inf), np.full(d, -np.inf)
        for a, b in _some_rows(*share(len(rows), core), d):
            total += rows[a:b].sum(axis=0, dtype=np.float64)
            low, high = np.minimum(low, rows[a:b].min(axis=0)), np.maximum(high, rows[a:b].max(axis=0))
        return total, low, high

    every = on_every_core(work)
    center: np.ndarray = np.sum([one[0] for one in every], axis=0) / len(rows)
    low, high = np.min([one[1] for one in every], axis=0), np.max([one[2] for one in every], axis=0)
    step = (high.max() - low.min()) / 255 or 1.0
    some = (rows[:: max(1, len(rows) // 256)].astype(np.float64) - low.min()) / step
    if np.abs(some - np.rint(some)).max() <= max(GRID, 2 * UNIT * max(np.abs(low).max(), np.abs(high).max()) / step):
        return center, np.full(d, low.min() + 128 * step), np.full(d, step)
    steps = np.where(high > low, (high - low) / 255, 1.0)
    return center, np.where(high > low, low + 128 * steps, low), steps


def _classes(labels: Int[np.ndarray, " N"]) -> dict[int, slice]:
    known, first = np.unique(labels, return_index=True)
    ends = [*first[1:], len(labels)]
    return {int(label): slice(int(a), int(b)) for label, a, b in zip(known, first, ends, strict=True)}


def _some_rows(start: int, stop: int, d: int) -> Iterator[tuple[int, int]]:
    step = max(1, 2**20 // d)
    for a in range(start, stop, step):
        yield a, min(a + step, stop)
