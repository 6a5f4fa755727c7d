"""The source that reads a path, recognised by its files."""

import itertools
import os
import pathlib
import re

from flowjax.data.formats.file_kind import kind_of_file
from flowjax.data.formats.table_file import SAVED, TABLE_SUFFIXES
from flowjax.data.sources.array_folder import is_array_folder
from flowjax.data.sources.image_files import check_layout, files_below, is_image, is_rubbish

ARRAY_SUFFIXES = (".npy", ".npz", ".safetensors", ".pt", ".pth")
SHARDS = "latents_rank*.safetensors"
TAR_SUFFIXES = (".tar",)
_INSPECTED = 10_000  # files of a folder
ENCODING = "encoding.json"  # beside shards that were encoded here: of what, and whether to the end


def recognize(path: str | os.PathLike) -> str:
    """The name of the source that reads `path`.

    A `.npy`, `.npz`, `.safetensors` or `.pt` file: "arrays" ("latents" if it is a LightningDiT shard); `.parquet`, `.arrow` and `.csv`:
    "table"; `.tar`: "webdataset". A folder: "latents" with LightningDiT's shards, "repa" with a `dataset.json` of `.npy` files, "table"
    with `.parquet` files or what `datasets.save_to_disk` wrote, "tfds" with a prepared TFDS data set, "images" with images or folders of
    images, one for each class, "webdataset" with `.tar` files, "array_folder" with a `.npy` for each sample.

    Raises:
      FileNotFoundError: nothing lies there.
      ValueError: something that no source reads; images in a layout that leaves open what the classes are.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_file():
        if path.match(SHARDS):
            return "latents"
        for source, suffixes in (("arrays", ARRAY_SUFFIXES), ("table", TABLE_SUFFIXES), ("webdataset", TAR_SUFFIXES)):
            if path.suffix.lower() in suffixes:
                return source
        read = (*ARRAY_SUFFIXES, *TABLE_SUFFIXES, *TAR_SUFFIXES)
        raise ValueError(
            f"path={path}: a {path.suffix or 'nameless'} file ({kind_of_file(path)}); expected {', '.join(read)}, or a folder"
            + "; unpack it, and give the folder" * (path.suffix.lower() in (".zip", ".tgz", ".gz"))
            + "; give the folder that it lies in" * is_image(path)
        )
    if not path.is_dir():
        raise FileNotFoundError(f"path={path}: nothing lies there, seen from {pathlib.Path.cwd()}; give a file or a folder with your data")
    if next(path.glob(SHARDS), None) is not None:
        return "latents"
    if any((path / name).is_file() for name in SAVED):
        return "table"
    if (path / "dataset_info.json").is_file():
        return "tfds"
    if (path / "dataset.json").is_file():
        return "images" if _lists_images(path / "dataset.json") else "repa"
    if (path / "vae-sd" / "dataset.json").is_file():
        return "repa"
    if check_layout(path):
        return "images"
    below = {file.suffix.lower() for file in itertools.islice(files_below(path), _INSPECTED)}
    if ".parquet" in below:
        return "table"
    if ".tar" in below:
        return "webdataset"
    if ".npy" in below and is_array_folder(path):
        return "array_folder"
    known = f"{SHARDS}, dataset.json, dataset_info.json, .parquet, .tar, one .npy for each sample, CLASS/NAME.png or NAME.png"
    held = sorted(entry.name + "/" * entry.is_dir() for entry in path.iterdir() if not is_rubbish(entry.name))
    there = f"it holds {', '.join(held[:5])}{', ...' * (len(held) > 5)}" if held else "it is empty"
    arrays = "; name one of its files" * any(name.endswith(ARRAY_SUFFIXES) for name in held)
    raise ValueError(f"path={path}: a folder with none of {known}; {there}{arrays}; to read it in a certain way, name the source")


def _lists_images(listing: pathlib.Path) -> bool:
    """Whether a `dataset.json` is of images (EDM), not of latents: by the first file that it names, or that lies there if it names none."""
    with open(listing, "rb") as file:
        named = re.search(rb'\[\s*\[\s*"([^"]+)"', file.read(4096))
    if named:
        return is_image(pathlib.Path(named[1].decode("utf-8", "replace")))
    first = next((file for file in files_below(listing.parent) if is_image(file) or file.suffix == ".npy"), None)
    return first is not None and is_image(first)
