"""The lock of a file on this machine: one process holds it, and the system lets go of it when that process ends, however it ends."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

import filelock

_HOLDER = 1  # byte at which the holder's number stands: on Windows the first one is what is locked, and nobody else can read it


class Held(Exception):
    """Another process holds the lock; its number, as text, or "?"."""


class FileLock:
    """A lock that is held from its making until `release`, or until its process ends.

    Args:
      path: the lock's file, in a folder that is there. It is made if need be, and holds the number of the process; a link is not followed.

    Raises:
      Held: another process holds it.
      OSError: the file cannot be written.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._lock = filelock.FileLock(path, mode=0o644, thread_local=False)
        try:
            self._lock.acquire(blocking=False)
        except filelock.Timeout:
            raise Held(self._holder() or "?") from None
        with open(path, "r+b", buffering=0) as file:
            file.seek(_HOLDER)
            file.write(str(os.getpid()).encode())
            file.truncate()

    def _holder(self) -> str:
        try:
            with open(self._path, "rb", buffering=0) as file:
                file.seek(_HOLDER)
                return file.read(32).decode(errors="replace").strip()
        except OSError:  # released just now
            return ""

    def release(self) -> None:
        """Let go of the lock, and remove its file; nothing if that was done before."""
        if self._lock.is_locked:
            with contextlib.suppress(PermissionError):  # Windows removes no open file; filelock removes it there after the release
                self._path.unlink(missing_ok=True)
            self._lock.release()


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Hold the lock of `path`, `.NAME.lock` beside it, as long as the block runs. Another process that wants it waits.

    The folder is made if need be; `path` itself need not be there. The lock's file stays, for those who wait.

    Raises:
      OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_name(f".{path.name}.lock"), mode=0o644):
        yield
