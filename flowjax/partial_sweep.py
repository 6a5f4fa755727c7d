"""The times of a sweep that are done, on disk: a sweep that was cut off goes on with the next."""

import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np

from flowjax import peers

_META = "meta.json"


class PartialSweep:
    """A folder with a file for each time that is done, whole or not there; the first process writes, all read.

    Args:
      folder: made by the first file.
      meta: plain JSON values: what the rows depend on.

    Raises:
      ValueError: the folder holds times of another sweep; it names the first key that differs.
    """

    def __init__(self, folder: pathlib.Path, meta: Mapping[str, Any]):
        self._folder, self._meta = folder, json.loads(json.dumps(meta))
        if (folder / _META).exists():
            for key, asked, found in peers.differences(self._meta, self._earlier()):
                raise ValueError(
                    f"{key} = {asked!r}, but {folder} holds part of a sweep of another configuration, with {found!r}: "
                    "resume with the same, pass --overwrite, or give another --workdir"
                )

    def _earlier(self) -> Any:
        try:
            return json.loads((self._folder / _META).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"{self._folder / _META} is damaged, and no longer says whose sweep this is part of: pass --overwrite, or another --workdir"
            ) from error

    def known(self) -> list[int]:
        """The times that are done and can be read."""
        found = (int(file.stem) for file in self._folder.glob("*.npz") if file.stem.isdigit())
        return sorted(index for index in found if self._readable(index))

    def _readable(self, index: int) -> bool:
        try:
            self.read(index)
        except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile):  # a flipped bit makes anything of a zip file
            return False
        return True

    def read(self, index: int) -> dict[str, np.ndarray]:
        """What was found at a time."""
        with np.load(self._file(index), allow_pickle=False) as found:
            return {name: found[name] for name in found.files}

    def write(self, index: int, found: Mapping[str, np.ndarray]) -> None:
        """Keep what was found at a time."""
        if not peers.is_first():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        if not (self._folder / _META).exists():
            _write_whole(self._folder / _META, lambda file: file.write(json.dumps(self._meta, indent=2).encode() + b"\n"))
        _write_whole(self._file(index), lambda file: np.savez(file, allow_pickle=False, **found))

    def _file(self, index: int) -> pathlib.Path:
        return self._folder / f"{index:05d}.npz"


def _write_whole(path: pathlib.Path, write: Callable[[BinaryIO], Any]) -> None:
    """The file is there whole or not at all, whenever the process dies."""
    aside = path.with_suffix(".partial")
    with open(aside, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
