"""A sketch of a data set: a few coordinates of each sample, in which every distance has a lower bound.

In an orthonormal basis, leading directions of the data first, cut into groups g of coordinates,

    ‖x - y‖² ≥ Σ_{i < k} (x_i - y_i)² + Σ_{g beyond k} (‖x_g‖ - ‖y_g‖)² = ‖x‖² + ‖y‖² - 2 (Σ_{i < k} x_i y_i + Σ_g ‖x_g‖ ‖y_g‖),

so the bounds of all samples come from one matrix product with an inner dimension of k and a few: the sketch is a data set of fewer
dimensions, whose scores are upper bounds of the true ones. With k = D they are the true ones. The bound holds for every query.
"""

import dataclasses
import logging
import threading
import time

import numpy as np
from jaxtyping import Float, Int, Shaped

EDGES = (32, 64, 128, 192, 256, 384, 512, 768, 1024)
"""Numbers of coordinates k that can be asked for, as far as there are so many; D itself is another, up to the last."""
ALL_UP_TO, LEADING = 1024, 512
"""All coordinates are kept of samples of up to 1,024 numbers; of longer ones 512, and the norm of what is left."""
BASIS_ROWS, BASIS_ROWS_IF_LONG = 8192, 1024
"""So many samples, spread over the data, give the basis: any orthonormal one will do, better ones bound tighter."""
UNIT = 2.0**-24


@dataclasses.dataclass(frozen=True, eq=False)
class Sketch:
    """The sketch of `N` samples on the host, in NumPy. `build_sketch` makes it."""

    rows: Shaped[np.ndarray, "N D"]
    """The samples, float32 or uint8."""
    center: Float[np.ndarray, " D"]
    """Their mean, float64; coordinates are about it."""
    basis: Float[np.ndarray, "D M"]
    """Orthonormal, float64."""
    edges: tuple[int, ...]
    """Where the groups of coordinates end; the last is M."""
    table: Float[np.ndarray, "R N"]
    """float32: the M coordinates, the last one first; -‖y‖²/2; the log prior, if there is one; the norms of the groups, the last one first.
    What a bound of k coordinates takes lies together: `window`."""
    radius: float
    """max ‖y - center‖."""
    log_prior: Float[np.ndarray, " N"] | None
    """float64; None: 0."""
    index: Int[np.ndarray, " N"]
    """The caller's index of each row."""
    classes: dict[int, slice]
    """The rows of each class; none for data without labels."""
    seconds: float
    """What making it took."""
    _scratch: threading.local = dataclasses.field(default_factory=threading.local, repr=False)

    @property
    def n(self) -> int:
        return self.rows.shape[0]

    @property
    def d(self) -> int:
        return self.rows.shape[1]

    def window(self, level: int, columns: slice) -> Float[np.ndarray, "W n"]:
        """The rows of `table` whose product with `query_coordinates` bounds the scores; for some of the samples."""
        return self.table[self.edges[-1] - self.edges[level] : len(self.table) - (level + 1), columns]

    def query_coordinates(self, x: Float[np.ndarray, "B D"], level: int, inverse_rate: Float[np.ndarray, " B"]) -> Float[np.ndarray, "B W"]:
        """The float32 coordinates of queries x / α that `window` is multiplied by; `inverse_rate` is σ²/α²."""
        centred = x - self.center
        inner = centred @ self.basis
        parts = [inner[:, : self.edges[level]][:, ::-1], np.ones((len(x), 1))]
        if self.log_prior is not None:
            parts.append(inverse_rate[:, None])
        return np.concatenate([*parts, group_norms(centred, inner, self.edges)[:, :level:-1]], axis=1).astype(np.float32)

    def slack(self, x_norm: Float[np.ndarray, " B"], level: int) -> Float[np.ndarray, " B"]:
        """By how much a float32 product may fall below the bound: its own rounding, in any order of summation, and its factors'."""
        terms = self.edges[level] + len(self.edges) + 7
        return 1.01 * terms * UNIT * (x_norm * self.radius + self.radius**2)

    def scratch(self, queries: int, n: int) -> Float[np.ndarray, "B n"]:
        """Memory for scores, kept from call to call by each thread: fresh pages cost more than the product that fills them."""
        kept = getattr(self._scratch, "memory", None)
        if kept is None or kept.size < queries * n:
            kept = self._scratch.memory = np.empty(queries * n, np.float32)
        return kept[: queries * n].reshape(queries, n)


