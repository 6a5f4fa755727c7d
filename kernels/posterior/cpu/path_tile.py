"""Sums of the posterior along whole paths, for one tile of paths: what is added up over samples, and the result."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from kernels.posterior.cpu import numba_kernels, path_kernels
from kernels.posterior.cpu.expected_scores import error_of_scores
from kernels.posterior.cpu.host_samples import HostSamples
from kernels.posterior.cpu.products import weighted_sums
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

    def at(self, rows: Int[np.ndarray, " m"]) -> "Paths":
        """Some of them; writable, because numba compiles anew for arrays that are not."""
        x_0, x_1, label = (np.require(v[rows], requirements=["C", "W"]) for v in self[:3])
        return Paths(x_0, x_1, label, self.ratio)


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

    def put(self, paths: Int[np.ndarray, " m"], other: "PathSums") -> None:
        """Replace some paths by those of another, in place."""
        for field in dataclasses.fields(self):
            getattr(self, field.name)[:, paths] = getattr(other, field.name)


class Extent(NamedTuple):
    """A data set as the rounding of scores depends on it. `HostSamples` has all of it too."""

    n: int
    d: int
    center: Float[np.ndarray, " D"]
    """float64."""
    shift: Float[np.ndarray, " D"]
    """float32, subtracted from samples before a product."""
    mean_square: float
    """Mean of ‖y - center‖²."""
    radius: float
    """max ‖y - center‖."""
    has_near_copies: bool
    """Whether many samples are copies of others but for less than a product's rounding."""


class Block(NamedTuple):
    """Some samples."""

    rows: Int[np.ndarray, " n"]
    """Where they are found again."""
    values: Float[np.ndarray, "n D"]
    """float32, less the shift."""
    square_norms: Float[np.ndarray, " n"]
    """‖y - center‖²."""
    log_prior: Float[np.ndarray, " n"]
    """float32."""


class Candidates(NamedTuple):
    """Samples of a tile's candidates."""

    rows: Shaped[np.ndarray, "M D"]
    """At least one sample."""
    where: Int[np.ndarray, " P"]
    """Of each candidate its row there."""
    log_prior: Float[np.ndarray, " M"]
    square_norms: Float[np.ndarray, " M"]
    original: Int[np.ndarray, " M"]
    """The caller's index of each row."""
    first: int
    """The caller's index of the sample that is named where all scores are equal."""


