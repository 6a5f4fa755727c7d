"""The exact nearest neighbours of many samples in a training set of any size, which is read once, some rows at a time.

Distances in a few principal directions, with the length of what is left as one more coordinate, are lower bounds of distances: a product
of thin matrices gives them all. Only pairs whose bound lies below the K-th distance found so far are measured, from float64 differences.
Where that leaves too many pairs, as of data whose variance is spread over many directions, a product of whole rows comes before: the search
takes then as long as all distances do by matrix products, and no longer.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from kernels.posterior.cpu.numba_kernels import compiled
from kernels.posterior.cpu.threads import cores, in_turn, one_thread_each

SEEDS = 2048
"""Training samples, evenly spread, that give the directions and the first distances."""
ROUNDING = 1e-5
"""Of ‖x‖² + ‖y‖²: more than float32 bounds are wrong by."""
CROWDED = 0.03
"""The share of the pairs of a block, above which whole rows are multiplied: a pair costs about thirty times as much from differences."""
_PLANNED = 512  # queries by which the time of all is told
_CHUNK_BYTES, _TOGETHER = 2**26, 256  # of training samples read at once; queries of one matrix product
_AT_ONCE = 4096  # training samples of one matrix product: its result fits the cache


class Rows(NamedTuple):
    """Training samples that are read some at a time.

    Attributes:
      n, d: their number, and of how many values each is.
      read: of an index `[M]`, rising, the rows `[M, D]`, float32.
    """

    n: int
    d: int
    read: Callable[[Int[np.ndarray, " M"]], Float[np.ndarray, "M D"]]

    @classmethod
    def of(cls, samples: Float[np.ndarray, "N *shape"]) -> "Rows":
        """Of an array in memory."""
        flat = np.asarray(samples).reshape(len(samples), -1)
        return cls(len(flat), flat.shape[1], lambda index: np.ascontiguousarray(flat[index], np.float32))


class Neighbours(NamedTuple):
    """The K nearest training samples of each query, nearest first; equal distances in the order of rows."""

    row: Int[np.ndarray, "B K"]
    """-1 where there are fewer than K."""
    distance: Float[np.ndarray, "B K"]
    """Euclidean, of the float32 values, to float64 rounding; infinite where there are fewer than K."""


class Cost(NamedTuple):
    """What a search will take: seconds, from a part that was timed on this machine, and bytes, beside the samples themselves."""

    seconds: float
    bytes: int


class _Queries(NamedTuple):
    """Queries, and what is found of each so far."""

    values: Float[np.ndarray, "B D"]
    own: Int[np.ndarray, " B"]
    coordinates: Float[np.ndarray, "B k"]
    norms: Float[np.ndarray, " B"]
    squares: Float[np.ndarray, "B K"]
    rows: Int[np.ndarray, "B K"]

    def part(self, which: slice) -> "_Queries":
        return _Queries(*(values[which] for values in self))


class _Part(NamedTuple):
    """Some rows of the training set, with what queries are compared with."""

    index: Int[np.ndarray, " M"]  # type: ignore[assignment]  # a tuple's own `index` is not used
    rows: Float[np.ndarray, "M D"]
    about: Float[np.ndarray, "M D"]
    """About the centre."""
    lengths: Float[np.ndarray, " M"]
    """Squared, of those."""
    sides: Float[np.ndarray, "M L"]
    """Whose products with queries' coordinates are bounds."""

    def part(self, which: slice) -> "_Part":
        return _Part(*(values[which] for values in self))


