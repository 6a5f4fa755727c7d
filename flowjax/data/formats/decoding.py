"""Encoded images (PNG, JPEG, WebP, BMP) as rows of uint8, decoded in parallel, and kept decoded."""

import io
import os
import pathlib
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
from jaxtyping import UInt8

from flowjax.data.cache import cached
from flowjax.data.formats.file_kind import kind_of
from flowjax.data.records import Progress
from flowjax.data.sources.image_files import IMAGE_FORMATS
from flowjax.runtime.messages import first_line

THREADS = os.cpu_count() or 1  # Pillow decodes and resizes outside of Python's lock
MAX_PIXELS = 2**26  # of one image: a file of a few bytes can claim any number
_DEEP = ("I", "I;16", "I;16L", "I;16B", "F")  # which would be clipped to 8 bits, not scaled
_GREY = ("1", "L", "LA")
_FORMATS = ", ".join(IMAGE_FORMATS)
# Errors that Pillow raises for bytes that are no whole image.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, OverflowError, MemoryError, struct.error, zlib.error)
_BOMBS = (PIL.Image.DecompressionBombWarning, PIL.Image.DecompressionBombError)
warnings.filterwarnings("ignore", category=PIL.Image.DecompressionBombWarning)  # open_image refuses less than Pillow warns of
_BLOCK = 1024  # images that are decoded and written at once
_HEADERS = 256  # images whose headers say whether all are grey
_DECODER = 2  # part of the cache's key: 1 read a colour's upper 8 bits of 16

Fetch = Callable[[np.ndarray], tuple[list[bytes], np.ndarray | None]]
"""Of indices `[M]`: the encoded images, and their labels `[M]` if there are any."""


def center_crop(image: PIL.Image.Image, resolution: int) -> PIL.Image.Image:
    """The square of `resolution` pixels that diffusion models are trained on: ADM's crop.

    While both sides are at least twice too long they are halved by averaging; then the shorter side is resized to `resolution`
    (bicubic), and the middle is kept.

    Source: Dhariwal and Nichol, Diffusion Models Beat GANs (arXiv 2105.05233), data loading of their code; used by DiT, SiT, LightningDiT.
    """
    while min(image.size) >= 2 * resolution:
        image = image.resize((image.width // 2, image.height // 2), PIL.Image.Resampling.BOX)
    scale = resolution / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), PIL.Image.Resampling.BICUBIC)
    left, top = (image.width - resolution) // 2, (image.height - resolution) // 2
    return image.crop((left, top, left + resolution, top + resolution))


def open_image(encoded: bytes) -> PIL.Image.Image:
    """An image of one of `IMAGE_FORMATS`, its header read and its pixels not yet.

    Raises:
      ValueError: another format, a header that is damaged, more than 8 bits for each value, an animation, more than `MAX_PIXELS`.
    """
    try:
        image: PIL.Image.Image = PIL.Image.open(io.BytesIO(encoded), formats=tuple(IMAGE_FORMATS))
    except _BOMBS as error:
        raise ValueError(f"more than {MAX_PIXELS:,} pixels, which are not read") from error
    except _BROKEN as error:
        kind = kind_of(encoded)
        if any(f" {name.lower()} " in kind.lower() for name in IMAGE_FORMATS):
            raise ValueError(
                f"no image that can be read: it begins as {kind}, and is damaged or cut short; copy or make it again"
            ) from error
        raise ValueError(f"no image of {_FORMATS} format that can be read: it is {kind}") from error
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width:,} x {image.height:,} pixels; more than {MAX_PIXELS:,} are not read")
    # Pillow gives the upper 8 of a PNG's 16 bits if it is coloured; what it decodes from is "RGB;16B" then.
    if image.mode in _DEEP or (image.format == "PNG" and any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))):
        raise ValueError(
            f"more than 8 bits for each value (mode {image.mode}), which are not read from images: convert it to 8 bits, "
            "or keep all as float32 in a .npy file (x / 32767.5 - 1)"
        )
    frames = getattr(image, "n_frames", 1) if image.format in ("PNG", "WEBP") else 1  # a JPEG's others are previews
    if frames > 1:
        raise ValueError(f"an animation of {frames} frames, expected a single image")
    return image


def is_grey(encoded: bytes) -> bool:
    """Whether an image has no colours, by its header.

    Raises:
      ValueError: as `open_image`.
    """
    return open_image(encoded).mode in _GREY


def decode(encoded: bytes, mode: str, resolution: int = 0) -> UInt8[np.ndarray, "H W C"]:
    """An image as an array, in Pillow's mode "L" (C = 1) or "RGB". Transparency is left out, as torchvision leaves it out.

    Args:
      resolution: the side of ADM's centre crop; 0: as it is.

    Raises:
      ValueError: bytes that are no whole image; as `open_image`; an image in colour where mode is "L".
    """
    image = open_image(encoded)
    try:
        image.load()
    except _BROKEN as error:
        reason = first_line(error)
        raise ValueError(f"no whole image: a file of {image.format} format that is cut short or damaged ({reason})") from error
    if mode == "L" and image.mode not in _GREY:
        bands = image.convert("RGB").split()
        if any(band.tobytes() != bands[0].tobytes() for band in bands):
            raise ValueError("in colour, where others are grey: convert it to grey, or them to RGB")
        image = bands[0]
    elif image.mode != mode:
        image = image.convert(mode)
    if resolution and resolution**2 * max(image.size) > MAX_PIXELS * min(image.size):
        raise ValueError(f"{image.width:,} x {image.height:,} pixels, too long for a crop of {resolution} x {resolution}")
    array = np.array(center_crop(image, resolution) if resolution else image)
    return array[..., None] if array.ndim == 2 else array


