"""The index of a data set: tables that bound the scores of many samples, or of one, from above, and that give any score by one product of
bytes.

A score is what is wanted of a sample y for a query: `g·(y - c) - κ ‖y - c‖² + log prior`, with `g = (α/σ²)(x - α c)` and `κ = α²/2σ²`: its
log weight but for a constant of the query. Three tables say what it can be at most, for every query:

*Leaves*: `LEAF` samples that lie together (`kernels.posterior.cpu.tree`), and the box in which their leading coordinates lie. In each
coordinate `g_k z - κ z²` is largest at `g_k / 2κ`, or at the side of the box that is nearest to it.

*Columns*, some tens of float32 for each sample: its first coordinates z in an orthonormal basis of leading directions, and of the others,
group by group, their norm; by Cauchy and Schwarz

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
from jaxtyping import Float, Int, Int8, Shaped

from kernels.posterior.cpu import numba_kernels
from kernels.posterior.cpu.bounds import COARSE, COLUMNS, FINE, GROUPS, LEAF
from kernels.posterior.cpu.threads import on_every_core, one_thread_each, share
from kernels.posterior.cpu.tree import leaves_of

UNIT = 2.0**-24
"""Half of a float32's last place, relative."""
EDGES = (16, 32, 64, 96, 128, 192)
"""Where groups of coordinates begin, the leading ones first; the last group is what lies outside of the basis."""
DIRECTIONS = 256
SAMPLED = 2**25
"""Numbers of the data from which the directions are found."""
ROUNDS = 3
SLICE = 512
"""Coordinates are summed in float32 over so many numbers, and in float64 from there on."""
ROWS = 2048
"""Samples that a core takes together: their scores for 128 queries are 1 MB."""
NOBODY = -1e30
"""Log prior of what does not count, or is not there."""
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


