"""The posterior of whole paths over samples that stay in their source: one reading for all times of as many paths as a budget holds."""

import numpy as np
from jaxtyping import Int

from kernels.posterior.cpu.host_samples import near_copies
from kernels.posterior.cpu.path_pass import path_tiles
from kernels.posterior.cpu.path_tile import Block, Candidates, Extent, Paths, PathSums, PathTile
from kernels.posterior.cpu.threads import in_turn, one_thread_each
from kernels.posterior.cpu.tuning import TUNING
from kernels.posterior.out_of_core.source import Chunk, Chunks
from kernels.posterior.partial import CANDIDATES


def paths_out_of_core(paths: Paths, chunks: Chunks, *, means: bool) -> PathSums:
    """As `path_posterior`. x_1 and the ratios are in the caller's unit.

    Raises:
      ValueError, OSError: what the source raises.
    """
    unit = 1.0 if chunks.unit is None else float(chunks.unit)
    if unit != 1:
        paths = paths._replace(x_1=paths.x_1.astype(np.float64) / unit, ratio=paths.ratio * unit)
    sums = PathSums.none(len(paths.ratio), len(paths.x_0))
    sound = np.isfinite(paths.x_0).all(axis=1) & np.isfinite(paths.x_1).all(axis=1)
    rows, together = np.flatnonzero(sound), max(1, chunks.sizes.queries // (len(paths.ratio) if means else 1))
    with one_thread_each(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        extent = _extent(chunks)
        for start in range(0, len(rows), together):
            _some(paths, rows[start : start + together], chunks, extent, means, sums)
    return sums


def _some(paths: Paths, rows: Int[np.ndarray, " m"], chunks: Chunks, extent: Extent, means: bool, sums: PathSums) -> None:
    """The paths `rows`, in one reading and one more of their candidates."""
    where = path_tiles(paths, rows, chunks.d, means=means)
    most = max(CANDIDATES, min(TUNING.most_candidates, 2 * CANDIDATES * chunks.sizes.refined // len(rows)))
    tiles = [PathTile(extent, paths.at(tile), means=means, most=most) for _, tile in where]

    def add(chunk: Chunk) -> None:
        values = np.asarray(chunk.samples.values)[: len(chunk.rows)]
        in_turn(len(tiles), lambda k: _add(tiles[k], values, chunk.rows, where[k][0], chunks, extent))

    for chunk in chunks.of_labels(paths.label[rows]):
        add(chunk)
    for (label, tile), one in zip(where, tiles, strict=True):
        first = 0 if label < 0 or chunks.labels is None else int(np.argmax(chunks.labels == label))
        index, position = np.unique(np.append(one.candidates(), first), return_inverse=True)
        found = chunks.rows(index)
        found = found if found.dtype in (np.float32, np.uint8) else found.astype(np.float32)
        norms = chunks.square_norms[index].astype(np.float64)
        sums.put(tile, one.finish(Candidates(found, position[:-1], np.zeros(len(index)), norms, index, first)))


def _add(tile: PathTile, values: np.ndarray, rows: Int[np.ndarray, " n"], label: int, chunks: Chunks, extent: Extent) -> None:
    """The samples of a chunk that have this label, block by block."""
    mine = np.arange(len(rows)) if label < 0 or chunks.labels is None else np.flatnonzero(chunks.labels[rows] == label)
    for start in range(0, len(mine), TUNING.path_rows):
        some = mine[start : start + TUNING.path_rows]
        block = (values[some[0] : some[-1] + 1] if len(some) == some[-1] - some[0] + 1 else values[some]).astype(np.float32, copy=False)
        block = block - extent.shift if chunks.shifted else block
        index = rows[some]
        tile.add(Block(index, block, chunks.square_norms[index].astype(np.float64), np.zeros(len(some), np.float32)))


def _extent(chunks: Chunks) -> Extent:
    center = np.asarray(chunks.center, np.float64)
    some = chunks.rows(np.arange(0, chunks.n, max(1, chunks.n // min(TUNING.near_copy_samples, 2 * chunks.sizes.refined * CANDIDATES))))
    return Extent(
        chunks.n,
        chunks.d,
        center,
        (center if chunks.shifted else np.zeros(chunks.d)).astype(np.float32),
        float(chunks.square_norms.mean(dtype=np.float64)),
        float(np.sqrt(chunks.largest)),
        near_copies(some.astype(np.float32), center),
    )
