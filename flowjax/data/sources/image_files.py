"""Image files in a folder, and their classes; files that operating systems leave in folders are ignored."""

import collections
import itertools
import os
import pathlib
from collections.abc import Iterator

IMAGE_FORMATS = {"PNG": (".png",), "JPEG": (".jpg", ".jpeg"), "WEBP": (".webp",), "BMP": (".bmp",)}
"""Formats that are decoded, by Pillow's names, and their suffixes. Pillow is never given another format: some start other programs."""
IMAGE_SUFFIXES = tuple(suffix for suffixes in IMAGE_FORMATS.values() for suffix in suffixes)
OTHER_SUFFIXES = (".gif", ".tif", ".tiff", ".avif", ".heic", ".jp2", ".jxl", ".ppm", ".pgm", ".tga", ".svg", ".exr")
"""Images that are not read; they are counted and named."""
SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
"""Folders of these names are parts of a data set, not classes."""
_MOST_FOLDERS, _MOST_FILES = 100, 2_000  # inspected for an error message: folders, and files in each


def is_rubbish(name: str) -> bool:
    """Whether a file or folder is the system's and not the user's: hidden, of macOS's archives, of a NAS."""
    return name.startswith(".") or name in ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found")


def folders_in(root: pathlib.Path) -> list[pathlib.Path]:
    """The user's folders in `root`, by name."""
    return sorted(entry for entry in root.iterdir() if not is_rubbish(entry.name) and entry.is_dir())


def files_below(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """The user's files in `root` at any depth, links without a target among them; links to folders are not followed."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not is_rubbish(name))
        files = (pathlib.Path(folder, name) for name in names if not is_rubbish(name))
        yield from (file for file in files if file.is_file() or not file.exists())  # no pipes: reading one would wait for ever


def files_in(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """The user's files in `root` itself."""
    return (entry for entry in root.iterdir() if not is_rubbish(entry.name) and entry.is_file())


def is_image(file: pathlib.Path) -> bool:
    """Whether a file's name is that of an image which is read."""
    return file.suffix.lower() in IMAGE_SUFFIXES


def others_among(files: list[pathlib.Path]) -> str:
    """The images among `files` that are not read, in words: "3 .gif, 1 .tif"; "" if there are none."""
    found = collections.Counter(file.suffix.lower() for file in files if file.suffix.lower() in OTHER_SUFFIXES)
    return ", ".join(f"{count:,} {suffix}" for suffix, count in found.most_common())


def check_layout(root: pathlib.Path) -> bool:
    """Whether `root` is read as a folder of images: CLASS/NAME.png, or NAME.png without classes.

    Raises:
      ValueError: images are there, in folders within folders, in folders of which each is a split, or of formats that are not read.
    """
    holding = [folder for folder in folders_in(root) if any(map(is_image, files_in(folder)))]
    if holding and not {folder.name.lower() for folder in holding} <= SPLITS:
        return True
    if not holding and any(map(is_image, files_in(root))):
        deeper = next((file for folder in folders_in(root) for file in files_below(folder) if is_image(file)), None)
        if deeper is None:
            return True
    seen = {folder: _images_below(folder) for folder in folders_in(root)[:_MOST_FOLDERS]}
    seen[root] = [*filter(_looks_like_one, files_in(root))]
    images = [folder for folder, files in seen.items() if folder != root and any(map(is_image, files))]
    if images:
        listed = ", ".join(f"{folder.name}/ ({_amount(folder, seen[folder])})" for folder in images[:5]) + ", ..." * (len(images) > 5)
        raise ValueError(
            f"path={root}: images lie in folders that are no classes, {listed}; name one, --config.data.path={images[0]}, "
            "or take each for a class, --config.data.source=images"
        )
    others = others_among([file for files in seen.values() for file in files])
    if others:
        raise ValueError(
            f"path={root}: holds images of formats that are not read, {others}; convert them to one of {', '.join(IMAGE_SUFFIXES)}, "
            "for example with magick mogrify -format png FILES"
        )
    return False


def _looks_like_one(file: pathlib.Path) -> bool:
    return file.suffix.lower() in (*IMAGE_SUFFIXES, *OTHER_SUFFIXES)


def _images_below(folder: pathlib.Path) -> list[pathlib.Path]:
    """Images of all kinds among the first files below a folder."""
    return [*filter(_looks_like_one, itertools.islice(files_below(folder), _MOST_FILES))]


def _amount(folder: pathlib.Path, files: list[pathlib.Path]) -> str:
    inner = {file.relative_to(folder).parts[0] for file in files if file.parent != folder}
    more = "at least " * (len(files) == _MOST_FILES)
    return f"{more}{f'{len(inner)} folders, ' if inner else ''}{len(files):,} images"
