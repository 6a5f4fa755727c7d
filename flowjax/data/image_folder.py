"""A folder of images, `class/name.png`: the layout of ImageNet and of torchvision's ImageFolder."""

import hashlib
import os
import pathlib
from typing import Any

import numpy as np
import PIL.Image

from flowjax.data.decoding import EncodedRows, decoded
from flowjax.data.normalization import BYTES, IDENTITY
from flowjax.data.recognize import IMAGE_SUFFIXES
from flowjax.data.records import Progress, Records

GREY_MODES = ("1", "L", "I", "I;16", "I;16B", "F")


def records(
    path: str | os.PathLike, resolution: int = 0, normalize: str = "auto", cache_dir: str = "", progress: Progress | None = None
) -> Records:
    """The images of a folder, uint8 `[H, W, C]`; each folder in it is a class, in the order of their names.

    They are grey (C = 1) if the first one is, and RGB otherwise. Order: by class, then by name.

    Args:
      path: a folder of folders of `.png`, `.jpg`, `.jpeg` or `.webp` files, at any depth.
      resolution: the side of ADM's centre crop (`decoding.center_crop`); 0 leaves images of one size as they are.
      normalize: "auto" scales by `x / 127.5 - 1` to [-1, 1]; "none" leaves grey levels.
      cache_dir: where decoded images are kept; "" is ~/.cache/flowjax; "none" decodes them whenever they are read.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: a folder without images, an empty class, an image that cannot be read, images of several sizes without a resolution.
    """
    if normalize not in ("auto", "none"):
        raise ValueError(f'normalize={normalize!r}: expected "auto" or "none"')
    if resolution < 0:
        raise ValueError(f"resolution={resolution}: expected the side of a square in pixels, or 0 to leave images as they are")
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; expected one with a folder of images for each class")
    classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    files = {name: sorted(f for f in (root / name).rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file()) for name in classes}
    if not any(files.values()):
        raise ValueError(f"{root}: no images in folders, CLASS/NAME.png; expected {', '.join(IMAGE_SUFFIXES)}")
    empty = [name for name, found in files.items() if not found]
    if empty:
        raise ValueError(f"{root / empty[0]}: a class without images ({len(empty)} of {len(classes)}); remove the folder or fill it")
    every = [file for found in files.values() for file in found]
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), [len(found) for found in files.values()])

    def fetch(index: np.ndarray) -> tuple[list[bytes], np.ndarray | None]:
        return [every[i].read_bytes() for i in index], labels[index]

    rows = EncodedRows(fetch, len(every), "L" if _is_grey(every[0]) else "RGB", resolution, lambda i: str(every[i]))
    images: Any = rows
    if cache_dir != "none":
        key = {"folder": str(root.resolve()), "resolution": resolution, "files": _stamp(root, every)}
        images, _ = decoded(rows, cache_dir, root.name, key, progress)
    return Records(
        name=root.name,
        rows=images,
        labels=labels,
        class_names=tuple(classes),
        normalization=BYTES if normalize == "auto" else IDENTITY,
        value_range=(-1.0, 1.0) if normalize == "auto" else None,
        provenance={"source": "images", "path": str(root), "resolution": resolution or None},
    )


def _is_grey(file: pathlib.Path) -> bool:
    try:
        with PIL.Image.open(file) as image:
            return image.mode in GREY_MODES
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{file}: no image of PNG, JPEG or WebP format ({error})") from error


def _stamp(root: pathlib.Path, files: list[pathlib.Path]) -> str:
    """A hash of names, sizes and times: a changed folder is decoded anew."""
    found = hashlib.sha256()
    for file in files:
        status = file.stat()
        found.update(f"{file.relative_to(root)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return found.hexdigest()
