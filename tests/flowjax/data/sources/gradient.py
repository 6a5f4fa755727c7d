"""An image that tells its places apart."""

import numpy as np


def gradient(width: int, height: int) -> np.ndarray:
    """An RGB image that tells its places apart."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 / width, y * 255 / height, np.full_like(x, 7)], -1).astype(np.uint8)
