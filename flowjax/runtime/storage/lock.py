"""One writer at a time: of a folder on this machine by the lock of a file, in a bucket by an object that its holder renews.

The system lets go of a file's lock when its process ends. An object stays: whoever finds it takes it over at once if the process that it
names ran on this machine and is gone, and otherwise if it has not been renewed for `LAPSE` seconds. A holder that was taken over (it had
been stopped, or cut off) ends when it next looks.
"""

import contextlib
import json
import os
import pathlib
import socket
import sys
import threading
import time
import uuid
from typing import Any, Protocol, runtime_checkable

from flowjax.runtime.exit_codes import Exit
from flowjax.runtime.locks import FileLock, Held
from flowjax.runtime.storage import bucket
from flowjax.runtime.storage.paths import Folder, in_bucket

NAME = ".flowjax.lock"
RENEW = 8.0
"""Seconds between two renewals of a lock in a bucket."""
LAPSE = 30.0
"""Seconds without one after which it is nobody's."""
_LOOK = 1.0  # seconds between two checks of it


@runtime_checkable
class Lock(Protocol):
    """Held until it is released, or its process ends."""

    def release(self) -> None:
        """Let go of it; nothing if that was done before."""


def hold(root: Folder) -> Lock:
    """The lock of a folder.

    Raises:
      ValueError: another process holds it; it is named.
      OSError: the folder cannot be written.
    """
    if in_bucket(root):
        return _Lease(str(root))
    try:
        return FileLock(pathlib.Path(root) / NAME)
    except Held as held:
        raise _refused(root, str(held)) from None


def _refused(root: object, holder: str) -> ValueError:
    return ValueError(f"workdir {root} is being written by process {holder}: wait for it to end, or give another --workdir")


class _Lease:
    """An object that says who writes, and changes as long as he does."""

    def __init__(self, root: str):
        self._root = root
        self._object = f"{root}/{NAME}"
        self._own = {"process": os.getpid(), "host": socket.gethostname(), "machine": _machine(), "started": _started(os.getpid())}
        self._text = json.dumps({**self._own, "token": uuid.uuid4().hex})
        self._generation = self._taken()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()

    def _taken(self) -> int:
        while True:
            with contextlib.suppress(bucket.Refused):
                return bucket.write_if(self._object, self._text, 0)
            found = bucket.read(self._object)
            if found is None:
                continue  # it was let go of in between
            generation, text = found
            if text == self._text:  # written by an attempt whose answer was lost
                return generation
            holder = _parsed(text)
            if holder.get("machine") == self._own["machine"]:
                if _started(holder.get("process")) == holder.get("started"):
                    raise _refused(self._root, f"{holder.get('process')} on this machine")
            elif self._renewed(generation):
                raise _refused(self._root, f"{holder.get('process')} on {holder.get('host')}")
            with contextlib.suppress(bucket.Refused):  # another one was quicker, or the holder lives
                return bucket.write_if(self._object, self._text, generation)

    def _renewed(self, generation: int) -> bool:
        """Whether the holder shows, in `LAPSE` seconds, that it is alive. No clocks are compared, and time that this process was stopped
        for does not count: the holder may have been stopped too."""
        print(f"another process was writing {self._root}: waiting {LAPSE:.0f} s to see whether it still does", file=sys.stderr, flush=True)
        for _ in range(round(LAPSE / _LOOK)):
            time.sleep(_LOOK)
            found = bucket.read(self._object)
            if found is None or found[0] != generation:
                return found is not None
        return False

    def _renew(self) -> None:
        while not self._released.wait(RENEW):
            try:
                self._generation = bucket.write_if(self._object, self._text, self._generation)
            except bucket.Refused:
                found = bucket.read(self._object)
                if found is not None and found[1] == self._text:
                    self._generation = found[0]
                elif not self._released.is_set():
                    print(f"error: another process has taken over workdir {self._root}", file=sys.stderr, flush=True)
                    self._released.set()  # it is not ours to remove
                    os._exit(Exit.LOST_PEER)
            except OSError:
                pass  # tried again; if that lasts, whoever takes the lock over is seen then

    def release(self) -> None:
        if not self._released.is_set():
            self._released.set()
            self._thread.join()
            with contextlib.suppress(OSError, ValueError, bucket.Refused):
                bucket.remove_if(self._object, self._generation)


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _machine() -> str:
    """Where a process's number means what it does here: since this start of the machine, in this container."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return uuid.uuid4().hex  # not to be known: nobody else's


def _started(process: Any) -> str | None:
    """When a process began, in the machine's ticks: a number may be given to another one later. None: it is not there, or dead."""
    try:
        state, *rest = pathlib.Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else rest[18]
