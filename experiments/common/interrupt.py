"""Control-C while a binary imports what it needs, which takes seconds: one line, and no traceback of what was being imported.

A binary is started as `python -m experiments.NAME`; Python then imports the package `experiments`, which calls `install`, before any
module that takes long. While the binary's own work runs, Control-C raises `KeyboardInterrupt` as ever (`raised`).
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType

STATUS = 130
"""As `flowjax.runtime.exit_codes.Exit.INTERRUPTED`, which is not imported yet."""


def install() -> None:
    """End the process in one line on Control-C from now on, where it is a binary that has just been started."""
    if (
        sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):  # Python looks for NAME, and has run none of it
        signal.signal(signal.SIGINT, _end)


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Within it Control-C raises `KeyboardInterrupt`, outside it is as before."""
    before = signal.getsignal(signal.SIGINT)
    if before is not _end:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(number: int, frame: FrameType | None) -> None:
    names = [word.rpartition(".")[2] for word in sys.orig_argv if word.startswith("experiments.")]
    os.write(2, f"{names[0] if names else 'experiments'}: error: interrupted\n".encode())
    os._exit(STATUS)
