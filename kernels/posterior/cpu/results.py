"""Result containers of the CPU engine, and how it cuts queries into tiles."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from kernels.posterior.cpu.host_samples import HostSamples
from kernels.posterior.cpu.tuning import TUNING
from kernels.posterior.types import Moments, Queries, as_slice


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class HostMoments(Moments):
    """`Moments` that the CPU engine has computed, in NumPy arrays, and the velocity; `without_others` is NaN where one is not `answered`.

    Arrays `[B, D]` are float32, arrays `[B]` float64.
    """

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
    """Number of samples that were weighed one by one, or that a query left unanswered would need."""

    @classmethod
    def none(cls, b: int, d: int) -> "HostMoments":
        """Of `b` queries, none of which is answered yet: their arrays `[B, D]` hold anything."""
        denoised, velocity = (aligned((b, d)) for _ in range(2))
        vectors = {name: np.full(b, np.nan) for name in _VECTORS}
        top, answered, survivors = np.full(b, -1, np.int32), np.zeros(b, bool), np.zeros(b, np.int64)
        return cls(denoised=denoised, velocity=velocity, top1_index=top, answered=answered, survivors=survivors, **vectors)

    def without_others(self) -> "HostMoments":
        """The same, with NaN in the arrays `[B, D]` where a query is not answered."""
        if not self.answered.all():
            self.denoised[~self.answered] = self.velocity[~self.answered] = np.nan
        return self

    def put(self, rows: np.ndarray, other: "HostMoments") -> None:
        """Replace these rows by those of another, in place."""
        for field in dataclasses.fields(self):
            getattr(self, field.name)[rows] = getattr(other, field.name)

    @contextlib.contextmanager
    def at(self, rows: Int[np.ndarray, " m"]) -> Iterator["HostMoments"]:
        """These rows, to be filled: in place where they follow each other, elsewhere put back at the end."""
        where = as_slice(rows)
        if isinstance(where, slice):
            yield HostMoments(**{field.name: getattr(self, field.name)[where] for field in dataclasses.fields(self)})
        else:
            own = HostMoments.none(len(rows), self.denoised.shape[1])
            yield own
            self.put(rows, own)

    def times(self, unit: float | Array) -> "HostMoments":
        """The moments of data that are `unit` times as large; beyond float32 infinite, or 0."""
        with np.errstate(over="ignore", under="ignore"):
            return dataclasses.replace(super().times(unit), velocity=self.velocity * unit)


def aligned(shape: tuple[int, int]) -> Float[np.ndarray, "B D"]:
    """An array of float32 that is not filled, and that JAX takes on a CPU as it is: its memory begins where a line of a cache does."""
    size, line = 4 * math.prod(shape), 64
    memory = np.empty(size + line, np.uint8)
    start = -memory.ctypes.data % line
    return memory[start : start + size].view(np.float32).reshape(shape)


_VECTORS = ("log_density", "top1_weight", "entropy", "effective_samples", "variance", "error_bound")


def by_tiles(
    samples: HostSamples,
    queries: Queries,
    rows: np.ndarray,
    compute: Callable[[slice, Queries, np.ndarray], HostMoments],
    into: HostMoments,
) -> None:
    """`compute(part, queries of the tile, tile)` for each tile of the queries `rows`, its result put into `into`. See `tiles_of`."""
    for part, tile in tiles_of(samples, queries, rows):
        into.put(tile, compute(part, queries.at(tile), tile))


def tiles_of(samples: HostSamples, queries: Queries, rows: np.ndarray, size: int = TUNING.tile_queries) -> list[tuple[slice, np.ndarray]]:
    """Tiles of the queries `rows`: the rows of the class's samples, and at most `size` queries of that class."""
    tiles = []
    for label in np.unique(queries.label[rows]):
        mine = rows[queries.label[rows] == label]
        tiles += [(samples.part(int(label)), mine[start : start + size]) for start in range(0, len(mine), size)]
    return tiles


def log_density_of(samples: HostSamples, queries: Queries, log_weight: np.ndarray) -> Float[np.ndarray, " B"]:
    """From log Σ prior exp(-‖x - α y‖² / 2σ²) to the density of the mixture, nats."""
    return log_weight - samples.d / 2 * np.log(2 * np.pi * queries.sigma**2) - samples.log_masses(queries.label)
