"""Copies of training samples, changed a little, among samples that are none: what an audit is tried on."""

import io

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict
from PIL import Image

from flowjax.data.formats.pixels import to_bytes


def changed(
    samples: Float[np.ndarray, "B *shape"], block: ConfigDict, value_range: tuple[float, float], seed: int
) -> Float[np.ndarray, "B *shape"]:
    """The samples as copies come: with noise, mirrored, as JPEG.

    Args:
      block: `noise`, of the samples' standard deviation; `mirror`; `jpeg`, a quality from 1 to 95, or 0.

    Raises:
      ValueError: a change that such samples cannot undergo.
    """
    if block.noise < 0 or not 0 <= block.jpeg <= 95:
        raise ValueError(f"planted.noise = {block.noise}, planted.jpeg = {block.jpeg}: expected at least 0, and 0 to 95")
    scale = float(np.sqrt(samples.var(0).mean()))
    found = samples + np.float32(block.noise * scale) * np.random.default_rng(seed).standard_normal(samples.shape, np.float32)
    if block.mirror:
        if samples.ndim < 3:
            raise ValueError(f"planted.mirror: samples of shape {samples.shape[1:]} have no width")
        found = np.flip(found, 2)
    if block.jpeg:
        if samples.ndim != 4 or samples.shape[3] not in (1, 3):
            raise ValueError(f"planted.jpeg: samples of shape {samples.shape[1:]} are no images [H, W, C]")
        found = np.stack([_as_jpeg(image, block.jpeg, samples.shape[3]) for image in to_bytes(found, value_range)])
        low, high = value_range
        found = (found.astype(np.float32) / 255 * (high - low) + low).astype(np.float32)
    return np.ascontiguousarray(found)


def _as_jpeg(image: np.ndarray, quality: int, channels: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image if channels == 3 else image[..., 0]).save(file, "JPEG", quality=quality)
    with Image.open(file, formats=("JPEG",)) as opened:
        return np.asarray(opened).reshape(*image.shape[:2], channels)