class PathTile:
    """The sums of one tile of paths over the samples that count for them, block by block; one thread computes them.

    Args:
      samples: the whole data set: center, shift, mean_square, radius, n, d and has_near_copies of `HostSamples` are read.
      most: candidates of a path beyond which it is left unanswered.
    """

    def __init__(self, samples: Extent | HostSamples, paths: Paths, *, means: bool, most: int):
        self.samples, self.paths, self.means, self.most = samples, paths, means, most
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

    def _pairs_with(self, block: Block) -> np.ndarray:
        """The two numbers of each sample of a block with each path, float32; `peak` is raised."""
        pairs = (block.values @ self._factors.T).reshape(len(block.values), 2, -1)
        path_kernels.pair_numbers(pairs, (block.square_norms / 2).astype(np.float32), self._offsets)
        path_kernels.path_peaks(pairs, block.log_prior, self._ratio, self._peak)
        return pairs

    def begin_with(self, block: Block) -> None:
        """Take the weight of some samples for a bound of the whole weight from below: then few samples are candidates in vain."""
        pairs = self._pairs_with(block)
        sums, every, none = np.zeros_like(self._sums), np.ones(len(pairs), bool), np.full(self._peak.shape[1], -np.inf, np.float32)
        for t, ratio in enumerate(self._ratio):
            unkept = np.empty((1, len(none)), np.float32)
            path_kernels.path_weights(pairs, block.log_prior, ratio, self._peak[t], none, every, sums[t], unkept)
        self._floor = self._peak + np.log(np.maximum(sums[:, 0], 1e-300))

    def add(self, block: Block) -> None:
        """Add a block of samples."""
        before = self._peak.copy()
        values, prior, pairs = block.values, block.log_prior, self._pairs_with(block)
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
            self._candidates.append(np.stack([block.rows[room[0, :count]], room[1, :count]]))
            self._counts += np.bincount(room[1, :count], minlength=b)
        weights = np.empty((n if self.means else 1, b), np.float32)
        for t in np.flatnonzero(active.any(axis=1)):
            of_time, known = self._sums[t], self._sums[t, 0].copy()
            some = path_kernels.path_weights(pairs, prior, self._ratio[t], self._peak[t], limits.negligible[t], active[t], of_time, weights)
            self._total[t] += of_time[0] - known
            if not self.means or not some:
                continue
            if some <= TUNING.sparse_weights * weights.size:
                product = np.zeros((b, values.shape[1]))
                numba_kernels.add_rows(weights, values, 0, b, product)
            else:
                product = np.empty((b, values.shape[1]), np.float32)
                weighted_sums(weights, values, 0, values.shape[1], product)
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

    def candidates(self) -> Int[np.ndarray, " P"]:
        """The rows of all pairs that are to be computed from differences."""
        rows, queries = np.concatenate(self._candidates, axis=1)
        kept = (self._counts <= self.most)[queries]
        self._candidates = [np.stack([rows[kept], queries[kept]])]
        return rows[kept]

    def finish(self, found: Candidates) -> PathSums:
        """The posterior, once all blocks are added.

        Args:
          found: the samples of `candidates()`, in that order.
        """
        paths = self.paths
        queries = np.ascontiguousarray(self._candidates[0][1])
        numbers = np.empty((2, len(queries)))
        path_kernels.exact_pairs(found.rows, paths.x_1, paths.x_0, found.where, queries, numbers)
        pairs = found.where, queries, numbers
        highest, whose = np.full(self._peak.shape, -np.inf), np.zeros(self._peak.shape, np.int32)
        path_kernels.heaviest_pairs(pairs, found.log_prior, found.original, paths.ratio, highest, whose)
        peak = np.where(np.isneginf(highest) | self._equal, self._peak, highest)  # of equal scores few are those of candidates
        sums, light = self._sums, self._sums[:, 0].copy()
        rise = np.where(light > 0, np.minimum(self._peak - peak, 600), 0)
        scale = np.exp(rise)
        sums[:, 2] += rise * light
        sums *= np.stack([scale, scale**2, scale, scale], axis=1)
        light *= scale
        self._mean *= scale[:, :, None]
        if self.means:
            self._mean -= light[:, :, None] * (paths.x_1.astype(np.float64) - self.samples.shift)
        least = 1e-12 if self.means else np.inf
        path_kernels.add_exact_pairs(found.rows, paths.x_1, pairs, found.log_prior, paths.ratio, peak, least, (sums, self._mean))
        whole, squares, scores, distances = sums.transpose(1, 0, 2)
        away = -2 * distances / whole
        moved = np.einsum("tbi,tbi->tb", self._mean, self._mean) / whole**2 if self.means else np.full(whole.shape, np.nan)
        variance = np.maximum(away - moved, 0)
        return PathSums(
            log_weight=peak + np.log(whole) - self._noise / 2,
            top1_weight=1 / whole,
            top1_index=np.where(self._equal, found.first, found.original[whose]).astype(np.int32),
            entropy=np.maximum(np.log(whole) - scores / whole, 0),
            effective_samples=whole**2 / squares,
            variance=variance,
            square_distance=moved,
            answered=(self._counts <= self.most) & self._fits & self._sure(found.square_norms[whose], light / whole, away, variance),
        )

    def _sure(self, square_norm: np.ndarray, light: np.ndarray, away: np.ndarray, variance: np.ndarray) -> Bool[np.ndarray, "T B"]:
        """Where float32 shows in no result.

        Args:
          square_norm: `[T, B]` ‖y - c‖² of the heaviest sample.
          light: `[T, B]` share of the weight that has float32 scores.
          away: `[T, B]` Σ γ ‖y - x_1‖², at least the variance.
        """
        r = self.paths.ratio[:, None]
        size = r**2 * (self._sizes[0] + square_norm / 2) + r * self._sizes[1]
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
