"""Folders that are either whole or not there: whatever interrupts their making, nothing half-written is ever taken for whole."""

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from flowjax.runtime.locks import locked

DEFAULT_FOLDER = pathlib.Path("~/.cache/flowjax")


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
