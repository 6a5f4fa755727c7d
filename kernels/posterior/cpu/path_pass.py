"""The posterior of whole paths on the host: queries x_t = α x_1 + σ x_0 at many times for two products a pair of path and sample.

About x_1, and but for a term that all samples share, the log weight of sample y at ρ = α/σ is

    -‖x_t - α y‖² / 2σ² = ρ² e_1 + ρ e_0 - ½‖x_0‖²,     e_1 = -½‖y - x_1‖²,     e_0 = x_0·(y - x_1)

The two numbers e_1 and e_0 are the same at every time, and for every path with those x_0 and x_1. They come from one matrix product,
block by block, in float32. As in `full_pass`, samples whose rounding would show at some time are candidates: their numbers are computed
again, from differences in float64, once for all times.
"""

import numpy as np
from jaxtyping import Int

from kernels.posterior.cpu.host_samples import HostSamples
from kernels.posterior.cpu.path_tile import Block, Candidates, Paths, PathSums, PathTile
from kernels.posterior.cpu.threads import cores, in_turn
from kernels.posterior.cpu.tuning import TUNING


def path_posterior(samples: HostSamples, paths: Paths, rows: Int[np.ndarray, " m"], *, means: bool) -> PathSums:
    """The posterior of the paths `rows` at every time.

    Args:
      rows: of paths whose x_0 and x_1 are finite and whose class has samples.
      means: whether variance and square distance are wanted: where many samples carry weight they cost one more product for each time.
    """
    found = PathSums.none(len(paths.ratio), len(paths.x_0))
    tiles = [(samples.part(label), tile) for label, tile in path_tiles(paths, rows, samples.d, means=means)]

    def answer(k: int) -> None:
        part, tile = tiles[k]
        some = paths.at(tile)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # of scores that float32 does not hold: they are not answered
            one = _over(samples, part, PathTile(samples, some, means=means, most=TUNING.most_candidates))
        found.put(tile, one)

    in_turn(len(tiles), answer)
    return found


def path_tiles(paths: Paths, rows: Int[np.ndarray, " m"], d: int, *, means: bool) -> list[tuple[int, np.ndarray]]:
    """The paths `rows` in tiles of one label each, with that label: of as many paths as caches hold, and some for each core."""
    most = TUNING.tile_queries if not means else int(np.clip(TUNING.path_means // (d * len(paths.ratio)), 1, TUNING.tile_queries))
    tiles = []
    for label in np.unique(paths.label[rows]):
        mine = rows[paths.label[rows] == label]
        parts = max(-(-len(mine) // most), min(cores(), len(mine) // TUNING.least_paths), 1)
        tiles += [(int(label), tile) for tile in np.array_split(mine, parts)]
    return tiles


def _over(samples: HostSamples, part: slice, tile: PathTile) -> PathSums:
    """The posterior of a tile over some rows of the samples."""

    def block(rows: np.ndarray | slice) -> Block:
        values = samples.rows[rows]
        if values.dtype != np.float32 or samples.far:
            values = np.subtract(values, samples.shift, dtype=np.float32)
        index = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        return Block(index, values, samples.square_norms[rows], samples.log_prior[rows].astype(np.float32))

    size = TUNING.path_rows
    if part.stop - part.start > 2 * size:
        tile.begin_with(block(np.arange(part.start, part.stop, (part.stop - part.start) // size + 1)))
    for start in range(part.start, part.stop, size):
        tile.add(block(slice(start, min(start + size, part.stop))))
    prior = samples.log_prior[part]
    first = int(samples.original[part.start + np.flatnonzero(prior == prior.max())].min())
    where = tile.candidates()
    return tile.finish(Candidates(samples.rows, where, samples.log_prior, samples.square_norms, samples.original, first))
