"""Conversion of a model's values to 8-bit images."""

import numpy as np
from jaxtyping import Float, UInt8


def to_bytes(x: Float[np.ndarray, "N H W C"], value_range: tuple[float, float]) -> UInt8[np.ndarray, "N H W 3"]:
    """Images as uint8 RGB: `value_range` becomes 0 to 255, rounded; what lies beyond is clipped. Of other than three channels the first is
    taken three times.
    """
    low, high = value_range
    whole = (255 * np.clip((x - low) / ((high - low) or 1.0), 0, 1)).round().astype(np.uint8)
    return whole if whole.shape[-1] == 3 else np.repeat(whole[..., :1], 3, axis=-1)
