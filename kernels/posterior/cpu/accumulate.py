"""From pairs of sample and query to moments: the heavy ones exactly, from differences; light ones by the scores they have."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from kernels.posterior.cpu import numba_kernels
from kernels.posterior.cpu.index import Index
from kernels.posterior.cpu.results import Found, Queries, log_density_of
from kernels.posterior.cpu.threads import cores, in_turn

HIDDEN = 1e-7
"""Share of a query's weight that a float32 result cannot show: samples that together weigh no more may be left out."""
PIECE = 2**12
"""Pairs that are weighed together."""
ALONE = 4
"""Pairs for each query up to which one core weighs them all."""
SURPRISE = 30.0
"""Nats by which a sample may outweigh what was taken for the heaviest before weights are made anew, relative to its own."""


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
    def together(cls, parts: list["Pairs"]) -> "Pairs":
        """Of all parts."""
        return cls(*(np.concatenate(v) for v in zip(*parts, strict=True)))

    def where(self, keep: np.ndarray) -> "Pairs":
        """Some of them."""
        return Pairs(*(v[keep] for v in self))


class Heavy(NamedTuple):
    """A heavy sample of each query, about which its moments are taken."""

    row: Int[np.ndarray, " B"]
    peak: Float[np.ndarray, " B"]
    """Its log weight `-‖x - α y‖² / 2σ² + log prior`, exact."""
    score: Float[np.ndarray, " B"]
    """The same about the data's centre, without the query's own norm: `-‖x - α c‖² / 2σ²` less."""
    base: Float[np.ndarray, "B D"]
    """Itself, float64."""
    square: Float[np.ndarray, " B"]
    """‖x - α y‖²."""
    moving: Float[np.ndarray, " B"]
    """‖y - κ x‖²."""

    @classmethod
    def at(cls, index: Index, queries: Queries, rows: Int[np.ndarray, " B"]) -> "Heavy":
        """Of the sample `rows[q]` for query q."""
        x, alpha, sigma, velocity_center, _ = queries
        base, square, moving, score = np.empty(x.shape), *(np.empty(len(x)) for _ in range(3))
        numba_kernels.around(x, alpha, sigma, velocity_center, index.center, index.rows, rows, base, square, moving, score)
        prior = index.log_prior[rows]
        return cls(rows, prior - square / (2 * sigma**2), prior + score, base, square, moving)


class Light(NamedTuple):
    """Sums over samples of no weight to speak of each, with weights relative to the peak of `Heavy`."""

    sums: Float[np.ndarray, "4 B"]
    """Σ w, Σ w², Σ w log w, Σ w ‖y - c‖²."""
    weighted: Float[np.ndarray, "B D"]
    """Σ w y."""


