"""From pairs of sample and query to moments: candidates exactly, from differences; the others by the approximate scores they have."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from kernels.posterior.cpu import numba_kernels
from kernels.posterior.cpu.host_samples import HostSamples
from kernels.posterior.cpu.results import Answer, Queries, log_density_of
from kernels.posterior.cpu.threads import cores, in_turn
from kernels.posterior.cpu.tuning import TUNING


class Pairs(NamedTuple):
    """Pairs of sample and query."""

    rows: Int[np.ndarray, " P"]
    queries: Int[np.ndarray, " P"]
    values: Float[np.ndarray, " P"]
    """Their scores, float64, ..."""
    widths: Float[np.ndarray, " P"]
    """... to within so much; infinity where they have yet to be computed."""

    @classmethod
    def none(cls, room: int = 0) -> "Pairs":
        """Room for so many."""
        return cls(*(np.empty(room, kind) for kind in (np.int32, np.int32, np.float64, np.float64)))

    @classmethod
    def unscored(cls, rows: Int[np.ndarray, " P"], queries: Int[np.ndarray, " P"]) -> "Pairs":
        """Whose scores have yet to be computed."""
        return cls(rows, queries, np.zeros(len(rows)), np.full(len(rows), np.inf))

    @classmethod
    def together(cls, parts: list["Pairs"]) -> "Pairs":
        """Of all parts."""
        return parts[0] if len(parts) == 1 else cls(*(np.concatenate(v) for v in zip(*parts, strict=True)))

    def where(self, keep: np.ndarray) -> "Pairs":
        """Some of them."""
        return Pairs(*(v[keep] for v in self))


class Pivots(NamedTuple):
    """A heavy sample of each query, about which its moments are taken."""

    row: Int[np.ndarray, " B"]
    log_weight: Float[np.ndarray, " B"]
    """`-‖x - α y‖² / 2σ² + log prior`, exact."""
    score: Float[np.ndarray, " B"]
    """The same about the data's centre, without the query's own norm: `-‖x - α c‖² / 2σ²` less."""
    position: Float[np.ndarray, "B D"]
    """Itself, float64."""
    reflected: Float[np.ndarray, "B D"]
    """2x - α y."""
    square: Float[np.ndarray, " B"]
    """‖x - α y‖²."""
    moving: Float[np.ndarray, " B"]
    """‖y - κ x‖²."""

    @classmethod
    def at(cls, samples: HostSamples, queries: Queries, rows: Int[np.ndarray, " B"]) -> "Pivots":
        """The sample `rows[q]` for query q."""
        x, alpha, sigma, velocity_center, _, _ = queries
        position, reflected = (np.empty(x.shape) for _ in range(2))
        square, moving, score = np.empty((3, len(x)))
        numba_kernels.around(
            x, alpha, sigma, velocity_center, samples.center, samples.rows, rows, position, reflected, square, moving, score
        )
        prior = samples.log_prior[rows]
        return cls(rows, prior - square / (2 * sigma**2), prior + score, position, reflected, square, moving)


class ApproximateSums(NamedTuple):
    """Sums over samples of little weight each, by approximate scores, with weights relative to the log weight of `Pivots`."""

    sums: Float[np.ndarray, "4 B"]
    """Σ w, Σ w², Σ w log w, Σ w ‖y - c‖²."""
    weighted: Float[np.ndarray, "B D"]
    """Σ w (y - shift), float32 or float64."""

    def scaled(self, rise: Float[np.ndarray, " B"]) -> "ApproximateSums":
        """Relative to a log weight that lies so much lower."""
        rise = np.where(self.sums[0] > 0, rise, 0.0)  # nothing is relative to anything
        scale = np.exp(rise)
        sums = self.sums * np.stack([scale, scale**2, scale, scale])
        sums[2] += rise * sums[0]
        weighted = self.weighted if not rise.any() else self.weighted * scale[:, None].astype(self.weighted.dtype)
        return ApproximateSums(sums, weighted)


class Task(NamedTuple):
    """One tile of queries, the samples that count for them, and where they are computed."""

    samples: HostSamples
    part: slice
    queries: Queries
    alone: bool
    """Whether this thread does all of it: other threads have tiles of their own."""

    def on_cores(self, count: int, work, least: int = 1):  # type: ignore[no-untyped-def]
        """`work(first, last)` over `count` things, divided over the cores if there are `least` for each."""
        parts = 1 if self.alone or count < least * cores() else cores()
        return in_turn(parts, lambda k: work(count * k // parts, count * (k + 1) // parts)) if parts > 1 else [work(0, count)]


class Weighed(NamedTuple):
    """Moments, and what says how exact they are."""

    answer: Answer
    total: Float[np.ndarray, " B"]
    """The whole weight, relative to the pivot's."""
    moving: Float[np.ndarray, " B"]
    """‖E[y | x] - κ x‖."""
    size: Float[np.ndarray, " B"]
    """‖E[y | x]‖."""


