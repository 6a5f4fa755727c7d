"""Thirteen images of bytes in three classes."""

import numpy as np

from flowjax.data.normalization import BYTES
from flowjax.data.records import Records

N, CLASSES = 13, 3
IMAGES = np.arange(N * 2 * 3, dtype=np.uint8).reshape(N, 2, 3, 1)
LABELS = np.arange(N, dtype=np.int32) % CLASSES


def records(**changes: object) -> Records:
    return Records(**{"name": "images", "rows": IMAGES, "labels": LABELS, "normalization": BYTES, **changes})
