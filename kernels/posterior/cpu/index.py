"""The index of a data set: tables that bound the scores of groups of samples, or of one sample, from above, for any query.

The score of a sample y for a query is `g·(y - c) - κ ‖y - c‖² + log prior`, with `g = (α/σ²)(x - α c)` and `κ = α²/2σ²`: its log weight but
for a constant of the query. Three tables bound it:

*Leaves*: `LEAF` samples that lie together (`kernels.posterior.cpu.tree`), and the box in which their leading coordinates lie. In each
coordinate `g_k z - κ z²` is largest at `g_k / 2κ`, or at the side of the box that is nearest to it.

*Columns*, some tens of float32 for each sample: its first coordinates z in an orthonormal basis of leading directions, and of the others,
group by group, their norm; by Cauchy and Schwarz

    g·(y - c) ≤ Σ_k g_k z_k + Σ_G ‖g_G‖ ‖z_G‖

*Bytes*, one for each number: y = o + u ∘ d + left, d bytes and left the remainder. With `u ∘ g ≈ s b`, b of 16 bits,

    |g·(y - c) - s b·d - g·(o - c)| ≤ ‖u ∘ g - s b‖ ‖d‖ + ‖g‖ ‖left‖

Images are bytes already, so that their remainder is 0. Between columns and bytes lie the coordinates that the columns hold only as groups,
in a byte each.
"""

import dataclasses
import functools
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int8, Shaped

from kernels.posterior.cpu import numba_kernels
from kernels.posterior.cpu.bounds import COARSE, COLUMNS, FINE, GROUPS, LEAF
from kernels.posterior.cpu.host_samples import UNCOUNTED, HostSamples
from kernels.posterior.cpu.threads import cores, on_every_core, one_thread_each, share
from kernels.posterior.cpu.tree import leaves_of
from kernels.posterior.cpu.tuning import TUNING, UNIT

Progress = Callable[[Iterable[Any]], Iterable[Any]]
"""Wraps what is gone through, as `tqdm.tqdm` does; `iter`: says nothing."""


class Bytes(NamedTuple):
    """Samples as bytes: origin + step ∘ digits + remainder."""

    digits: Int8[np.ndarray, "N M"]
    lengths: Float[np.ndarray, " N"]
    """At least ‖digits‖, float32."""
    left: Float[np.ndarray, " N"]
    """At least the norm of the remainder, float32."""

    @classmethod
    def room(cls, n: int, m: int) -> "Bytes":
        """Arrays for `n` samples of `m` numbers, not yet filled."""
        return cls(np.empty((n, m), np.int8), np.empty(n, np.float32), np.empty(n, np.float32))


