"""What the host's ways to a posterior answer with, and how queries are cut into tiles for them."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from kernels.posterior.cpu.index import Index

TILE = 128
"""Queries that are computed together."""


class Queries(NamedTuple):
    """Noisy queries on the host, float64: `Queries` of `kernels.posterior.queries` before any scores are asked for."""

    x: Float[np.ndarray, "B D"]
    alpha: Float[np.ndarray, " B"]
    sigma: Float[np.ndarray, " B"]
    velocity_center: Float[np.ndarray, " B"]
    """κ in the velocity `A (E[y | x] - κ x)` that the mean is wanted for."""
    label: Int[np.ndarray, " B"]
    """-1: all samples."""

    def at(self, rows: np.ndarray) -> "Queries":
        """Some of them, in this order; writable, for numba compiles anew for what is not."""
        if len(rows) == len(self.x) and (np.diff(rows) > 0).all():
            return Queries(*(np.require(v, requirements=["C", "W"]) for v in self))
        return Queries(*(np.ascontiguousarray(v[rows]) for v in self))


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """Moments of a batch, float64, as `kernels.posterior.api.Moments` names them; NaN where a query is not `answered`."""

    denoised: Float[np.ndarray, "B D"]
    log_density: Float[np.ndarray, " B"]
    top1_weight: Float[np.ndarray, " B"]
    top1_index: Int[np.ndarray, " B"]
    entropy: Float[np.ndarray, " B"]
    effective_samples: Float[np.ndarray, " B"]
    variance: Float[np.ndarray, " B"]
    error_bound: Float[np.ndarray, " B"]
    answered: np.ndarray
    standing: Int[np.ndarray, " B"]
    """How many samples were weighed one by one, or would have to be; 0 where none is."""

    @classmethod
    def none(cls, b: int, d: int) -> "Found":
        """Nothing answered yet."""
        vectors = {name: np.full(b, np.nan) for name in _VECTORS}
        top, answered, standing = np.full(b, -1, np.int32), np.zeros(b, bool), np.zeros(b, np.int64)
        return cls(np.full((b, d), np.nan), top1_index=top, answered=answered, standing=standing, **vectors)

    def put(self, rows: np.ndarray, other: "Found") -> None:
        """Take over the rows of another."""
        for field in dataclasses.fields(self):
            getattr(self, field.name)[rows] = getattr(other, field.name)

    def times(self, unit: float) -> "Found":
        """The moments of data that are `unit` times as large."""
        density = self.log_density - self.denoised.shape[1] * np.log(unit)
        return dataclasses.replace(
            self,
            denoised=self.denoised * unit,
            log_density=density,
            variance=self.variance * unit**2,
            error_bound=self.error_bound * unit,
        )


_VECTORS = ("log_density", "top1_weight", "entropy", "effective_samples", "variance", "error_bound")


def by_tiles(index: Index, queries: Queries, rows: np.ndarray, compute: Callable[[slice, Queries, np.ndarray], Found], into: Found) -> None:
    """`compute(part, tile, their rows)` for the queries `rows`, those of a class together, and put where they belong."""
    for label in np.unique(queries.label[rows]):
        part = index.part(int(label))
        mine = rows[queries.label[rows] == label]
        for start in range(0, len(mine), TILE):
            tile = mine[start : start + TILE]
            into.put(tile, compute(part, queries.at(tile), tile))


def log_density_of(index: Index, part: slice, log_weight: np.ndarray, sigma: np.ndarray) -> Float[np.ndarray, " B"]:
    """From log Σ prior exp(-‖x - α y‖² / 2σ²) to the density of the mixture, nats."""
    return log_weight - index.d / 2 * np.log(2 * np.pi * sigma**2) - index.log_mass(part)
