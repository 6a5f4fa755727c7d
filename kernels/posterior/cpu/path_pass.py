"""The posterior of whole paths on the host: queries x_t = α x_1 + σ x_0 at many times for two products a pair of path and sample.

About x_1, and but for a term that all samples share, the log weight of sample y at ρ = α/σ is

    -‖x_t - α y‖² / 2σ² = ρ² e_1 + ρ e_0 - ½‖x_0‖²,     e_1 = -½‖y - x_1‖²,     e_0 = x_0·(y - x_1)

The two numbers e_1 and e_0 are the same at every time, and for every path with those x_0 and x_1. They come from one matrix product,
block by block, in float32. As in `full_pass`, samples whose rounding would show at some time are candidates: their numbers are computed
again, from differences in float64, once for all times.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from kernels.posterior.cpu import numba_kernels, path_kernels
from kernels.posterior.cpu.full_pass import error_of_scores
from kernels.posterior.cpu.host_samples import HostSamples
from kernels.posterior.cpu.threads import cores, in_turn
from kernels.posterior.cpu.tuning import TUNING, UNIT
from kernels.posterior.types import LARGEST_SCORE


class Paths(NamedTuple):
    """B paths on the host, and the T times at which they are asked about."""

    x_0: Float[np.ndarray, "B D"]
    """float32, the noise."""
    x_1: Float[np.ndarray, "B D"]
    """float32, or float64 where samples are in a unit of their own."""
    label: Int[np.ndarray, " B"]
    """-1: all samples."""
    ratio: Float[np.ndarray, " T"]
    """α/σ > 0, in the samples' unit."""


@dataclasses.dataclass(frozen=True, eq=False)
class PathSums:
    """What the posterior says of each path at each time; NaN where it is not `answered`. float64."""

    log_weight: Float[np.ndarray, "T B"]
    """log Σ prior exp(-‖x_t - α y‖² / 2σ²)."""
    top1_weight: Float[np.ndarray, "T B"]
    top1_index: Int[np.ndarray, "T B"]
    entropy: Float[np.ndarray, "T B"]
    effective_samples: Float[np.ndarray, "T B"]
    variance: Float[np.ndarray, "T B"]
    """tr Cov[y | x_t]; NaN unless means are asked for."""
    square_distance: Float[np.ndarray, "T B"]
    """‖E[y | x_t] - x_1‖²; NaN unless means are asked for."""
    answered: Bool[np.ndarray, "T B"]

    @classmethod
    def none(cls, times: int, paths: int) -> "PathSums":
        """Nothing answered yet."""
        unknown = {f.name: np.full((times, paths), np.nan) for f in dataclasses.fields(cls)}
        return cls(**unknown | {"top1_index": np.full((times, paths), -1, np.int32), "answered": np.zeros((times, paths), bool)})


