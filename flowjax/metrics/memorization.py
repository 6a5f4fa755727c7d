"""Memorisation: how near samples come to the training set, and whether nearer than data that were never seen."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

COPY_RATIO = 1 / 3


class Nearest(NamedTuple):
    """The two nearest training samples of each sample."""

    row: Int[np.ndarray, " B"]
    """Of the nearest, in the training set."""
    distance: Float[np.ndarray, " B"]
    """Euclidean, to the nearest."""
    second: Float[np.ndarray, " B"]
    """To the nearest that is no exact duplicate of that; infinite where there is none."""

    @property
    def ratio(self) -> Float[np.ndarray, " B"]:
        """Of the first distance to the second, 0 for a sample of the training set itself."""
        return self.distance / np.where(self.second > 0, self.second, np.inf)

    @property
    def copies(self) -> Bool[np.ndarray, " B"]:
        """Whether the ratio is below a third: a sample so much nearer to one training sample than to any other is a copy of it.

        References:
          Yoon et al. 2023; Gu et al. 2023 ("On memorization in diffusion models"), whose criterion it is.
        """
        return self.ratio < COPY_RATIO


class NearestSamples:
    """Looks training samples up by Euclidean distance, in float64: scikit-learn's brute force, in parts that fit the cache.

    Args:
      training: `[N, *shape]`; exact duplicates count once.
    """

    def __init__(self, training: Float[np.ndarray, "N *shape"]):
        rows, self._first = np.unique(_rows(training), axis=0, return_index=True)
        self._rows = rows
        from sklearn.neighbors import NearestNeighbors

        self._found = NearestNeighbors(n_neighbors=min(2, len(rows)), algorithm="brute").fit(rows)

    def __call__(self, samples: Float[np.ndarray, "B *shape"]) -> Nearest:
        """The two nearest of each.

        Raises:
          ValueError: samples of another shape, or that are not finite.
        """
        rows = _rows(samples)
        if rows.shape[1] != self._rows.shape[1] or not np.isfinite(rows).all():
            raise ValueError(f"samples [B, D = {rows.shape[1]}]: expected finite values, D = {self._rows.shape[1]} as in training")
        _, index = self._found.kneighbors(rows)
        # Again from differences: expanded squares lose what is small beside the norms.
        exact = np.sqrt(np.stack([((rows - self._rows[column]) ** 2).sum(1) for column in index.T], axis=1))
        order = np.argsort(exact, axis=1, kind="stable")
        index, exact = np.take_along_axis(index, order, 1), np.take_along_axis(exact, order, 1)
        second = exact[:, 1] if exact.shape[1] > 1 else np.full(len(rows), np.inf)
        return Nearest(self._first[index[:, 0]], exact[:, 0], second)


class Share(NamedTuple):
    """A share of a number of trials, with its 95 % interval (Wilson's)."""

    value: float
    low: float
    high: float


def share(happened: Bool[np.ndarray, " B"]) -> Share:
    """How often something happened.

    References:
      Wilson 1927: it holds for shares of 0 and 1 too.
    """
    from scipy import stats

    found = stats.binomtest(int(happened.sum()), len(happened)).proportion_ci(method="wilson")
    return Share(float(happened.mean()), float(found.low), float(found.high))


def _rows(x: Float[np.ndarray, "B *shape"]) -> Float[np.ndarray, "B D"]:
    return np.asarray(x, np.float64).reshape(len(x), -1)