class Table(NamedTuple):
    """What is looked at, leaf by leaf; P places of samples, some of them empty."""

    low: Float[np.ndarray, "leaves C"]
    high: Float[np.ndarray, "leaves C"]
    """float32: the boxes of the leading coordinates, and of the norm of all the others."""
    likely: Float[np.ndarray, " leaves"]
    """float32: the largest log prior."""
    columns: Float[np.ndarray, "leaves C LEAF"]
    """float32: coordinates, the norm outside of the basis, log prior, ‖y - center‖², the norms of groups, as `in_columns` orders them."""
    middle: Bytes
    """The coordinates that have no column: digits `[leaves, pairs, LEAF, 2]`, two by two of all samples of a leaf."""
    whole: Bytes
    """All numbers."""
    norms: Float[np.ndarray, " P"]
    """‖y - center‖², float64."""
    prior: Float[np.ndarray, " P"]
    """float64; 0 without counts."""


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """The index of `N` samples on the host. `build_index` makes it."""

    rows: Shaped[np.ndarray, "N D"]
    """The samples, float32 or uint8."""
    center: Float[np.ndarray, " D"]
    """Their mean, float64: scores are about it."""
    basis: Float[np.ndarray, "D K"]
    """Orthonormal, float32, the leading directions first."""
    groups: tuple[tuple[int, int], ...]
    """Coordinates from and to, of each group."""
    table: Table
    row: Int[np.ndarray, " P"]
    """Which row each place of the table is of; -1: it is empty."""
    leaves: dict[tuple[int, int], slice]
    """Of all rows, and of those of each class, from and to: their leaves."""
    square_norms: Float[np.ndarray, " N"]
    """‖y - center‖², float64, of the rows; ..."""
    log_prior: Float[np.ndarray, " N"]
    """... and their log prior; 0 without counts."""
    origin: Float[np.ndarray, " D"]
    step: Float[np.ndarray, " D"]
    """Of the bytes of all numbers; ..."""
    middle_step: Float[np.ndarray, " M"]
    """... of those of coordinates, whose origin is 0."""
    original: Int[np.ndarray, " N"]
    """The caller's index of each row."""
    classes: dict[int, slice]
    """The rows of each class; none for data without labels."""

    @property
    def n(self) -> int:
        return self.rows.shape[0]

    @property
    def d(self) -> int:
        return self.rows.shape[1]

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
        return float(np.abs(self.log_prior[self.log_prior > NOBODY]).max(initial=0.0))

    @property
    def rounding(self) -> float:
        """‖coordinates - exact ones‖ at most, of a vector of length 1."""
        return rounding_of(self.d, self.basis.shape[1])

    def part(self, label: int) -> slice:
        """The rows of a class; -1: all."""
        return slice(0, self.n) if label < 0 else self.classes[label]

    def leaves_of(self, part: slice) -> slice:
        """Those of such rows; for other ranges of rows so many leaves, of whatever rows."""
        return self.leaves.get((part.start, part.stop), slice(0, -(-(part.stop - part.start) // LEAF)))

    @functools.cached_property
    def _masses(self) -> dict[tuple[int, int], float]:
        return {}

    def log_mass(self, part: slice) -> float:
        """log Σ prior of these rows."""
        key = (part.start, part.stop)
        if key not in self._masses:
            self._masses[key] = float(np.log(np.exp(self.log_prior[part]).sum()))
        return self._masses[key]


def rounding_of(d: int, k: int) -> float:
    """‖z - exact‖ of k coordinates by `coordinates_of` of a vector of d numbers and length 1: the worst that float32 can do."""
    return float(np.sqrt(k)) * (min(d, SLICE) + 3) * UNIT


def coordinates_of(v: Float[np.ndarray, "m D"], basis: Float[np.ndarray, "D K"]) -> Float[np.ndarray, "m K"]:
    """In float32, slice by slice, summed in float64."""
    found = np.zeros((len(v), basis.shape[1]))
    for start in range(0, len(basis), SLICE):
        found += v[:, start : start + SLICE].astype(np.float32) @ basis[start : start + SLICE]
    return found


def build_index(
    rows: Shaped[np.ndarray, "N D"],
    *,
    log_prior: Float[np.ndarray, " N"] | None = None,
    labels: Int[np.ndarray, " N"] | None = None,
    original: Int[np.ndarray, " N"] | None = None,
) -> Index:
    """The index of a data set: three passes over it, and a few over a part.

    Memory: a byte for each number, and 75 float32 and up to 192 bytes for each sample; other dtypes than float32 and uint8 are copied to
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
    others = -(-max(basis.shape[1] - FINE, 0) // 2) * 2
    middle_step = np.maximum(np.abs(beyond(seen, others)).max(axis=0, initial=0) / 100, 1e-30)  # what is farther is left
    edges = [*(edge for edge in EDGES if edge < basis.shape[1]), basis.shape[1]]
    groups = tuple(itertools.pairwise(edges))
    classes = {} if labels is None else _classes(labels)
    row, leaves = _places(rows, center, basis, [*classes.values()] or [slice(0, n)])
    places, most = len(row), 3 * rounding_of(d, basis.shape[1])
    prior = np.zeros(n) if log_prior is None else np.maximum(log_prior, NOBODY)
    count, places, most = len(row), row.size, 3 * rounding_of(d, basis.shape[1])
    prior = np.zeros(n) if log_prior is None else np.maximum(log_prior, NOBODY)
    table = Table(
        low=np.empty((count, COARSE + 1), np.float32),
        high=np.empty((count, COARSE + 1), np.float32),
        likely=np.empty(count, np.float32),
        columns=np.empty((count, COLUMNS, LEAF), np.float32),
        middle=Bytes(
            np.empty((count, others // 2, LEAF, 2), np.int8), np.empty((count, LEAF), np.float32), np.empty((count, LEAF), np.float32)
        ),
        whole=Bytes.room(places, d),
        norms=np.empty(places),
        prior=np.where(row < 0, NOBODY, prior[row]).ravel(),
    )

    def work(core: int) -> None:
        for a, b in _some_rows(*share(count, core), LEAF * d):
            own = slice(a * LEAF, b * LEAF)
            some = rows[np.where(row[a:b] < 0, row[a:b, :1], row[a:b]).ravel()]
            numba_kernels.to_bytes(some, origin, step, *(v[own] for v in table.whole))
            y = some - center
            z = coordinates_of(y, basis)
            middle = Bytes.room(len(some), others)
            numba_kernels.to_bytes(beyond(z, others), np.zeros(others), middle_step, *middle)
            table.middle.digits[a:b] = middle.digits.reshape(b - a, LEAF, -1, 2).transpose(0, 2, 1, 3)
            for of_leaves, of_rows in zip(table.middle[1:], middle[1:], strict=True):
                of_leaves[a:b] = of_rows.reshape(b - a, LEAF)
            norms = table.norms[own] = np.einsum("ni,ni->n", y, y)
            outside, *rest = (
                np.sqrt(np.maximum(norms - np.sum(z[:, :k] ** 2, axis=1) + sign * most * norms, 0))[:, None]
                for k, sign in ((len(z[0]), 1), (COARSE, -1), (COARSE, 1))
            )
            columns = in_columns(z, outside, table.prior[own, None], norms[:, None], groups)
            by_leaf = columns.reshape(b - a, LEAF, -1)
            table.columns[a:b] = by_leaf.transpose(0, 2, 1)
            for side, box, away in ((np.min, table.low, rest[0]), (np.max, table.high, rest[1])):
                box[a:b, :COARSE] = side(by_leaf[:, :, :COARSE], axis=1)
                box[a:b, COARSE] = side(away.reshape(b - a, LEAF), axis=1)
            table.likely[a:b] = by_leaf[:, :, COARSE + 1].max(axis=1)

    with one_thread_each():
        on_every_core(work)
    square_norms, there = np.empty(n), row.ravel() >= 0
    square_norms[row.ravel()[there]] = table.norms[there]
    logging.getLogger(__name__).info("indexed %d samples of %d numbers in %.1f s", n, d, time.perf_counter() - started)
    return Index(
        rows=rows,
        center=center,
        basis=basis,
        groups=groups,
        table=table,
        row=row.ravel(),
        leaves=leaves,
        square_norms=square_norms,
        log_prior=prior,
        origin=origin,
        step=step,
        middle_step=middle_step,
        original=np.arange(n, dtype=np.int32) if original is None else original,
        classes=classes,
    )


def _places(
    rows: Shaped[np.ndarray, "N D"], center: Float[np.ndarray, " D"], basis: Float[np.ndarray, "D K"], parts: list[slice]
) -> tuple[Int[np.ndarray, "leaves LEAF"], dict[tuple[int, int], slice]]:
    """Which rows each leaf has, and which leaves each part of the rows and all of them; every leaf is of one part."""
    leading = np.empty((len(rows), min(COARSE, basis.shape[1])), np.float32)

    def work(core: int) -> None:
        for a, b in _some_rows(*share(len(rows), core), rows.shape[1]):
            leading[a:b] = (rows[a:b] - center).astype(np.float32) @ basis[:, :COARSE]

    with one_thread_each():
        on_every_core(work)
    found, leaves, count = [], {}, 0
    for part in parts:
        own = leaves_of(leading[part], LEAF)
        found.append(np.where(own < 0, own, own + np.int32(part.start)))
        leaves[part.start, part.stop] = slice(count, count + len(own))
        count += len(own)
    return np.concatenate(found), leaves | {(0, len(rows)): slice(0, count)}


def in_columns(
    z: Float[np.ndarray, "m K"],
    outside: Float[np.ndarray, "m 1"],
    prior: Float[np.ndarray, "m 1"],
    square: Float[np.ndarray, "m 1"],
    groups: tuple[tuple[int, int], ...],
) -> Float[np.ndarray, "m COLUMNS"]:
    """In the order of the table; 0 where there are no more coordinates or groups."""
    leading = np.zeros((len(z), FINE))
    leading[:, : z.shape[1]] = z[:, :FINE]
    norms = np.zeros((len(z), GROUPS))
    for g, (a, b) in enumerate(groups):
        norms[:, g] = np.sqrt(np.einsum("mk,mk->m", z[:, a:b], z[:, a:b]))
    return np.concatenate([leading[:, :COARSE], outside, prior, square, norms, leading[:, COARSE:]], axis=1)


def beyond(z: Float[np.ndarray, "m K"], count: int) -> Float[np.ndarray, "m M"]:
    """The coordinates that have no column, `count` of them, the last of which may be none: 0."""
    found = np.zeros((len(z), count))
    found[:, : max(z.shape[1] - FINE, 0)] = z[:, FINE:]
    return found


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
