"""A cache of derived data, kept for later runs: folders named by a digest of their inputs."""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from flowjax.runtime.files import fill_whole
from flowjax.runtime.locks import locked

DEFAULT_FOLDER = pathlib.Path("~/.cache/flowjax")


def cached(directory: str | os.PathLike, name: str, key: Mapping[str, Any], make: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """The folder that `make` fills, made once for each `key`: `flowjax.runtime.files.fill_whole`, under a lock.

    Args:
      directory: where such folders are kept; "" is ~/.cache/flowjax.
      name: the first part of the folder's name.
      key: plain JSON values that identify the inputs; their hash is the second part.
      make: fills a new, empty folder.

    Raises:
      OSError: the directory cannot be written; and whatever `make` raises.
    """
    text = json.dumps(key, sort_keys=True)
    root = pathlib.Path(directory or DEFAULT_FOLDER).expanduser()
    final = root / f"{name.replace('/', '_')}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def fill(folder: pathlib.Path) -> None:
        make(folder)
        (folder / "key.json").write_text(text, encoding="utf-8")

    try:
        with locked(final):
            if not final.is_dir():
                fill_whole(final, fill)
    except PermissionError as error:
        raise PermissionError(f"cache_dir={root}: cannot be written ({error.strerror}); set --config.data.cache_dir=FOLDER") from error
    return final
