"""Samples as small pictures, many in one image file: what an interactive page draws from."""

import dataclasses
import io
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from flowjax.reporting.strip import as_image
from flowjax.reporting.templating import data_uri

LARGEST = 64
"""Pixels of a side; what is larger is averaged down."""
WEBP = (90, 75, 55, 35)
"""Qualities that are tried where pictures without loss take too much room."""
CLIPPED = (1, 99)
"""Percentiles of a projection on a principal direction that are shown as dark and bright."""
Pixels = UInt8[np.ndarray, "*rest H W 3"]


@dataclasses.dataclass(frozen=True)
class Look:
    """How samples of one data set become pictures.

    Attributes:
      words: how, for the reader; "" for images as they are.
      pixels: a sample `[*shape]` as `[H, W, 3]`, dark 0 to bright 1, neither clipped nor reduced.
    """

    words: str
    pixels: Callable[[Float[np.ndarray, "*shape"]], np.ndarray]


def look_of(data: Float[np.ndarray, "N *shape"], value_range: tuple[float, float]) -> Look:
    """Images as they are; of samples with more channels the three principal directions of a pixel as red, green and blue.

    Args:
      data: some samples, from which the directions are taken.
      value_range: (low, high), shown as black and white.
    """
    low, high = value_range
    scale = (high - low) or 1.0
    if data.ndim != 4 or data.shape[-1] in (1, 3):
        words = "" if data.ndim in (3, 4) else "Each sample is laid out row by row in a square."
        return Look(words, lambda sample: (as_image(sample) - low) / scale)
    pixels = data.reshape(-1, data.shape[-1]).astype(np.float64)
    mean = pixels.mean(0)
    directions = np.linalg.eigh(np.cov(pixels - mean, rowvar=False))[1][:, ::-1][:, :3]
    if directions.shape[1] < 3:
        directions = np.pad(directions, ((0, 0), (0, 3 - directions.shape[1])))
    ends = np.percentile((pixels - mean) @ directions, CLIPPED, axis=0)
    span = np.where(ends[1] > ends[0], ends[1] - ends[0], 1.0)
    shown = (
        "two principal directions as red and green" if data.shape[-1] == 2 else "first three principal directions as red, green and blue"
    )
    words = f"Each sample has {data.shape[-1]} channels, which are no colours: the pictures show their {shown}."
    return Look(words, lambda sample: ((sample - mean) @ directions - ends[0]) / span)


def pictures(samples: np.ndarray, look: Look, ndim: int, largest: int = LARGEST) -> Pixels:
    """Samples `[*cells, *shape]` as 8-bit pictures `[*cells, H, W, 3]`, no side above `largest`; empty places are white.

    Args:
      ndim: of one sample.
    """
    cells, shape = samples.shape[: samples.ndim - ndim], samples.shape[samples.ndim - ndim :]
    found = np.stack([_reduced(look.pixels(sample), largest) for sample in samples.reshape(-1, *shape)])
    found = np.round(255 * np.nan_to_num(np.clip(found, 0, 1), nan=1.0)).astype(np.uint8)
    return found.reshape(*cells, *found.shape[1:])


def _reduced(image: np.ndarray, largest: int) -> np.ndarray:
    by = -(-max(image.shape[:2]) // largest)
    if by == 1:
        return image
    height, width = (side // by for side in image.shape[:2])
    return image[: height * by, : width * by].reshape(height, by, width, by, 3).mean((1, 3))


def sheets(groups: Mapping[str, Pixels], budget: int) -> dict[str, str]:
    """Each group `[R, C, H, W, 3]` as one image file in a data URI, R rows of C pictures; all together within the budget if possible.

    Without loss as PNG if that fits; else as WebP, in the best of `WEBP` that does, or the last.

    Args:
      budget: characters.
    """
    images = {name: Image.fromarray(_sheet(cells)) for name, cells in groups.items()}
    for encoded in _encodings(images):
        if sum(map(len, encoded.values())) <= budget:
            break
    return encoded


def _encodings(images: Mapping[str, Image.Image]) -> Iterator[dict[str, str]]:
    yield {name: _encoded(image, "PNG", optimize=True) for name, image in images.items()}
    for quality in WEBP:
        yield {name: _encoded(image, "WEBP", quality=quality) for name, image in images.items()}


def _encoded(image: Image.Image, kind: str, **settings: int | bool) -> str:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return data_uri(f"image/{kind.lower()}", file.getvalue())


def _sheet(cells: Pixels) -> np.ndarray:
    rows, columns, height, width = cells.shape[:4]
    return cells.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, 3)
