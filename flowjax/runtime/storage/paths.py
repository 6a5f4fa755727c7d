"""Files and folders on this machine or, as gs://BUCKET/..., in a bucket.

A path is a `pathlib.Path`, or in a bucket an `etils.epath.Path`, which is read by the same methods. An object of a bucket is there whole or
not at all, and nothing is renamed; a folder is there as long as something is in it.
"""

import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from typing import TypeAlias

from etils import epath

from flowjax.runtime.files import write_whole as write_whole_here
from flowjax.runtime.storage import bucket

Folder: TypeAlias = pathlib.Path | epath.Path
"""Or a file: where it lies."""


def located(path: str | os.PathLike) -> Folder:
    """The path that some text names.

    Raises:
      ValueError: an address of another kind than gs://, or gs:// without a bucket; gs:// where the extra `gcs` is not installed.
    """
    text = os.fspath(path)
    scheme, found, rest = text.partition("://")
    if not found:
        return pathlib.Path(text).expanduser()
    if scheme != "gs":
        raise ValueError(f"{text}: expected a folder, or gs://BUCKET/FOLDER")
    if not all(rest.partition("/")[::2]):
        raise ValueError(f"{text}: expected gs://BUCKET/FOLDER")
    bucket.ready()
    return epath.Path(text.rstrip("/"))


def in_bucket(path: str | os.PathLike) -> bool:
    """Whether a path is one of a bucket."""
    return os.fspath(path).startswith("gs://")


def exists(path: Folder) -> bool:
    """Whether there is anything under this name, a broken link included."""
    return path.exists() if in_bucket(path) else os.path.lexists(path)


def is_link(path: Folder) -> bool:
    """Whether a path is a symbolic link, whatever it leads to."""
    return not in_bucket(path) and os.path.islink(path)


def first_link(path: Folder) -> pathlib.Path | None:
    """A symbolic link: the path itself, or something below it; None if there is none. No link is followed."""
    if in_bucket(path):
        return None
    if os.path.islink(path):
        return pathlib.Path(path)
    for folder, folders, files in os.walk(path):
        for name in sorted((*folders, *files)):
            if os.path.islink(found := os.path.join(folder, name)):
                return pathlib.Path(found)
    return None


def make(folder: Folder) -> None:
    """Make a folder and those above it, where folders are made."""
    if not in_bucket(folder):
        folder.mkdir(parents=True, exist_ok=True)


def names(folder: Folder) -> set[str]:
    """Of what lies in a folder; none if it is not there."""
    try:
        return {entry.name for entry in folder.iterdir()}
    except FileNotFoundError:
        return set()


def write_whole(path: Folder, write: Callable[[pathlib.Path], object]) -> None:
    """Has `write` write a file, and moves it to `path` when it is whole: `flowjax.runtime.files`. For a bucket it is written in a temporary
    folder, and uploaded."""
    if in_bucket(path):
        with tempfile.TemporaryDirectory(prefix="flowjax-") as aside:
            local = pathlib.Path(aside) / path.name
            write(local)
            bucket.upload(local, str(path))
    else:
        write_whole_here(pathlib.Path(path), write)


def move_in(local: pathlib.Path, path: Folder) -> None:
    """Move a whole file of this machine to where it belongs."""
    if in_bucket(path):
        bucket.upload(local, str(path))
        local.unlink()
    else:
        os.replace(local, path)


def remove(path: Folder) -> None:
    """Remove a file, or a folder with all that is in it; nothing if it is not there."""
    if in_bucket(path):
        bucket.remove(str(path))
    elif path.is_dir() and not pathlib.Path(path).is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def move(folder: Folder, to: Folder) -> None:
    """Move a folder to a name that nothing has."""
    if in_bucket(folder):
        bucket.move(str(folder), str(to))
    else:
        folder.rename(to)


def fetched(path: Folder) -> pathlib.Path:
    """A file on this machine: itself, or what was read from a bucket, in a temporary folder that stays until the machine clears it."""
    if not in_bucket(path):
        return pathlib.Path(path)
    local = pathlib.Path(tempfile.mkdtemp(prefix="flowjax-")) / path.name
    bucket.download(str(path), local)
    return local


def checksums(folder: Folder) -> dict[str, str]:
    """Of each file in a folder and those below it, by its name from there: SHA-256, or in a bucket the CRC32C that it keeps itself."""
    if in_bucket(folder):
        return bucket.checksums(str(folder))
    return {str(file.relative_to(folder)): _sha256(file) for file in pathlib.Path(folder).rglob("*") if file.is_file()}


def _sha256(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