class NeighbourSearch:
    """Looks training samples up.

    Args:
      training: at least one sample.
    """

    def __init__(self, training: Rows):
        self.training = training
        self._seeds = np.unique(np.linspace(0, training.n - 1, min(training.n, SEEDS)).astype(np.int64))
        self._seed_rows = training.read(self._seeds)
        self._center = self._seed_rows.mean(0, dtype=np.float64).astype(np.float32)
        about = self._seed_rows - self._center
        self.mean_square = 2 * float(np.einsum("nd,nd->", about, about, dtype=np.float64)) / len(about)
        """2 tr Cov, the mean squared distance of two training samples, by the seeds."""
        self._directions = _directions(about[:: -(-len(about) // 1024)], 2 * int(np.ceil(2 * np.sqrt(training.d))))
        # Rounding errors of a sum of D products, unless they conspire: 8 standard deviations (Higham and Mary 2019).
        self._rounding = max(ROUNDING, 8 * np.sqrt(training.d) * 2.0**-24)

    def __call__(
        self,
        queries: Float[np.ndarray, "B D"],
        k: int,
        *,
        own: Int[np.ndarray, " B"] | None = None,
        progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    ) -> Neighbours:
        """The k nearest of each.

        Args:
          queries: float32, finite.
          own: the row that each query is itself, which does not count.
          progress: wraps the parts of the training set.

        Raises:
          ValueError: queries of another dimension, or that are not finite.
        """
        asked = self._asked(queries, k, own)
        with one_thread_each():
            self._compare(asked, self._part(self._seeds, self._seed_rows))
            for index in progress(self._parts()):
                self._compare(asked, self._part(index, self.training.read(index)))
        return Neighbours(asked.rows, np.sqrt(asked.squares))

    def cost(self, queries: Float[np.ndarray, "B D"], k: int) -> Cost:
        """What a call will take, by some of the queries and one part of the training set.

        Args, Raises: as a call.
        """
        some = np.unique(np.linspace(0, len(queries) - 1, min(len(queries), _PLANNED)).astype(int))
        asked, parts = self._asked(queries[some], k, None), self._parts()
        with one_thread_each():
            self._compare(asked, self._part(self._seeds, self._seed_rows))
            started = time.perf_counter()
            part = self._part(parts[0], self.training.read(parts[0]))
            made = time.perf_counter()
            self._compare(asked, part)
            done = time.perf_counter()
        seconds = self.training.n / len(parts[0]) * (made - started + (done - made) * len(queries) / len(some))
        values = len(queries) * (self._directions.shape[1] + 4 * k + 5) + 4 * part.rows.size
        return Cost(seconds, 4 * (values + cores() * _TOGETHER * _AT_ONCE))

    def _asked(self, queries: Float[np.ndarray, "B D"], k: int, own: Int[np.ndarray, " B"] | None) -> _Queries:
        queries = np.ascontiguousarray(queries, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.training.d or not np.isfinite(queries).all():
            raise ValueError(f"samples {list(queries.shape)}: expected finite values, D = {self.training.d} as in training")
        own = np.full(len(queries), -1, np.int64) if own is None else own
        squares, rows = np.full((len(queries), k), np.inf), np.full((len(queries), k), -1, np.int64)
        return _Queries(queries, own, *self._coordinates(queries), squares, rows)

    def _parts(self) -> list[Int[np.ndarray, " M"]]:
        size = max(1, _CHUNK_BYTES // (4 * self.training.d))
        return [np.arange(start, min(start + size, self.training.n)) for start in range(0, self.training.n, size)]

    def _part(self, index: Int[np.ndarray, " M"], rows: Float[np.ndarray, "M D"]) -> _Part:
        along, lengths = self._coordinates(rows)
        sides = np.concatenate([along, (along**2).sum(1, keepdims=True), np.ones((len(rows), 1), np.float32)], axis=1)
        return _Part(index, rows, rows - self._center, lengths, sides)

    def _compare(self, asked: _Queries, some: _Part) -> None:
        """Compare all queries with some rows of the training set."""

        def work(number: int) -> None:
            mine = asked.part(slice(number * _TOGETHER, (number + 1) * _TOGETHER))
            ones, whole = np.ones((len(mine.values), 1), np.float32), -2 * (mine.values - self._center)
            left = np.concatenate([-2 * mine.coordinates, ones, (mine.coordinates**2).sum(1, keepdims=True)], axis=1)
            last, found = mine.squares[:, -1], (mine.values, mine.own, mine.squares, mine.rows)
            for start in range(0, len(some.rows), _AT_ONCE):
                few = some.part(slice(start, start + _AT_ONCE))
                here, sizes = (few.rows, few.index), mine.norms + few.lengths.max()
                scores, margin = left @ few.sides.T, ROUNDING * sizes
                if np.isinf(last).any():
                    _measure(_likely(scores, mine.rows.shape[1]), *here, *found)
                if (scores[::4] < (last + margin)[::4, None]).mean() > CROWDED:
                    scores, margin = whole @ few.about.T, self._rounding * sizes
                    scores += few.lengths.astype(np.float32)
                    scores += mine.norms.astype(np.float32)[:, None]
                _improve(scores, margin, *here, *found)

        in_turn(-(-len(asked.values) // _TOGETHER), work)

    def _coordinates(self, rows: Float[np.ndarray, "M D"]) -> tuple[Float[np.ndarray, "M k"], Float[np.ndarray, " M"]]:
        """Coordinates whose distances bound those of the rows from below, and the rows' squared lengths, both about the centre."""
        found, lengths = np.empty((len(rows), self._directions.shape[1] + 1), np.float32), np.empty(len(rows))
        step = max(1, _CHUNK_BYTES // (4 * rows.shape[1]))
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            about = rows[part] - self._center
            along = about @ self._directions
            square = np.einsum("nd,nd->n", about, about, dtype=np.float64)
            lengths[part], found[part, :-1] = square, along
            found[part, -1] = np.sqrt(np.maximum(square - np.einsum("nd,nd->n", along, along, dtype=np.float64), 0))
        return found, lengths


def _directions(about: Float[np.ndarray, "S D"], count: int) -> Float[np.ndarray, "D k"]:
    """The leading principal directions of some rows, orthonormal to float32's rounding."""
    _, vectors = np.linalg.eigh(about @ about.T)
    return np.ascontiguousarray(np.linalg.qr(about.T @ vectors[:, -min(count, *about.shape) :])[0])


def _likely(scores: Float[np.ndarray, "B M"], k: int) -> Int[np.ndarray, "B k"]:
    """Where the k least lie: measured first, so that few others need be."""
    count = min(2 * k, scores.shape[1])
    return np.ascontiguousarray(np.argpartition(scores, count - 1, axis=1)[:, :count])


@compiled
def _measure(few, some, index, queries, own, squares, rows):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Measure some pairs of each query, and keep the K least."""
    for i in range(few.shape[0]):
        for at in range(few.shape[1]):
            _insert(few[i, at], i, some, index, queries, own, squares, rows)


@compiled
def _improve(scores, margin, some, index, queries, own, squares, rows):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Measure the pairs whose score, less a margin, lies below the K-th square of a query, and keep the K least."""
    last = squares.shape[1] - 1
    for i in range(scores.shape[0]):
        limit = squares[i, last] + margin[i]
        for j in range(scores.shape[1]):
            if scores[i, j] < limit:
                _insert(j, i, some, index, queries, own, squares, rows)
                limit = squares[i, last] + margin[i]


@compiled
def _insert(j, i, some, index, queries, own, squares, rows):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Keep row j of some among the nearest of query i, if it is one of them and not there yet."""
    last, square = squares.shape[1] - 1, 0.0
    one, other, worst = queries[i], some[j], squares[i, last]
    for start in range(0, len(one), 64):
        part = 0.0
        for d in range(start, min(start + 64, len(one))):
            away = np.float64(one[d]) - np.float64(other[d])
            part += away * away
        square += part
        if square > worst:
            return
    row = index[j]
    if row == own[i]:
        return
    at = 0
    for place in range(last + 1):
        if rows[i, place] == row:
            return
        at += squares[i, place] < square or (squares[i, place] == square and rows[i, place] >= 0 and rows[i, place] < row)
    if at > last:
        return
    for place in range(last, at, -1):
        squares[i, place], rows[i, place] = squares[i, place - 1], rows[i, place - 1]
    squares[i, at], rows[i, at] = square, row
