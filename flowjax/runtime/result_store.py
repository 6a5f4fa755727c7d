"""Results that a run has finished, on disk one by one: a run that was cut off goes on with the next."""

import hashlib
import importlib.metadata
import io
import json
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from flowjax.runtime import processes, storage
from flowjax.runtime.strict_json import plain

_ABOUT = "store.json"
_FORMAT = 2
"""Raised where the same settings give other results than before; last: classes are sampled in the data's proportions."""
_DEPENDS_ON = "depends_on"


class Damaged(ValueError):
    """A result that cannot be read, or is not the one that was asked for."""


class ResultStore:
    """A folder with a file for each result; the first process writes, all read.

    A file is named by a digest of all that its result depends on, and says in clear what that is. It is there whole or not at all. Results
    are plain JSON values, or with `arrays` mappings of names to arrays, bit for bit (`.npz`).

    Args:
      folder: made for the first result. Results of an earlier build of this package are removed, which is said in one line, and computed
        anew.
      of: plain JSON values that all results depend on; a folder holds results of one such set.
      arrays: results are arrays.

    Raises:
      ValueError: the folder holds results of another `of`; it names the first key that differs.
    """

    def __init__(self, folder: storage.Folder, *, of: Mapping[str, Any] | None = None, arrays: bool = False):
        self._folder, self._suffix = folder, ".npz" if arrays else ".json"
        self._about = {"build": f"{importlib.metadata.version('flowjax-oracle')}, format {_FORMAT}", "of": plain(of)}
        if processes.is_first():
            self._check_earlier()

    def _check_earlier(self) -> None:
        names = storage.names(self._folder)
        earlier = self._read_about() if _ABOUT in names else {}
        if names and earlier.get("build") != self._about["build"]:
            print(f"{self._folder}: {len(names - {_ABOUT})} results of an earlier build are computed anew", file=sys.stderr, flush=True)
            storage.remove(self._folder)
        elif names:
            for key, asked, found in processes.differences(self._about["of"], earlier.get("of")):
                raise ValueError(
                    f"{key} = {asked!r}, but {self._folder} holds results of another configuration, with {found!r}: "
                    "resume with the same, pass --overwrite, or give another --workdir"
                )

    def _read_about(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self._folder / _ABOUT).read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{self._folder / _ABOUT} is damaged, and no longer says whose results these are: pass --overwrite, or another --workdir"
            ) from error

    def __call__(self, depends_on: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
        """The stored result, or else the result of `compute`, which is then stored."""
        found = self.find(depends_on)
        return self.keep(depends_on, compute()) if found is None else found

    def find(self, depends_on: Mapping[str, Any]) -> Any | None:
        """The result, or None if it is not there, or cannot be read."""
        try:
            return self.read(depends_on)
        except (FileNotFoundError, Damaged):
            return None

    def read(self, depends_on: Mapping[str, Any]) -> Any:
        """The result.

        Raises:
          FileNotFoundError: it is not there.
          Damaged: it cannot be read.
        """
        told = plain(depends_on)
        file = self._file(told)
        content = file.read_bytes()
        try:
            earlier, value = _from_npz(content) if self._suffix == ".npz" else _from_json(content)
        except (ValueError, KeyError, TypeError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise Damaged(f"{file} is damaged ({error})") from error  # a flipped bit makes anything of a zip file
        if earlier != told:
            raise Damaged(f"{file} holds the result of {earlier}")
        return value

    def keep(self, depends_on: Mapping[str, Any], value: Any) -> Any:
        """Write a result; gives it as `read` will."""
        told = plain(depends_on)
        arrays = self._suffix == ".npz"
        value = {name: np.asarray(part) for name, part in value.items()} if arrays else plain(value)
        if processes.is_first():
            storage.make(self._folder)
            if not (self._folder / _ABOUT).exists():
                about = json.dumps(self._about, indent=2) + "\n"
                storage.write_whole(self._folder / _ABOUT, lambda file: file.write_text(about, encoding="utf-8"))
            content = _to_npz(told, value) if arrays else _to_json(told, value)
            storage.write_whole(self._file(told), lambda file: file.write_bytes(content))
        return value

    def _file(self, told: Any) -> storage.Folder:
        return self._folder / f"{hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:20]}{self._suffix}"


def _to_json(depends_on: Any, value: Any) -> bytes:
    return (json.dumps({_DEPENDS_ON: depends_on, "value": value}, indent=2) + "\n").encode()


def _from_json(content: bytes) -> tuple[Any, Any]:
    held = json.loads(content)
    return held[_DEPENDS_ON], held["value"]


def _to_npz(depends_on: Any, value: Mapping[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **{_DEPENDS_ON: np.asarray(json.dumps(depends_on)), **value})
    return file.getvalue()


def _from_npz(content: bytes) -> tuple[Any, dict[str, np.ndarray]]:
    with np.load(io.BytesIO(content), allow_pickle=False) as held:
        value = {name: held[name] for name in held.files}
    return json.loads(str(value.pop(_DEPENDS_ON))), value
