"""Folders that are either whole or not there: whatever interrupts their making, nothing half-written is ever taken for whole."""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

DEFAULT_FOLDER = pathlib.Path("~/.cache/flowjax")


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Holds the lock of `path`, which need not be there yet: another process that wants it waits. A process that dies lets go of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def cached(directory: str | os.PathLike, name: str, key: Mapping[str, Any], make: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """The folder that `make` fills, made once for each `key`.

    `make` writes into a folder beside, which is moved into place when it returns: a folder under its final name is whole. What an
    interrupted process left is removed by the next.

    Args:
      directory: where such folders are kept; "" is ~/.cache/flowjax.
      name: the first part of the folder's name.
      key: plain JSON values that say what it is made of; its hash is the second part.
      make: fills a new, empty folder.

    Raises:
      OSError: the directory cannot be written; and whatever `make` raises.
    """
    text = json.dumps(key, sort_keys=True)
    root = pathlib.Path(directory or DEFAULT_FOLDER).expanduser()
    final = root / f"{name.replace('/', '_')}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    try:
        with locked(final):
            if not final.is_dir():
                partial = final.with_name(f"{final.name}.partial")
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                make(partial)
                (partial / "key.json").write_text(text, encoding="utf-8")
                os.replace(partial, final)
    except PermissionError as error:
        raise PermissionError(f"cache_dir={root}: cannot be written ({error.strerror}); set --config.data.cache_dir=FOLDER") from error
    return final
