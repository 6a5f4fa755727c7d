"""A folder of images: `class/name.png`, as of ImageNet and torchvision's ImageFolder; EDM's, with a `dataset.json`; a flat one."""

import json
import os
import pathlib
import re
from typing import NamedTuple

import numpy as np

from flowjax.data.cache import stamp
from flowjax.data.formats.decoding import Encoded, image_rows
from flowjax.data.normalization import BYTES, IDENTITY
from flowjax.data.records import Progress, Records, said
from flowjax.data.sources.image_files import IMAGE_SUFFIXES, files_below, files_in, folders_in, is_image, others_among
from flowjax.data.sources.labels_file import Labels, labels_in_file, labels_of_folders, labels_of_values

_EDM = "dataset.json"


# A little over sixty lines, for its docstring and the parameters of a configuration.
def records(
    path: str | os.PathLike,
    labels: str = "",
    label_array: str = "",
    resolution: int = 0,
    normalize: str = "auto",
    cache_dir: str = "",
    progress: Progress | None = None,
) -> Records:
    """The images of a folder, uint8 `[H, W, C]`, and their labels.

    Each folder in it is a class, in the order of their names; with EDM's `dataset.json`, `{"labels": [[FILE, CLASS], ...]}`, that says the
    classes; a folder with images only has no labels. Order: by class, then by name; without classes by name. All are grey (C = 1) if all of
    those inspected first are, and RGB otherwise; transparency is left out. Hidden files and `__MACOSX` are passed over; images that are not
    read for another reason are counted in `provenance["not_read"]`.

    Args:
      labels: a file, as `labels_file.labels_in_file`: by the images' names where it has a column of them, else in their order; "names": the
        class is a file's name without the number at its end, `cat_001.png` a cat; "": the folders, as above.
      label_array: the column of a CSV file; "none": no labels.
      path: a folder of `.png`, `.jpg`, `.jpeg`, `.webp` or `.bmp` files, or of folders of them, at any depth.
      resolution: the side of ADM's centre crop (`decoding.center_crop`); 0 leaves images of one size as they are.
      normalize: "auto" scales by `x / 127.5 - 1` to [-1, 1]; "none" leaves grey levels.
      cache_dir: where decoded images are kept; "" is ~/.cache/flowjax; "none" decodes them whenever they are read.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: a folder without images, an empty class, an image that cannot be read (`decoding.open_image`), images of several sizes
        without a resolution, a colour among grey images, a dataset.json that does not fit.
    """
    if normalize not in ("auto", "none"):
        raise ValueError(f'normalize={normalize!r}: expected "auto" or "none"')
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; expected one with a folder of images for each class")
    found = _listed(root)
    every = found.files
    known = found.labels
    if label_array == "none":
        known = Labels()
    elif labels == "names":
        known = _of_file_names(every)
    elif labels:
        if not pathlib.Path(labels).expanduser().is_file():
            raise FileNotFoundError(
                f'labels={labels!r}: no such file; expected one with the labels, "names" (of the files: cat_001.png is a cat), or nothing, '
                "for the folders"
            )
        known = labels_in_file(labels, len(every), label_array, files=[file.relative_to(root).as_posix() for file in every])

    def fetch(index: np.ndarray) -> tuple[list[bytes], np.ndarray | None]:
        return [every[i].read_bytes() for i in index], None if known.labels is None else known.labels[index]

    key = {"folder": stamp(root, every)}
    images = image_rows(Encoded(fetch, len(every), lambda i: str(every[i]), key), resolution, cache_dir, root.name, progress)
    return Records(
        name=root.name,
        rows=images,
        labels=known.labels,
        class_names=known.class_names,
        normalization=BYTES if normalize == "auto" else IDENTITY,
        value_range=(-1.0, 1.0) if normalize == "auto" else None,
        provenance={"source": "images", "path": str(root), "resolution": resolution or None}
        | said(label_mapping=known.mapping, not_read=found.not_read),
    )


class _Listed(NamedTuple):
    """The images of a folder.

    Attributes:
      files: in their order.
      labels: those that the folder itself says.
      not_read: images that are left out, in words.
    """

    files: list[pathlib.Path]
    labels: Labels
    not_read: str


def _listed(root: pathlib.Path) -> _Listed:
    if (root / _EDM).is_file():
        every = list(files_below(root))
        files = sorted(filter(is_image, every), key=lambda file: file.relative_to(root).as_posix())
        if not files:
            raise ValueError(f"{root}: no images beside {_EDM}; expected {', '.join(IMAGE_SUFFIXES)}")
        return _Listed(files, _edm_labels(root, files), others_among(every))
    below = {folder.name: sorted(files_below(folder)) for folder in folders_in(root)}
    classes = {name: [*filter(is_image, files)] for name, files in below.items()}
    flat = sorted(files_in(root))
    if not any(classes.values()):
        files = [*filter(is_image, flat)]
        if not files:
            seen = others_among([*flat, *(file for files in below.values() for file in files)])
            also = f" (but {seen}, which are not read)" if seen else ""
            raise ValueError(f"{root}: no images there{also}; expected CLASS/NAME.png or NAME.png, of {', '.join(IMAGE_SUFFIXES)}")
        return _Listed(files, Labels(), others_among(flat))
    empty = [name for name, files in classes.items() if not files]
    if empty:
        seen = others_among(below[empty[0]])
        remedy = f"its {seen} are not read: convert them to PNG" if seen else "remove the folder or fill it"
        raise ValueError(f"{root / empty[0]}: a class without images ({len(empty)} of {len(classes)}); {remedy}")
    beside = sum(map(is_image, flat))
    others = others_among([*flat, *(file for files in below.values() for file in files)])
    not_read = ", ".join(filter(None, [others, f"{beside:,} images beside the folders of the classes" if beside else ""]))
    labels = labels_of_folders({name: len(files) for name, files in classes.items()})
    return _Listed([file for files in classes.values() for file in files], labels, not_read)


def _edm_labels(root: pathlib.Path, files: list[pathlib.Path]) -> Labels:
    """The classes of some files by EDM's `dataset.json`, or none. Names in it are compared with the files, never opened."""
    place = root / _EDM
    try:
        pairs = json.loads(place.read_text(encoding="utf-8"))["labels"]
        known = {str(name): label for name, label in pairs or ()}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{place}: not read: expected {{'labels': [[FILE, CLASS], ...]}} ({error})") from error
    if not known:
        return Labels()
    names = [file.relative_to(root).as_posix() for file in files]
    missing = next((name for name in names if name not in known), None) or next(iter(known.keys() - set(names)), None)
    if missing is not None:
        state = "it has no label for" if missing in names else "no image is there for its"
        raise ValueError(f"{place}: {state} {missing} ({len(known):,} labels, {len(names):,} images)")
    try:
        values = np.array([known[name] for name in names])
    except ValueError as error:
        raise ValueError(f"{place}: labels of several lengths, expected one number for each file") from error
    return labels_of_values(values, len(files), str(place), _EDM)


def _of_file_names(files: list[pathlib.Path]) -> Labels:
    """The classes that names of files begin with: `cat_001.png` and `cat.12.jpg` are cats."""
    names = [re.sub(r"[\s_.()-]*\d+\)?$", "", file.stem) for file in files]
    without = next((file for file, name in zip(files, names, strict=True) if not name), None)
    if without is not None:
        raise ValueError(f"{without}: its name is a number and says no class; leave out --config.data.labels=names")
    return labels_of_values(np.array(names), len(files), "labels=names", "file names")
