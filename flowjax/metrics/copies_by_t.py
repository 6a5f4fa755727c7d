"""From which t on following a model ends at a copy.

Queries are noised samples, which is where following the oracle leads to: x_t = α y + σ z has the oracle's law at t. The model is followed
from there to the end. From t near 1 every good model ends near y, copied or not; samples that the model never saw are the control.
"""

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from flowjax.analysis.statistics import Curve, share
from flowjax.analysis.sweep import draw_pairs
from flowjax.data import DataSet
from flowjax.metrics.copying import nearest, pooled, pooling
from flowjax.metrics.neighbours import NeighbourSearch, Rows
from flowjax.path import Path
from flowjax.schedules import checked_times

Follow = Callable[[Float[Array, "B *shape"], Float[np.ndarray, " T"], Array | None], Any]
"""Of states, the edges of a solver's steps from their t to 1, and labels: the states at 1."""


class CopiesByTime(NamedTuple):
    """Which of the ends are copies, by the t from which the model was followed."""

    t: Float[np.ndarray, " S"]
    copied: Mapping[str, Bool[np.ndarray, "S Q"]]
    """Of `training` and `unseen` samples (where there are any): whether the end is a copy of one of them."""

    def curves(self) -> dict[str, Curve]:
        """The share of copies at each t, with 95 %."""
        return {name: Curve(*np.array([share(row) for row in rows]).T) for name, rows in self.copied.items()}

    def split(self, turning_point: float) -> dict[str, float]:
        """The share of copies where the model is followed from noise on, and from the turning point on, each with its interval.

        Args:
          turning_point: one of the t; 0 is another.
        """
        found: dict[str, float] = {}
        for name, t in (("from_noise", 0.0), ("from_turning_point", turning_point)):
            place = int(np.argmin(np.abs(self.t - t)))
            for of, rows in self.copied.items():
                value, low, high = share(rows[place])
                found |= {f"copies/{name}/{of}": value, f"copies/{name}/{of}/low": low, f"copies/{name}/{of}/high": high}
        return found

    def rows(self) -> list[dict[str, float]]:
        """A table of the curves."""
        return [
            {"t": float(t)}
            | {
                key: float(part[i])
                for name, c in self.curves().items()
                for key, part in zip((name, f"{name} low", f"{name} high"), c, strict=True)
            }
            for i, t in enumerate(self.t)
        ]

    def mostly_from(self) -> float | None:
        """The t from which on, and from every later one, most ends are copies of training samples; None: there is none."""
        most = self.copied["training"].mean(1) > 0.5
        return None if not most[-1] else float(self.t[len(most) - int(np.cumprod(most[::-1]).sum())])


class CopiesByTimeMeter:
    """Follows a model again and again from the same noised samples.

    A copy is what `copying.Nearest.below_a_third` says, between means over squares of images. Ends from training samples are looked up
    among all training samples, those from unseen samples among all unseen ones. Where the training samples are more their second
    neighbours are nearer, so that fewer of their ends pass.

    Args:
      training, unseen: the samples a model is trained on, and samples of the same kind that it never sees; None: there are none.
      t: `[S]` times in [0, 1), rising, to follow the model from.
      num_queries, seed: of the samples that are noised, of each.
      steps: of the solver, from each t.

    Raises:
      ValueError: times that are not; a data set in which no two samples differ.
    """

    def __init__(
        self,
        training: DataSet,
        unseen: DataSet | None,
        path: Path,
        t: Float[np.ndarray, " S"],
        *,
        num_queries: int = 32,
        steps: int = 10,
        seed: int = 0,
    ):
        self._path, self._t, self._steps = path, checked_times(np.asarray(t, np.float64), one=False), steps
        self._pool = functools.partial(pooled, sides=pooling(training.shape))
        sets = {"training": training} | ({} if unseen is None else {"unseen": unseen})
        pairs = [draw_pairs(one.data, num_queries, seed, labels=one.labels) for one in sets.values()]
        self._x_0, self._x_1 = jnp.concatenate([pair.x_0 for pair in pairs]), jnp.concatenate([pair.x_1 for pair in pairs])
        labels = [pair.labels for pair in pairs if pair.labels is not None]
        self._labels = jnp.concatenate(labels) if len(labels) == len(pairs) else None
        self._searches = {name: NeighbourSearch(self._rows(one)) for name, one in sets.items()}
        for name, search in self._searches.items():
            if search.mean_square == 0:
                raise ValueError(f"{name} samples: no two differ: expected some that do, to tell copies from")

    def _rows(self, of: DataSet) -> Rows:
        read = lambda index: self._pool(np.asarray(of.data[index], np.float32))  # noqa: E731
        return Rows(of.n, read(np.zeros(1, np.int64)).shape[1], read)

    def __call__(self, follow: Follow) -> CopiesByTime:
        """Follow the model from every t."""
        ends = []
        for start in self._t:
            x = self._path.interpolate(self._x_0, self._x_1, jnp.full(len(self._x_0), start, jnp.float32))
            edges = np.linspace(start, 1, self._steps + 1, dtype=np.float32)
            ends.append(np.asarray(jax.device_get(follow(x, edges, self._labels)), np.float32))
        whole = np.stack(ends)
        bounds = np.linspace(0, whole.shape[1], len(self._searches) + 1).astype(int)
        copied = {}
        for (name, search), part in zip(self._searches.items(), itertools.pairwise(bounds), strict=True):
            mine = whole[:, slice(*part)]
            near = nearest(search, self._pool(mine.reshape(-1, *mine.shape[2:])))
            copied[name] = near.below_a_third.reshape(mine.shape[:2])
        return CopiesByTime(self._t, copied)
