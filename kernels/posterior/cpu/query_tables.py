"""Queries as an index reads them: directions, in its coordinates, and in 16 bits for products with its bytes."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int16

from kernels.posterior.cpu import numba_kernels
from kernels.posterior.cpu.bounds import COARSE
from kernels.posterior.cpu.index import Index, beyond, coordinates_of, in_columns
from kernels.posterior.cpu.threads import on_every_core, share
from kernels.posterior.cpu.tuning import UNIT


class Bits(NamedTuple):
    """Queries for products with bytes: unit ∘ g = step bits + remainder."""

    bits: Int16[np.ndarray, "B M"]
    step: Float[np.ndarray, " B"]
    lost: Float[np.ndarray, " B"]
    """At least the norm of the remainder."""
    length: Float[np.ndarray, " B"]
    """At least ‖g‖."""

    @classmethod
    def room(cls, b: int, m: int) -> "Bits":
        """Arrays for `b` queries of `m` numbers, not yet filled."""
        return cls(np.empty((b, m), np.int16), *(np.empty(b) for _ in range(3)))

    def fill(self, own: slice, g: Float[np.ndarray, "b M"], unit: Float[np.ndarray, " M"], longest: float) -> None:
        """The bits of the queries `own`, so small that int32 holds their products with bytes of norms up to `longest`."""
        rounding = 0.5 * g.shape[1] ** 0.5
        numba_kernels.to_bits(g, unit, max((2**31 - 1) / max(longest, 1.0) - rounding, 1.0), *(v[own] for v in self))


class QueryTables(NamedTuple):
    """Queries, all with σ > 0, as an index reads them."""

    g: Float[np.ndarray, "B D"]
    kappa: Float[np.ndarray, " B"]
    constant: Float[np.ndarray, " B"]
    """log weight `-‖x - α y‖² / 2σ² + log prior`, less the score."""
    box: Float[np.ndarray, "C B"]
    """float32: the leading coordinates of g, and the norm of all the others."""
    peak: Float[np.ndarray, "C B"]
    """float32: box / 2κ, where a score is highest."""
    kappa32: Float[np.ndarray, " B"]
    columns: Float[np.ndarray, "B C"]
    """float32: the factors of the samples' columns in a bound."""
    middle: Bits
    whole: Bits
    offset: Float[np.ndarray, " B"]
    """g·(o - c)."""
    slack: Float[np.ndarray, " B"]
    """Largest float32 rounding error of a bound by boxes or columns."""
    slack_of_bytes: Float[np.ndarray, " B"]
    """Largest float64 rounding error of a score by bytes."""
    slack_of_products: Float[np.ndarray, " B"]
    """Largest float32 rounding error of a score by a product of bytes."""

    @classmethod
    def at(cls, index: Index, x: Float[np.ndarray, "B D"], alpha: Float[np.ndarray, " B"], sigma: Float[np.ndarray, " B"]) -> "QueryTables":
        """The tables of noisy queries x = α y + σ noise, float64."""
        b, m, away = len(x), len(index.middle_step), index.origin - index.center
        g, squares, offset, z = np.empty(x.shape), np.empty(b), np.empty(b), np.empty((b, index.basis.shape[1]))
        whole, middle = Bits.room(b, index.d), Bits.room(b, m)
        longest = index.longest[0], index.longest_middle

        def some(core: int) -> None:
            own = slice(*share(b, core))
            numba_kernels.directions(x[own], alpha[own], sigma[own], index.center, away, g[own], squares[own], offset[own])
            z[own] = coordinates_of(g[own], index.basis)
            whole.fill(own, g[own], index.step, longest[0])
            middle.fill(own, beyond(z[own], m), index.middle_step, longest[1])

        on_every_core(some)
        kappa, constant = alpha**2 / (2 * sigma**2), -squares / (2 * sigma**2)
        length, radius = whole.length, index.radius
        rest, outside = (
            np.sqrt(np.maximum(length**2 - np.sum(z[:, :k] ** 2, axis=1), 0) + 3 * index.rounding * length**2)[:, None]
            for k in (COARSE, z.shape[1])
        )
        columns = in_columns(z, outside, np.ones((len(x), 1)), -kappa[:, None], index.groups)
        box = np.concatenate([columns[:, :COARSE], rest], axis=1).T
        size = 3 * length * radius + kappa * radius**2 + index.largest_prior
        slack = 2 * index.rounding * (length * radius + 2 * kappa * radius**2) + (columns.shape[1] + 8) * UNIT * size
        distance = float(np.linalg.norm(away))
        return cls(
            g=g,
            kappa=kappa,
            constant=constant,
            box=np.ascontiguousarray(box, np.float32),
            peak=np.ascontiguousarray(np.clip(box / np.maximum(2 * kappa, 1e-300), -1e30, 1e30), np.float32),
            kappa32=kappa.astype(np.float32),
            columns=columns.astype(np.float32),
            middle=middle,
            whole=whole,
            offset=offset,
            slack=slack,
            slack_of_bytes=1e-13 * (size + length * distance),
            slack_of_products=8 * UNIT * (length * (radius + 2 * distance) + kappa * radius**2 + index.largest_prior),
        )

    def widest(self, index: Index) -> Float[np.ndarray, " B"]:
        """Largest distance of a score from the value that its bytes give."""
        length, left = index.longest
        return self.whole.lost * length + self.whole.length * left + self.slack_of_bytes
