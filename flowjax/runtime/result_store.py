"""The times of a sweep that are done, on disk: a sweep that was cut off goes on with the next."""

import io
import json
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flowjax.runtime import processes, storage

_META = "meta.json"
_TIME = "t"


class PartialSweep:
    """A folder with a file for each time that is done, whole or not there; the first process writes, all read.

    Args:
      folder: made by the first file.
      meta: plain JSON values: what the rows depend on.

    Raises:
      ValueError: the folder holds times of another sweep; it names the first key that differs.
    """

    def __init__(self, folder: storage.Folder, meta: Mapping[str, Any]):
        self._folder, self._meta = folder, json.loads(json.dumps(meta))
        if (folder / _META).exists():
            for key, asked, found in processes.differences(self._meta, self._earlier()):
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

    def known(self, times: Sequence[float]) -> list[int]:
        """Which of the times are done, and can be read."""
        found = (int(name[:-4]) for name in storage.names(self._folder) if name.endswith(".npz") and name[:-4].isdigit())
        return sorted(index for index in found if index < len(times) and self._readable(index, times[index]))

    def _readable(self, index: int, time: float) -> bool:
        try:
            return float(self.read(index)[_TIME]) == time
        except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile):  # a flipped bit makes anything of a zip file
            return False

    def read(self, index: int) -> dict[str, np.ndarray]:
        """What was found at a time."""
        with np.load(io.BytesIO(self._file(index).read_bytes()), allow_pickle=False) as found:
            return {name: found[name] for name in found.files}

    def write(self, index: int, time: float, found: Mapping[str, np.ndarray]) -> None:
        """Keep what was found at a time, the `index`th."""
        if not processes.is_first():
            return
        storage.make(self._folder)
        if not (self._folder / _META).exists():
            text = json.dumps(self._meta, indent=2) + "\n"
            storage.write_whole(self._folder / _META, lambda file: file.write_text(text, encoding="utf-8"))
        storage.write_whole(self._file(index), lambda file: _save(file, {**found, _TIME: np.asarray(time)}))

    def _file(self, index: int) -> storage.Folder:
        return self._folder / f"{index:05d}.npz"


def _save(path: pathlib.Path, found: Mapping[str, np.ndarray]) -> None:
    with open(path, "wb") as file:  # given a name, NumPy would add .npz to it
        np.savez(file, allow_pickle=False, **found)