class Table(NamedTuple):
    """What a search reads, leaf by leaf; P places of samples, some of them empty."""

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
class Index(HostSamples):
    """Samples on the host, and the tables by which they are pruned. `build_index` makes it."""

    basis: Float[np.ndarray, "D K"]
    """Orthonormal, float32, the leading directions first."""
    groups: tuple[tuple[int, int], ...]
    """Coordinates from and to, of each group."""
    table: Table
    row: Int[np.ndarray, " P"]
    """The row of the samples at each place of the table; -1: an empty place."""
    leaves: dict[tuple[int, int], slice]
    """By first and last row, of all samples and of each class: their leaves."""
    origin: Float[np.ndarray, " D"]
    step: Float[np.ndarray, " D"]
    """Step of the bytes of all numbers."""
    middle_step: Float[np.ndarray, " M"]
    """Step of the bytes of coordinates, whose origin is 0."""

    @functools.cached_property
    def longest(self) -> tuple[float, float]:
        """Of the bytes of all numbers, the largest norm, and the largest norm of a remainder."""
        return float(self.table.whole.lengths.max()), float(self.table.whole.left.max())

    @functools.cached_property
    def longest_middle(self) -> float:
        """The largest norm of the bytes of coordinates."""
        return float(self.table.middle.lengths.max())

    @property
    def rounding(self) -> float:
        """‖coordinates - exact ones‖ at most, of a vector of length 1."""
        return rounding_of(self.d, self.basis.shape[1])

    def leaves_of(self, part: slice) -> slice:
        """The leaves of these rows. For a range that is no class: the first leaves, as many as the rows would fill."""
        return self.leaves.get((part.start, part.stop), slice(0, -(-(part.stop - part.start) // LEAF)))


def rounding_of(d: int, k: int) -> float:
    """‖z - exact‖ of k coordinates by `coordinates_of` of a vector of d numbers and length 1: the worst that float32 can do."""
    return float(np.sqrt(k)) * (min(d, TUNING.float32_slice) + 3) * UNIT


def coordinates_of(v: Float[np.ndarray, "m D"], basis: Float[np.ndarray, "D K"]) -> Float[np.ndarray, "m K"]:
    """Coordinates in the basis, by float32 products of slices that are summed in float64."""
    total = np.zeros((len(v), basis.shape[1]))
    for start in range(0, len(basis), TUNING.float32_slice):
        total += v[:, start : start + TUNING.float32_slice].astype(np.float32) @ basis[start : start + TUNING.float32_slice]
    return total


def build_index(samples: HostSamples, progress: Progress = iter) -> Index:
    """The index of a data set: two passes over it, and a few over a part.

    Memory: a byte for each number, and 75 float32 and up to 192 bytes for each sample.

    Args:
      progress: wraps one core's parts of the second pass, which takes most of the time.
    """
    started = time.perf_counter()
    n, d = samples.rows.shape
    with one_thread_each():
        origin, step = _origin_and_step(samples.rows)
    basis, seen = leading_directions(samples.rows, samples.center)
    others = -(-max(basis.shape[1] - FINE, 0) // 2) * 2
    middle_step = np.maximum(np.abs(beyond(seen, others)).max(axis=0, initial=0) / 100, 1e-30)  # numbers beyond stay in the remainder
    edges = [*(edge for edge in TUNING.group_edges if edge < basis.shape[1]), basis.shape[1]]
    row, leaves = _places(samples.rows, samples.center, basis, [*samples.classes.values()] or [slice(0, n)])
    own = {field.name: getattr(samples, field.name) for field in dataclasses.fields(HostSamples)}
    index = Index(
        **own,
        basis=basis,
        groups=tuple(itertools.pairwise(edges)),
        table=_empty_table(row, samples, others),
        row=row.ravel(),
        leaves=leaves,
        origin=origin,
        step=step,
        middle_step=middle_step,
    )

    def work(core: int) -> None:
        parts = list(_some_rows(*share(len(row), core), LEAF * d))
        for a, b in progress(parts) if core == cores() - 1 else parts:
            _fill_leaves(index, a, b)

    with one_thread_each():
        on_every_core(work)
    logging.getLogger(__name__).info("indexed %d samples of %d numbers in %.1f s", n, d, time.perf_counter() - started)
    return index


def _empty_table(row: Int[np.ndarray, "leaves LEAF"], samples: HostSamples, others: int) -> Table:
    """A table that is filled leaf by leaf."""
    count = len(row)
    lengths = (np.empty((count, LEAF), np.float32) for _ in range(2))
    return Table(
        low=np.empty((count, COARSE + 1), np.float32),
        high=np.empty((count, COARSE + 1), np.float32),
        likely=np.empty(count, np.float32),
        columns=np.empty((count, COLUMNS, LEAF), np.float32),
        middle=Bytes(np.empty((count, others // 2, LEAF, 2), np.int8), *lengths),
        whole=Bytes.room(row.size, samples.d),
        norms=np.empty(row.size),
        prior=np.where(row < 0, UNCOUNTED, samples.log_prior[row]).ravel(),
    )


def _fill_leaves(index: Index, a: int, b: int) -> None:
    """Fill the leaves from `a` to `b`."""
    table, own, others = index.table, slice(a * LEAF, b * LEAF), len(index.middle_step)
    row = index.row.reshape(-1, LEAF)[a:b]
    some = index.rows[np.where(row < 0, row[:, :1], row).ravel()]
    numba_kernels.to_bytes(some, index.origin, index.step, *(v[own] for v in table.whole))
    y = some - index.center
    z = coordinates_of(y, index.basis)
    middle = Bytes.room(len(some), others)
    numba_kernels.to_bytes(beyond(z, others), np.zeros(others), index.middle_step, *middle)
    table.middle.digits[a:b] = middle.digits.reshape(b - a, LEAF, -1, 2).transpose(0, 2, 1, 3)
    for of_leaves, of_rows in zip(table.middle[1:], middle[1:], strict=True):
        of_leaves[a:b] = of_rows.reshape(b - a, LEAF)
    norms = table.norms[own] = index.square_norms[np.where(row < 0, row[:, :1], row).ravel()]
    outside, *rest = (
        np.sqrt(np.maximum(norms - np.sum(z[:, :k] ** 2, axis=1) + sign * 3 * index.rounding * norms, 0))[:, None]
        for k, sign in ((len(z[0]), 1), (COARSE, -1), (COARSE, 1))
    )
    by_leaf = in_columns(z, outside, table.prior[own, None], norms[:, None], index.groups).reshape(b - a, LEAF, -1)
    table.columns[a:b] = by_leaf.transpose(0, 2, 1)
    for side, box, away in ((np.min, table.low, rest[0]), (np.max, table.high, rest[1])):
        box[a:b, :COARSE] = side(by_leaf[:, :, :COARSE], axis=1)
        box[a:b, COARSE] = side(away.reshape(b - a, LEAF), axis=1)
    table.likely[a:b] = by_leaf[:, :, COARSE + 1].max(axis=1)


def _places(
    rows: Shaped[np.ndarray, "N D"], center: Float[np.ndarray, " D"], basis: Float[np.ndarray, "D K"], parts: list[slice]
) -> tuple[Int[np.ndarray, "leaves LEAF"], dict[tuple[int, int], slice]]:
    """The rows of each leaf, and the leaves of each part and of all rows; every leaf belongs to one part."""
    leading = np.empty((len(rows), min(COARSE, basis.shape[1])), np.float32)

    def work(core: int) -> None:
        for a, b in _some_rows(*share(len(rows), core), rows.shape[1]):
            leading[a:b] = (rows[a:b] - center).astype(np.float32) @ basis[:, :COARSE]

    with one_thread_each():
        on_every_core(work)
    rows_of_leaves, leaves, count = [], {}, 0
    for part in parts:
        own = leaves_of(leading[part], LEAF)
        rows_of_leaves.append(np.where(own < 0, own, own + np.int32(part.start)))
        leaves[part.start, part.stop] = slice(count, count + len(own))
        count += len(own)
    return np.concatenate(rows_of_leaves), leaves | {(0, len(rows)): slice(0, count)}


def in_columns(
    z: Float[np.ndarray, "m K"],
    outside: Float[np.ndarray, "m 1"],
    prior: Float[np.ndarray, "m 1"],
    square: Float[np.ndarray, "m 1"],
    groups: tuple[tuple[int, int], ...],
) -> Float[np.ndarray, "m COLUMNS"]:
    """Columns in the order of the table; 0 where there are no more coordinates or groups."""
    leading = np.zeros((len(z), FINE))
    leading[:, : z.shape[1]] = z[:, :FINE]
    norms = np.zeros((len(z), GROUPS))
    for g, (a, b) in enumerate(groups):
        norms[:, g] = np.sqrt(np.einsum("mk,mk->m", z[:, a:b], z[:, a:b]))
    return np.concatenate([leading[:, :COARSE], outside, prior, square, norms, leading[:, COARSE:]], axis=1)


def beyond(z: Float[np.ndarray, "m K"], count: int) -> Float[np.ndarray, "m M"]:
    """The coordinates that have no column, padded with 0 to `count`."""
    padded = np.zeros((len(z), count))
    padded[:, : max(z.shape[1] - FINE, 0)] = z[:, FINE:]
    return padded


def leading_directions(rows: Shaped[np.ndarray, "N D"], center: Float[np.ndarray, " D"]) -> tuple[np.ndarray, np.ndarray]:
    """An orthonormal basis `[D, K]` close to the leading principal directions, and the coordinates of the samples it was computed from.

    Source: Halko, Martinsson and Tropp, "Finding structure with randomness" (2011), as scikit-learn has it.
    """
    from sklearn.utils.extmath import randomized_svd

    n, d = rows.shape
    some = (rows[:: max(1, n * d // TUNING.direction_numbers)] - center).astype(np.float32)
    k = min(TUNING.directions, d, len(some))
    _, _, directions = randomized_svd(
        some, k, n_oversamples=0, n_iter=TUNING.direction_rounds, power_iteration_normalizer="LU", random_state=0
    )
    basis = np.linalg.qr(directions.T.astype(np.float64))[0].astype(np.float32)
    return basis, (some @ basis).astype(np.float64)


def _origin_and_step(rows: Shaped[np.ndarray, "N D"]) -> tuple[np.ndarray, np.ndarray]:
    """Origin and step of the bytes: the same for all numbers where the data lie on such a grid, as images do; else one a coordinate."""
    d = rows.shape[1]

    def work(core: int) -> tuple[np.ndarray, np.ndarray]:
        low, high = np.full(d, np.inf), np.full(d, -np.inf)
        for a, b in _some_rows(*share(len(rows), core), d):
            low, high = np.minimum(low, rows[a:b].min(axis=0)), np.maximum(high, rows[a:b].max(axis=0))
        return low, high

    every = on_every_core(work)
    low, high = np.min([one[0] for one in every], axis=0), np.max([one[1] for one in every], axis=0)
    step = (high.max() - low.min()) / 255 or 1.0
    some = (rows[:: max(1, len(rows) // 256)].astype(np.float64) - low.min()) / step
    if np.abs(some - np.rint(some)).max() <= max(TUNING.byte_grid, 2 * UNIT * max(np.abs(low).max(), np.abs(high).max()) / step):
        return np.full(d, low.min() + 128 * step), np.full(d, step)
    steps = np.where(high > low, (high - low) / 255, 1.0)
    return np.where(high > low, low + 128 * steps, low), steps


def _some_rows(start: int, stop: int, d: int) -> Iterator[tuple[int, int]]:
    step = max(1, 2**20 // d)
    for a in range(start, stop, step):
        yield a, min(a + step, stop)
