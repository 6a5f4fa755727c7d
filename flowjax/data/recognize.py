"""Which source a path belongs to, from what lies there."""

import os
import pathlib

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
SHARDS = "latents_rank*.safetensors"
ENCODING = "encoding.json"  # beside shards that were encoded here: of what, and whether to the end


def recognize(path: str | os.PathLike) -> str:
    """The name of the source that reads `path`.

    A `.npy`, `.npz` or `.safetensors` file: "arrays" ("latents" if it is a LightningDiT shard). A folder: "latents" with LightningDiT's
    shards, "repa" with a `dataset.json`, "tfds" with a prepared TFDS data set, "images" with folders of images, one for each class.

    Raises:
      FileNotFoundError: nothing lies there.
      ValueError: something that no source reads.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_file():
        if path.match(SHARDS):
            return "latents"
        if path.suffix in (".npy", ".npz", ".safetensors"):
            return "arrays"
        raise ValueError(f"path={path}: a {path.suffix or 'nameless'} file; expected .npy, .npz or .safetensors, or a folder")
    if not path.is_dir():
        raise FileNotFoundError(f"path={path}: nothing lies there, seen from {pathlib.Path.cwd()}; give a file or a folder with your data")
    if next(path.glob(SHARDS), None) is not None:
        return "latents"
    if (path / "dataset_info.json").is_file():
        return "tfds"
    if (path / "dataset.json").is_file() or (path / "vae-sd" / "dataset.json").is_file():
        return "repa"
    if any(file.suffix.lower() in IMAGE_SUFFIXES for folder in sorted(path.iterdir()) if folder.is_dir() for file in folder.iterdir()):
        return "images"
    known = f"{SHARDS}, dataset.json, dataset_info.json or CLASS/NAME.png"
    raise ValueError(f"path={path}: a folder with none of {known}; to read it in a certain way, name the source")
