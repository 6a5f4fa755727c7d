"""A watchdog for steps that hang: it prints the stack of every thread, and ends the process."""

import faulthandler
import time
from types import TracebackType

_EVERY = 1.0  # seconds between two windings: each starts a thread


class Watchdog:
    """Ends the process, with its stacks on standard error and status 1, unless `beat` is called often enough; a context manager.

    The clock is faulthandler's: a thread in C, which needs nothing of an interpreter that hangs.

    Args:
      seconds: longest time between two beats; 0: any.
    """

    def __init__(self, seconds: float = 0.0):
        if seconds < 0:
            raise ValueError(f"step_timeout_seconds = {seconds}: expected 0 or more")
        self._seconds = seconds
        self._wound = 0.0

    def beat(self) -> None:
        """A step is done."""
        now = time.monotonic()
        if self._seconds and now - self._wound >= min(_EVERY, self._seconds / 4):
            self._wound = now
            faulthandler.dump_traceback_later(self._seconds, exit=True)

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._wound:
            faulthandler.cancel_dump_traceback_later()