class EncodedRows:
    """Encoded images as rows: each is decoded when it is asked for.

    Args:
      fetch: gives the encoded images.
      n: how many there are.
      mode, resolution: as in `decode`.
      named: names an image in an error.

    Raises:
      ValueError: when read: an image that cannot be decoded, or one of another size than the first.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, fetch: Fetch, n: int, mode: str, resolution: int, named: Callable[[int], str]):
        self._fetch, self._mode, self._resolution, self._named = fetch, mode, resolution, named
        self._pool = ThreadPoolExecutor(THREADS)
        first = self._decode(0, fetch(np.arange(1))[0][0])
        self.shape = (n, *first.shape)

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        return self.read(index)[0]

    def read(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Images `[M, H, W, C]` uint8, and labels."""
        encoded, labels = self._fetch(index)
        out = np.empty((len(index), *self.shape[1:]), np.uint8)

        def fill(part: range) -> None:
            for k in part:
                image = self._decode(int(index[k]), encoded[k])
                if image.shape != out.shape[1:]:
                    sizes = f"{image.shape[:2]}, the first {out.shape[1:3]}"
                    raise ValueError(f"{self._named(int(index[k]))} is of size {sizes}; set --config.data.resolution to bring all to one")
                out[k] = image

        step = -(-len(index) // (4 * THREADS))
        list(self._pool.map(fill, [range(start, min(start + step, len(index))) for start in range(0, len(index), max(step, 1))]))
        return out, labels

    def _decode(self, i: int, encoded: bytes) -> np.ndarray:
        try:
            return decode(encoded, self._mode, self._resolution)
        except ValueError as error:
            raise ValueError(f"{self._named(i)}: {error}") from error


class Encoded(NamedTuple):
    """Encoded images of any storage.

    Attributes:
      fetch: gives some of them.
      n: how many there are.
      named: names one in an error.
      key: plain JSON values that change when the images do.
    """

    fetch: Fetch
    n: int
    named: Callable[[int], str]
    key: dict[str, Any]


def image_rows(encoded: Encoded, resolution: int, cache_dir: str, name: str, progress: Progress | None) -> Any:
    """Images as rows `[N, H, W, C]`: C = 1 if all inspected headers are grey, 3 otherwise.

    Args:
      encoded: the images.
      resolution: the side of ADM's centre crop; 0 leaves images of one size as they are.
      cache_dir: where decoded images are kept; "" is ~/.cache/flowjax; "none" decodes them whenever they are read.
      name: of the data set.

    Raises:
      ValueError: a negative resolution; images that cannot be read, or are of several sizes.
    """
    if resolution < 0:
        raise ValueError(f"resolution={resolution}: expected the side of a square in pixels, or 0 to leave images as they are")
    rows = EncodedRows(encoded.fetch, encoded.n, "L" if _are_grey(encoded) else "RGB", resolution, encoded.named)
    if cache_dir == "none":
        return rows
    return decoded(rows, cache_dir, name, {**encoded.key, "resolution": resolution, "decoder": _DECODER}, progress)[0]


def _are_grey(encoded: Encoded) -> bool:
    """Whether all of some images, evenly spread, are grey. The others are checked when they are decoded."""
    for i in np.unique(np.linspace(0, encoded.n - 1, _HEADERS).astype(int)):
        try:
            if not is_grey(encoded.fetch(np.array([i]))[0][0]):
                return False
        except ValueError as error:
            raise ValueError(f"{encoded.named(int(i))}: {error}") from error
    return True


def decoded(
    rows: EncodedRows, cache_dir: str, name: str, key: dict[str, Any], progress: Progress | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """All images decoded, and their labels, memory-mapped from the cache; made at the first call, block by block."""

    def make(folder: pathlib.Path) -> None:
        images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, rows.shape)
        with open(folder / "images.npy", "r+b") as file:  # a full disk is an error now, and would end the process at a write to the map
            os.posix_fallocate(file.fileno(), 0, images.offset + images.nbytes)
        labels: list[np.ndarray] = []
        starts = range(0, len(images), _BLOCK)
        for start in progress(f"decoding {name}")(starts) if progress else starts:
            stop = min(start + _BLOCK, len(images))
            images[start:stop], found = rows.read(np.arange(start, stop))
            labels += [] if found is None else [found]
        images.flush()
        if labels:
            np.save(folder / "labels.npy", np.concatenate(labels))

    folder = cached(cache_dir, name, {**key, "shape": list(rows.shape)}, make)
    labels = folder / "labels.npy"
    return np.lib.format.open_memmap(folder / "images.npy", mode="r"), np.load(labels) if labels.exists() else None