def moments(
    task: Task,
    pivots: Pivots,
    cut: Float[np.ndarray, " B"],
    pairs: Pairs,
    logs: Float[np.ndarray, " P"],
    sure: Bool[np.ndarray, " P"],
    others: ApproximateSums | None = None,
) -> Weighed:
    """Moments of the queries over these pairs and the other samples.

    Args:
      cut: pairs so far below the pivot are left out; as `error_bound` stands what they weigh, as a share of the heaviest.
      logs: log weights of the pairs relative to the pivot; where not `sure`, they are computed from differences.
      others: sums over samples that no pair names; then no pair is sure.
    """
    # Query by query, so that its sums stay in a core's first caches; some pairs at a time, so that samples stay in the last one.
    pieces = np.array_split(pairs.queries.astype(np.int16), max(1, len(logs) // TUNING.pairs_together))
    firsts = np.cumsum([0, *(len(piece) for piece in pieces[:-1])])
    order = np.concatenate([first + np.argsort(piece, kind="stable") for first, piece in zip(firsts, pieces, strict=True)])
    pairs, logs, sure = pairs.where(order), logs[order], sure[order]
    pivots, heaviest, mean, weighted, sums = _weighed(task, pivots, cut, pairs, logs, sure, others)
    samples, queries = task.samples, task.queries
    found = Answer.none(len(queries.x), samples.d)
    seconds, shift = np.empty((len(queries.x), 5)), samples.shift if others is not None else np.zeros(samples.d, np.float32)
    total, square, score, away, light, light_square, below = sums.T

    def finish(first: int, last: int) -> None:
        numba_kernels.finish(
            first, last, queries.x, queries.velocity_center, queries.velocity_rate, pivots.position, samples.center, shift,
            mean, weighted, light, total, found.denoised, found.velocity, seconds,
        )  # fmt: skip

    with np.errstate(invalid="ignore", divide="ignore"):  # of those that have no pairs
        task.on_cores(len(queries.x), finish, least=8)
        cross, from_center, apart, moving, size = seconds.T
        # Σ w ‖y - p‖² of the others = Σ w ‖y - c‖² - 2 Σ w (y - p)·(p - c) - Σ w ‖p - c‖², p the pivot
        away = away + np.maximum(light_square - 2 * cross - light * from_center, 0)
        top1 = np.exp(heaviest.rise) / total
        found.log_density[:] = log_density_of(samples, task.part, pivots.log_weight + np.log(total), queries.sigma)
        found.top1_weight[:] = top1
        found.entropy[:] = np.maximum(np.log(total) - score / total, 0)
        found.effective_samples[:] = total**2 / square
        found.variance[:] = np.maximum(away / total - apart, 0)
        found.error_bound[:] = below / total / top1
    found.top1_index[:] = samples.original[heaviest.row]
    return Weighed(found, total, np.sqrt(moving), np.sqrt(size))


class _Heaviest(NamedTuple):
    rise: Float[np.ndarray, " B"]
    """Its log weight relative to the pivot's."""
    row: Int[np.ndarray, " B"]


def _weighed(
    task: Task, pivots: Pivots, cut: np.ndarray, pairs: Pairs, logs: np.ndarray, sure: np.ndarray, others: ApproximateSums | None
) -> tuple[Pivots, _Heaviest, np.ndarray, np.ndarray, np.ndarray]:
    """The pivots, the heaviest, Σ w (y - pivot) of pairs that are not sure, Σ w y of the others, and the sums of `add_pairs`."""
    samples = task.samples
    x, alpha, sigma, _, _, _ = task.queries
    of_rows = samples.rows, samples.square_norms, samples.log_prior, samples.original
    own_prior = samples.log_prior[pivots.row]

    def work(first: int, last: int) -> tuple[np.ndarray, ...]:
        mean, sums = np.zeros(x.shape), np.zeros((len(x), 7))
        weighted = np.zeros(x.shape, np.float32) if others is None else np.empty((len(x), 0), np.float32)
        highest, whose = np.full(len(x), -np.inf), pivots.row.copy()  # so that all are computed by the same code, and ties are
        some = pairs.rows, pairs.queries, logs, sure, first, last
        result = mean, weighted, sums, highest, whose
        numba_kernels.add_pairs(pivots.reflected, alpha, sigma, *of_rows, pivots.position, own_prior, cut, *some, *result)
        return result

    every = task.on_cores(
        len(pairs.rows), work, least=TUNING.pairs_alone * len(x)
    )  # sums of its own cost each core more than a few pairs do
    heaviest = _highest(samples, [one[3:] for one in every])
    rise = np.where(np.isneginf(heaviest.rise), 0, heaviest.rise)
    heaviest = heaviest._replace(rise=rise)
    if (rise > TUNING.new_pivot).any():  # then the weights may overflow
        others = None if others is None else others.scaled(-rise)
        pivots = Pivots.at(samples, task.queries, heaviest.row)
        return _weighed(task, pivots, cut, pairs, logs - rise[pairs.queries], sure, others)
    mean, weighted, sums = (sum(v[1:], start=v[0]) for v in zip(*(one[:3] for one in every), strict=True))
    if others is not None:
        sums[:, :3] += others.sums[:3].T
        sums[:, 4:6] += others.sums[::3].T
        weighted = others.weighted
    return pivots, heaviest, mean, weighted, sums


def _highest(samples: HostSamples, every: list[tuple[np.ndarray, ...]]) -> _Heaviest:
    """Of what each core found as highest log weight, and whose: the caller's lowest index among equals."""
    if len(every) == 1:
        return _Heaviest(*every[0])
    peaks, whose = (np.stack(v) for v in zip(*every, strict=True))
    lowest = np.where(peaks == peaks.max(axis=0), samples.original[whose], np.iinfo(np.int32).max).argmin(axis=0)
    own = np.arange(peaks.shape[1])
    return _Heaviest(peaks[lowest, own], whose[lowest, own])
