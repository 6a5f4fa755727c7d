"""Files and folders of this machine that are whole or not there: each is written aside, then moved into place.

One process at a time writes under a name. Where several might, they take its lock first (`flowjax.runtime.locks`).
"""

import glob
import os
import pathlib
import shutil
from collections.abc import Callable


def write_whole(path: pathlib.Path, write: Callable[[pathlib.Path], object]) -> None:
    """Has `write` write a file beside `path`, and moves it there when it is on the disk.

    What a process that was killed had begun under this name is removed first. If `write` fails, what lay at `path` still does.

    Raises:
      OSError: the file cannot be written; and whatever `write` raises.
    """
    partial = _aside(path)
    try:
        partial.touch()  # with the permissions that the user's new files have: some writers would give their own
        write(partial)
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def fill_whole(folder: pathlib.Path, fill: Callable[[pathlib.Path], object]) -> None:
    """Has `fill` fill a new folder beside `folder`, where nothing lies yet, and moves it there when `fill` returns.

    What a process that was killed had begun under this name is removed first. If `fill` fails nothing is left.

    Raises:
      OSError: the folder cannot be written; and whatever `fill` raises.
    """
    partial = _aside(folder)
    partial.mkdir()
    try:
        fill(partial)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _aside(path: pathlib.Path) -> pathlib.Path:
    """The name under which this process writes what is to be `path`. What has such a name already is left over, and goes."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.partial-*"):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.partial-{os.getpid()}")
