"""Precision and recall of samples: how many look real, and how much of the real data they cover."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from flowjax.analysis.statistics import Share, share


class PrecisionRecall(NamedTuple):
    """Both, each with its 95 % interval."""

    precision: Share
    """The share of samples that lie within a real one's ball."""
    recall: Share
    """The share of real ones that lie within a sample's ball."""


def precision_recall(samples: Float[np.ndarray, "N F"], real: Float[np.ndarray, "M G"], *, k: int = 3) -> PrecisionRecall:
    """Precision and recall, the manifold of a set being the union of its points' balls, each reaching to its k-th nearest neighbour.

    Both depend on the sizes of the sets: compare only what was measured with the same.

    Args:
      samples, real: features.
      k: the neighbour that sets a ball's radius.

    Raises:
      ValueError: not more than k rows in either, values that are not finite, features of different numbers.

    References:
      Kynkäänniemi et al. 2019.
    """
    for name, features in (("samples", samples), ("real", real)):
        if k < 1 or len(features) <= k or not np.isfinite(features).all():
            raise ValueError(f"{name}: {len(features)} rows of features, expected more than k = {k} >= 1, all finite")
    if samples.shape[1] != real.shape[1]:
        raise ValueError(f"samples have {samples.shape[1]} features, real ones {real.shape[1]}: expected the same")
    return PrecisionRecall(share(_covered(samples, real, k)), share(_covered(real, samples, k)))


def _covered(points: np.ndarray, centres: np.ndarray, k: int) -> np.ndarray:
    """Which points lie in the ball of any centre."""
    from sklearn.metrics import pairwise_distances_chunked
    from sklearn.neighbors import NearestNeighbors

    radii = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(centres).kneighbors()[0][:, -1]
    parts = pairwise_distances_chunked(points, centres, reduce_func=lambda distances, _: (distances <= radii).any(axis=1))
    return np.concatenate(list(parts))
