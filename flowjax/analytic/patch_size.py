"""`PatchSize`: the side of the patches of a patch field, a number or a function of t."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Size = int | Callable[[float], int] | Mapping[float, int]


class PatchSize:
    """The side of a patch at each t, in pixels, no larger than what sees the whole image from everywhere."""

    def __init__(self, size: Size, image: tuple[int, int, int]):
        self.size, self.most = size, 2 * max(image[:2]) - 1
        if isinstance(size, Mapping) and not size:
            raise ValueError("size = {}: expected a table {t: p} with at least one row")
        self._table: dict[float, Any] = {}
        """What t the sizes begin at, as float32, in which t is given."""
        if not callable(size):
            table = size if isinstance(size, Mapping) else {0.0: size}
            self._table = {float(np.float32(t)): self._checked(table[t], t) for t in sorted(table)}

    def at(self, t: float) -> int:
        """The side at this t."""
        if callable(self.size):
            return self._checked(self.size(float(t)), t)
        times = list(self._table)
        side: int = self._table[times[max(0, int(np.searchsorted(times, np.float32(t), side="right")) - 1)]]
        return side

    def all_at(self, t: Float[np.ndarray, " B"]) -> Int[np.ndarray, " B"]:
        """The sides at these t."""
        return np.array([self.at(float(time)) for time in t], np.int32)

    def traced(self, t: Float[Array, " B"]) -> Int[Array, " B"]:
        """The sides at t of a compiled program.

        Raises:
          NotImplementedError: the sides come from a function, which a compiled program cannot call.
        """
        if callable(self.size):
            raise NotImplementedError("under jit the size of a field over a mesh must be a number or a table {t: p}, got a function")
        times, sides = (jnp.asarray(list(part)) for part in (self._table, self._table.values()))
        return sides[jnp.maximum(0, jnp.searchsorted(times, t, side="right") - 1)].astype(jnp.int32)

    def largest(self) -> int:
        """No side is larger."""
        return self.most if callable(self.size) else max(self._table.values())

    def _checked(self, side: Any, t: float) -> int:
        if isinstance(side, bool) or not isinstance(side, int | float | np.integer | np.floating) or side % 2 != 1 or side < 1:
            raise ValueError(f"size at t = {t:.4g} is {side!r}: expected an odd number of pixels, so that a patch has a centre")
        return min(int(side), self.most)
