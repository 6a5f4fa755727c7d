"""Exact duplicates in a data set: the distinct samples, and how often each occurs."""

from typing import NamedTuple

import numpy as np


class Distinct(NamedTuple):
    """Distinct samples, in the order of first occurrence."""

    values: np.ndarray
    labels: np.ndarray | None
    counts: np.ndarray


def distinct(values: np.ndarray, labels: np.ndarray | None = None, counts: np.ndarray | None = None) -> Distinct:
    """Exact duplicates merged; equal samples of different classes stay apart.

    Args:
      values: `[N, *shape]`. -0 equals 0.
      labels: `[N]`, or None.
      counts: `[N]`: how often each counts already; None: once.
    """
    plain = values.reshape(len(values), -1) + np.zeros((), values.dtype)  # -0.0 equals 0.0, and its bytes do not
    keys = plain.view(np.uint8)
    if labels is not None:
        keys = np.concatenate([keys, labels.astype(np.int32)[:, None].view(np.uint8)], axis=1)
    _, first, inverse = np.unique(keys.view(f"V{keys.shape[1]}").ravel(), return_index=True, return_inverse=True)
    order = np.argsort(first)
    first = first[order]
    return Distinct(values[first], None if labels is None else labels[first], np.bincount(inverse, weights=counts)[order])
