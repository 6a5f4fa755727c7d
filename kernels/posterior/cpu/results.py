"""What the CPU engine is asked, and what it answers; how queries are cut into tiles."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from kernels.posterior.cpu.host_samples import HostSamples
from kernels.posterior.cpu.tuning import TUNING
from kernels.posterior.types import Moments


class Queries(NamedTuple):
    """Noisy queries on the host: `Queries` of `kernels.posterior.types` before any scores are asked for."""

    x: Float[np.ndarray, "B D"]
    """float32, or float64 where samples are in a unit of their own."""
    alpha: Float[np.ndarray, " B"]
    sigma: Float[np.ndarray, " B"]
    velocity_center: Float[np.ndarray, " B"]
    """κ in the velocity `A (E[y | x] - κ x)` that the mean is wanted for."""
    velocity_rate: Float[np.ndarray, " B"]
    """A."""
    label: Int[np.ndarray, " B"]
    """-1: all samples."""

    def at(self, rows: np.ndarray) -> "Queries":
        """Some of them, in this order; writable, for numba compiles anew for what is not."""
        if len(rows) == len(self.x) and (np.diff(rows) > 0).all():
            return Queries(*(np.require(v, requirements=["C", "W"]) for v in self))
        return Queries(*(np.ascontiguousarray(v[rows]) for v in self))


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Answer(Moments):
    """Moments of a batch, in NumPy arrays, and the velocity; NaN where a query is not `answered`. `[B, D]` is float32, `[B]` float64."""

    denoised: Float[np.ndarray, "B D"]
    log_density: Float[np.ndarray, " B"]
    top1_weight: Float[np.ndarray, " B"]
    top1_index: Int[np.ndarray, " B"]
    entropy: Float[np.ndarray, " B"]
    effective_samples: Float[np.ndarray, " B"]
    variance: Float[np.ndarray, " B"]
    error_bound: Float[np.ndarray, " B"]
    velocity: Float[np.ndarray, "B D"]
    """A (E[y | x] - κ x), from float64."""
    answered: Bool[np.ndarray, " B"]
    survivors: Int[np.ndarray, " B"]
    """How many samples were weighed one by one, or would have to be; 0 where none is."""

    @classmethod
    def none(cls, b: int, d: int) -> "Answer":
        """Nothing answered yet."""
        denoised, velocity = (np.full((b, d), np.nan, np.float32) for _ in range(2))
        vectors = {name: np.full(b, np.nan) for name in _VECTORS}
        top, answered, survivors = np.full(b, -1, np.int32), np.zeros(b, bool), np.zeros(b, np.int64)
        return cls(denoised=denoised, velocity=velocity, top1_index=top, answered=answered, survivors=survivors, **vectors)

    def put(self, rows: np.ndarray, other: "Answer") -> None:
        """Take over the rows of another."""
        for field in dataclasses.fields(self):
            getattr(self, field.name)[rows] = getattr(other, field.name)

    def times(self, unit: float) -> "Answer":
        """The moments of data that are `unit` times as large."""
        with np.errstate(over="ignore", under="ignore"):
            return dataclasses.replace(
                self,
                denoised=self.denoised * np.float32(unit),
                velocity=self.velocity * np.float32(unit),
                log_density=self.log_density - self.denoised.shape[1] * np.log(unit),
                variance=self.variance * unit**2,
                error_bound=self.error_bound * unit,
            )


_VECTORS = ("log_density", "top1_weight", "entropy", "effective_samples", "variance", "error_bound")


def by_tiles(
    samples: HostSamples, queries: Queries, rows: np.ndarray, compute: Callable[[slice, Queries, np.ndarray], Answer], into: Answer
) -> None:
    """`compute(part, tile, their rows)` for the queries `rows`, those of a class together, and put where they belong."""
    for part, tile in tiles_of(samples, queries, rows):
        into.put(tile, compute(part, queries.at(tile), tile))


def tiles_of(samples: HostSamples, queries: Queries, rows: np.ndarray, size: int = TUNING.tile_queries) -> list[tuple[slice, np.ndarray]]:
    """The queries `rows` class by class, at most `size` together, each with the samples of the class."""
    found = []
    for label in np.unique(queries.label[rows]):
        mine = rows[queries.label[rows] == label]
        found += [(samples.part(int(label)), mine[start : start + size]) for start in range(0, len(mine), size)]
    return found


def log_density_of(samples: HostSamples, part: slice, log_weight: np.ndarray, sigma: np.ndarray) -> Float[np.ndarray, " B"]:
    """From log Σ prior exp(-‖x - α y‖² / 2σ²) to the density of the mixture, nats."""
    return log_weight - samples.d / 2 * np.log(2 * np.pi * sigma**2) - samples.log_mass(part)