def moments(
    index: Index,
    part: slice,
    queries: Queries,
    heavy: Heavy,
    cut: Float[np.ndarray, " B"],
    pairs: Pairs,
    logs: Float[np.ndarray, " P"],
    sure: np.ndarray,
    light: Light | None = None,
) -> tuple[Found, Float[np.ndarray, " B"]]:
    """Moments of queries over these pairs, and over the light samples; and their whole weight, relative to the peak.

    Args:
      cut: pairs that far below the peak are left out; as `error_bound` stands what they weigh, as a share of the heaviest.
      logs: log weights of the pairs relative to the peak; where not `sure`, they are computed from differences.
    """
    found = Found.none(len(queries.x), index.d)
    # Query by query, so that its sums stay in a core's first caches; some pairs at a time, so that samples stay in the last one.
    pieces = np.array_split(pairs.queries.astype(np.int16), max(1, len(logs) // PIECE))
    firsts = np.cumsum([0, *(len(piece) for piece in pieces[:-1])])
    order = np.concatenate([first + np.argsort(piece, kind="stable") for first, piece in zip(firsts, pieces, strict=True)])
    pairs, logs, sure = pairs.where(order), logs[order], sure[order]
    heavy, heaviest, mean, sums = _weighed(index, queries, heavy, cut, pairs, logs, sure, light)
    with np.errstate(invalid="ignore", divide="ignore"):  # of those that have no pairs
        total, square, score, away, _, _, below = sums.T
        mean /= total[:, None]
        top1 = np.exp(heaviest.rise) / total
        found.denoised[:] = heavy.base + mean
        found.log_density[:] = log_density_of(index, part, heavy.peak + np.log(total), queries.sigma)
        found.top1_weight[:] = top1
        found.entropy[:] = np.maximum(np.log(total) - score / total, 0)
        found.effective_samples[:] = total**2 / square
        found.variance[:] = np.maximum(away / total - np.einsum("qi,qi->q", mean, mean), 0)
        found.error_bound[:] = below / total / top1
    found.top1_index[:] = index.original[heaviest.row]
    return found, total


class _Heaviest(NamedTuple):
    rise: Float[np.ndarray, " B"]
    """Its log weight relative to that of the sample about which the moments are taken."""
    row: Int[np.ndarray, " B"]


def _weighed(
    index: Index,
    queries: Queries,
    heavy: Heavy,
    cut: np.ndarray,
    pairs: Pairs,
    logs: np.ndarray,
    sure: np.ndarray,
    light: Light | None,
) -> tuple[Heavy, _Heaviest, np.ndarray, np.ndarray]:
    """About whom, the heaviest, Σ w (y - base), and the sums of `native.add_pairs`, with all of Σ w ‖y - base‖² in the fourth."""
    x, alpha, sigma, _, _ = queries
    of_rows = index.rows, index.square_norms, index.log_prior, index.original
    own_prior, reflected = index.log_prior[heavy.row], 2 * x - alpha[:, None] * heavy.base

    parts = cores() if len(pairs.rows) > ALONE * len(x) else 1  # sums of their own cost each part more than a few pairs do

    def work(part: int) -> tuple[np.ndarray, ...]:
        mean, more, sums = np.zeros(x.shape), np.zeros(x.shape, np.float32), np.zeros((len(x), 7))
        highest, whose = np.full(len(x), -np.inf), heavy.row.copy()  # so that all are computed by the same code, and ties are
        some = pairs.rows, pairs.queries, logs, sure, *(len(pairs.rows) * k // parts for k in (part, part + 1))
        numba_kernels.add_pairs(reflected, alpha, sigma, *of_rows, heavy.base, own_prior, cut, *some, mean, more, sums, highest, whose)
        return mean, more, sums, highest, whose

    every = in_turn(parts, work) if parts > 1 else [work(0)]
    heaviest = _highest(index, [one[3:] for one in every])
    rise = np.where(np.isneginf(heaviest.rise), 0, heaviest.rise)
    heaviest = heaviest._replace(rise=rise)
    if (rise > SURPRISE).any():  # then the weights may overflow
        if light is not None:
            fall = np.exp(-rise)
            sums = light.sums * np.stack([fall, fall**2, fall, fall])
            sums[2] -= rise * sums[0]
            light = Light(sums, light.weighted * fall[:, None])
        logs = logs - rise[pairs.queries]
        return _weighed(index, queries, Heavy.at(index, queries, heaviest.row), cut, pairs, logs, sure, light)
    mean, more, sums = (sum(v[1:], start=v[0]) for v in zip(*(one[:3] for one in every), strict=True))
    weighted = more.astype(np.float64)
    if light is not None:
        sums[:, :3] += light.sums[:3].T
        sums[:, 4:6] += light.sums[::3].T
        weighted += light.weighted
    if sums[:, 4].any():
        moved = weighted - sums[:, 4, None] * heavy.base
        # Σ w ‖y - base‖² = Σ w ‖y - c‖² - 2 Σ w (y - base)·(base - c) - Σ w ‖base - c‖²
        away = heavy.base - index.center
        sums[:, 3] += np.maximum(sums[:, 5] - 2 * np.sum(moved * away, axis=1) - sums[:, 4] * np.sum(away**2, axis=1), 0)
        mean += moved
    return heavy, heaviest, mean, sums


def _highest(index: Index, every: list[tuple[np.ndarray, ...]]) -> _Heaviest:
    """Of what each core found as highest log weight, and whose: the caller's lowest index among equals."""
    peaks, whose = (np.stack(v) for v in zip(*every, strict=True))
    lowest = np.where(peaks == peaks.max(axis=0), index.original[whose], np.iinfo(np.int32).max).argmin(axis=0)
    own = np.arange(peaks.shape[1])
    return _Heaviest(peaks[lowest, own], whose[lowest, own])