def path_posterior(samples: HostSamples, paths: Paths, rows: Int[np.ndarray, " m"], *, means: bool) -> PathSums:
    """The posterior of the paths `rows` at every time.

    Args:
      rows: of paths whose x_0 and x_1 are finite and whose class has samples.
      means: whether variance and square distance are wanted: where many samples carry weight they cost one more product for each time.
    """
    found = PathSums.none(len(paths.ratio), len(paths.x_0))
    tiles = []
    most = TUNING.tile_queries if not means else int(np.clip(TUNING.path_means // (samples.d * len(paths.ratio)), 1, TUNING.tile_queries))
    for label in np.unique(paths.label[rows]):
        mine = rows[paths.label[rows] == label]
        parts = max(-(-len(mine) // most), min(cores(), len(mine) // TUNING.least_paths))
        tiles += [(samples.part(int(label)), tile) for tile in np.array_split(mine, max(parts, 1))]

    def answer(k: int) -> None:
        part, tile = tiles[k]
        x_0, x_1, label = (np.require(v[tile], requirements=["C", "W"]) for v in paths[:3])
        some = Paths(x_0, x_1, label, paths.ratio)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # of scores that float32 does not hold: they are not answered
            one = _PathTile(samples, part, some, means).answer()
        for field in dataclasses.fields(PathSums):
            getattr(found, field.name)[:, tile] = getattr(one, field.name)

    in_turn(len(tiles), answer)
    return found


class _PathTile:
    """The posterior of one tile of paths, over the samples that count for them, computed by one thread."""

    def __init__(self, samples: HostSamples, part: slice, paths: Paths, means: bool):
        self.samples, self.part, self.paths, self.means = samples, part, paths, means
        b, ratio = len(paths.x_0), paths.ratio
        centred = paths.x_1.astype(np.float64) - samples.center
        noise, away = paths.x_0.astype(np.float64), samples.center - samples.shift
        square, along, self._noise = (np.einsum("bi,bi->b", *two) for two in ((centred, centred), (centred, noise), (noise, noise)))
        self._factors = np.concatenate([centred, noise]).astype(np.float32)
        to_offset = centred @ away, noise @ away
        self._offsets = np.stack([-to_offset[0] - square / 2, -to_offset[1] - along]).astype(np.float32)
        # What float32 rounds: sizes of the two numbers, and of the sums on the way to them.
        spread = samples.mean_square / samples.d
        self._sizes = (
            np.abs(to_offset[0]) + (samples.mean_square + square) / 2 + 2 * np.sqrt(square * spread),
            np.abs(to_offset[1]) + np.abs(along) + 2 * np.sqrt(self._noise * spread),
        )
        r = ratio[:, None]
        self._error = error_of_scores(samples.d, r**2 * self._sizes[0] + r * self._sizes[1])
        length = np.sqrt(square), np.sqrt(self._noise)
        reach = r**2 * (length[0] * samples.radius + samples.radius**2 / 2) + r * length[1] * samples.radius
        self._equal = reach < TUNING.equal_scores
        self._fits = r**2 * (length[0] + samples.radius) ** 2 + r * length[1] * (length[0] + samples.radius) < LARGEST_SCORE
        self._turn = 2 * UNIT * r**2 * length[0] / samples.d**0.5
        share = np.minimum(1, (TUNING.score_error / np.maximum(self._error, TUNING.score_error)) ** 2)
        if samples.has_near_copies:  # whose rounding does not average out
            share = np.where(self._error > TUNING.score_error, 0, share)
        width = np.maximum(1, 4 * samples.radius**2 * r**2 / (samples.d / 2)) if means else 1.0  # of the data, beside the noise
        with np.errstate(divide="ignore"):
            self._log_share = np.log(share)
        self._cut = np.log(samples.n * width / TUNING.hidden) + 2 * TUNING.sure_deviations * self._error
        self._near = np.where(self._equal, np.inf, -np.maximum(TUNING.sure_deviations * self._error, 4 * UNIT))
        self._ratio = ratio.astype(np.float32)
        shape = len(ratio), b
        self._peak = np.full(shape, -np.inf, np.float32)
        self._floor = np.full(shape, -np.inf)
        self._sums, self._total = np.zeros((len(ratio), 4, b)), np.zeros(shape)
        self._mean = np.zeros((*shape, samples.d if means else 0))
        self._counts, self._candidates = np.zeros(b, np.int64), [np.zeros((2, 0), np.int32)]

    def answer(self) -> PathSums:
        """Over all samples of the part."""
        first, last, size = self.part.start, self.part.stop, TUNING.path_rows
        if last - first > 2 * size:
            self._floor = self._weight_of(np.arange(first, last, (last - first) // size + 1))
        for start in range(first, last, size):
            self._add(slice(start, min(start + size, last)))
        return self._finished()

    def _pairs_with(self, rows: slice | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The samples less the shift, their log priors, and the two numbers of each with each path, all float32; `peak` is raised."""
        values = self.samples.rows[rows]
        if values.dtype != np.float32 or self.samples.far:
            values = np.subtract(values, self.samples.shift, dtype=np.float32)
        pairs = (values @ self._factors.T).reshape(len(values), 2, -1)
        path_kernels.pair_numbers(pairs, (self.samples.square_norms[rows] / 2).astype(np.float32), self._offsets)
        prior = self.samples.log_prior[rows].astype(np.float32)
        path_kernels.path_peaks(pairs, prior, self._ratio, self._peak)
        return values, prior, pairs

    def _weight_of(self, rows: np.ndarray) -> Float[np.ndarray, "T B"]:
        """log Σ w of some samples: the whole weight is no less."""
        _, prior, pairs = self._pairs_with(rows)
        sums, every, none = np.zeros_like(self._sums), np.ones(len(rows), bool), np.full(self._peak.shape[1], -np.inf, np.float32)
        for t, ratio in enumerate(self._ratio):
            path_kernels.path_weights(pairs, prior, ratio, self._peak[t], none, every, sums[t], np.empty((1, len(none)), np.float32))
        return self._peak + np.log(np.maximum(sums[:, 0], 1e-300))

    def _add(self, rows: slice) -> None:
        """A block of samples."""
        before = self._peak.copy()
        values, prior, pairs = self._pairs_with(rows)
        self._lower(before)
        n, _, b = pairs.shape
        whole = np.log(np.maximum(np.maximum(self._total, np.exp(self._floor - self._peak)), 1))
        negligible = whole - self._cut
        candidate = np.maximum(np.minimum(self._log_share + whole, self._near), negligible)
        limits = path_kernels.PathLimits(
            self._peak, (self._peak + negligible).astype(np.float32), (self._peak + candidate).astype(np.float32)
        )
        room, active = np.empty((2, n * b), np.int32), np.empty((len(self._ratio), n), bool)
        count = path_kernels.path_candidates(pairs, prior, self._ratio, limits, (room[0], room[1]), self._total, active)
        if count:
            self._candidates.append(room[:, :count] + np.array([[rows.start], [0]], np.int32))
            self._counts += np.bincount(room[1, :count], minlength=b)
        weights = np.empty((n if self.means else 1, b), np.float32)
        for t in np.flatnonzero(active.any(axis=1)):
            of_time, known = self._sums[t], self._sums[t, 0].copy()
            some = path_kernels.path_weights(pairs, prior, self._ratio[t], self._peak[t], limits.negligible[t], active[t], of_time, weights)
            self._total[t] += of_time[0] - known
            if not self.means or not some:
                continue
            if some <= TUNING.sparse_weights * weights.size:
                product = np.zeros((b, values.shape[1]), np.float32)
                numba_kernels.add_rows(weights, values, product)
            else:
                product = weights.T @ values
            self._mean[t] += product

    def _lower(self, before: Float[np.ndarray, "T B"]) -> None:
        """Sums relative to another peak."""
        fall = np.where(np.isneginf(before), 0.0, before.astype(np.float64) - self._peak)
        times, paths = np.nonzero(fall)
        if times.size:
            fall = fall[times, paths]
            scale = np.exp(fall)
            self._sums[times, 2, paths] += fall * self._sums[times, 0, paths]
            self._sums[times, :, paths] *= np.stack([scale, scale**2, scale, scale], axis=1)
            self._total[times, paths] *= scale
            self._mean[times, paths] *= scale[:, None]

    def _finished(self) -> PathSums:
        samples, paths = self.samples, self.paths
        enough = self._counts <= TUNING.most_candidates
        rows, queries = np.concatenate(self._candidates, axis=1)
        kept = enough[queries]
        rows, queries = np.ascontiguousarray(rows[kept]), np.ascontiguousarray(queries[kept])
        numbers = np.empty((2, len(rows)))
        path_kernels.exact_pairs(samples.rows, paths.x_1, paths.x_0, rows, queries, numbers)
        pairs = rows, queries, numbers
        highest, whose = np.full(self._peak.shape, -np.inf), np.full(self._peak.shape, self.part.start, np.int32)
        path_kernels.heaviest_pairs(pairs, samples.log_prior, samples.original, paths.ratio, highest, whose)
        peak = np.where(np.isneginf(highest), self._peak, highest)
        sums, light = self._sums, self._sums[:, 0].copy()
        rise = np.where(light > 0, np.minimum(self._peak - peak, 600), 0)
        scale = np.exp(rise)
        sums[:, 2] += rise * light
        sums *= np.stack([scale, scale**2, scale, scale], axis=1)
        light *= scale
        self._mean *= scale[:, :, None]
        if self.means:
            self._mean -= light[:, :, None] * (paths.x_1.astype(np.float64) - samples.shift)
        least = 1e-12 if self.means else np.inf
        path_kernels.add_exact_pairs(samples.rows, paths.x_1, pairs, samples.log_prior, paths.ratio, peak, least, (sums, self._mean))
        whole, squares, scores, distances = sums.transpose(1, 0, 2)
        away = -2 * distances / whole
        moved = np.einsum("tbi,tbi->tb", self._mean, self._mean) / whole**2 if self.means else np.full(whole.shape, np.nan)
        variance = np.maximum(away - moved, 0)
        if self._equal.any():
            part = samples.log_prior[self.part]
            heaviest = self.part.start + np.flatnonzero(part == part.max())
            whose = np.where(self._equal, heaviest[samples.original[heaviest].argmin()], whose)
        return PathSums(
            log_weight=peak + np.log(whole) - self._noise / 2,
            top1_weight=1 / whole,
            top1_index=samples.original[whose].astype(np.int32),
            entropy=np.maximum(np.log(whole) - scores / whole, 0),
            effective_samples=whole**2 / squares,
            variance=variance,
            square_distance=moved,
            answered=enough & self._fits & self._sure(whose, light / whole, away, variance),
        )

    def _sure(self, top: np.ndarray, light: np.ndarray, away: np.ndarray, variance: np.ndarray) -> Bool[np.ndarray, "T B"]:
        """Where float32 shows in no result.

        Args:
          top: `[T, B]` the heaviest sample.
          light: `[T, B]` share of the weight that has float32 scores.
          away: `[T, B]` Σ γ ‖y - x_1‖², at least the variance.
        """
        r = self.paths.ratio[:, None]
        size = r**2 * (self._sizes[0] + self.samples.square_norms[top] / 2) + r * self._sizes[1]
        sure = error_of_scores(self.samples.d, size) <= TUNING.unexpected_error * np.maximum(self._error, TUNING.score_error)
        # x_1 - c is rounded to float32 once for all samples, and near-copies have their rounding in common.
        spread = np.sqrt(variance if self.means else away)
        steady = self._turn * spread <= TUNING.common_rounding
        if self.samples.has_near_copies:
            steady &= self._error <= TUNING.common_rounding
        sure &= steady | (light == 0)
        if self.means:
            sure &= (variance >= TUNING.least_spread * light * away) | self._equal
        return sure