def group_norms(centred: np.ndarray, inner: np.ndarray, edges: tuple[int, ...]) -> np.ndarray:
    """‖x_g‖ of each group, and of what the basis leaves over, if it does."""
    squares = np.add.reduceat(inner**2, (0, *edges[:-1]), axis=1)
    if edges[-1] < centred.shape[1]:
        squares = np.concatenate([squares, (np.sum(centred**2, axis=1) - squares.sum(axis=1))[:, None]], axis=1)
    return np.sqrt(np.maximum(squares, 0))


def build_sketch(
    rows: Shaped[np.ndarray, "N D"],
    *,
    log_prior: Float[np.ndarray, " N"] | None = None,
    labels: Int[np.ndarray, " N"] | None = None,
    index: Int[np.ndarray, " N"] | None = None,
) -> Sketch:
    """The sketch of a data set: a basis from some of the samples, then one pass over all.

    Memory: 4 (M + a few) bytes a sample, M = D up to 1,024 and 512 beyond; other dtypes than float32 and uint8 are copied to float32.

    Args:
      rows: sorted by class where there are labels.
    """
    started = time.perf_counter()
    if rows.dtype not in (np.float32, np.uint8):
        rows = rows.astype(np.float32)
    n, d = rows.shape
    center = rows.mean(axis=0, dtype=np.float64)
    most = d if d <= ALL_UP_TO else LEADING
    edges = (*(edge for edge in EDGES if edge < most), most)
    few = rows[:: -(-n // (BASIS_ROWS if d <= ALL_UP_TO else BASIS_ROWS_IF_LONG))]
    basis = _basis(few - center, most)
    priors = 0 if log_prior is None else 1
    table = np.empty((most + 1 + priors + len(edges) + (most < d), n), np.float32)
    largest, block = 0.0, max(1, 2**22 // d)
    for start in range(0, n, block):
        part = slice(start, min(n, start + block))
        centred = rows[part] - center
        inner = centred @ basis
        square = np.sum(centred**2, axis=1)
        largest = max(largest, square.max())
        table[:most, part] = inner[:, ::-1].T
        table[most, part] = -square / 2
        table[most + 1 + priors :, part] = group_norms(centred, inner, edges)[:, ::-1].T
    if log_prior is not None:
        table[most + 1] = np.maximum(log_prior, -1e30)
    classes = {}
    if labels is not None:
        known, first = np.unique(labels, return_index=True)
        classes = {int(label): slice(int(a), int(b)) for label, a, b in zip(known, first, [*first[1:], n], strict=True)}
    index = np.arange(n, dtype=np.int32) if index is None else index
    seconds = time.perf_counter() - started
    logging.getLogger(__name__).info("sketched %d samples of %d numbers in %.1f s", n, d, seconds)
    return Sketch(rows, center, basis, edges, table, float(np.sqrt(largest)), log_prior, index, classes, seconds)


def _basis(centred: Float[np.ndarray, "m D"], most: int) -> Float[np.ndarray, "D M"]:
    """Orthonormal directions, those of the largest variance first; filled up at random where the samples span fewer."""
    d = centred.shape[1]
    if d <= ALL_UP_TO:
        vectors = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :most]
    else:
        vectors = centred.T @ np.linalg.eigh(centred @ centred.T)[1][:, ::-1][:, :most]
        vectors /= np.maximum(np.linalg.norm(vectors, axis=0), 1e-300)
        fill = np.random.default_rng(0).standard_normal((d, most - vectors.shape[1]))
        vectors = np.concatenate([vectors, fill / np.sqrt(d)], axis=1)
    return np.linalg.qr(vectors)[0]
