"""Preemption: a scheduler sends SIGTERM before it takes a machine away. A long run then saves, and ends with a status of its own."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils

from flowjax.runtime.exit_codes import Exit


class Stopped(SystemExit):
    """A run was asked to stop, and has saved.

    Args:
      done: the last thing that is done and saved.
    """

    def __init__(self, done: str):
        super().__init__(int(Exit.STOPPED))
        self._done = done

    def __str__(self) -> str:
        return f"stopped by SIGTERM after {self._done}, which is saved; go on with --resume"


class Preemption:
    """Whether SIGTERM has come; a context manager, within which it does not end the process.

    Where there are several processes it counts if it came to any of them, and all of them learn of it at the same step.

    Args:
      enabled: False: it ends the process, as ever; there is nothing to save.
    """

    def __init__(self, enabled: bool = True) -> None:
        self._enabled, self._asked = enabled, False
        self._before: Any = None

    def __enter__(self) -> "Preemption":
        # With several processes JAX's own runtime takes the signal, and a signal can be handled by the main thread only.
        if self._enabled and jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def asked(self, step: int) -> bool:
        """To be called after every step, by every process."""
        if not self._enabled or jax.process_count() == 1:
            return self._asked
        return bool(multihost_utils.reached_preemption_sync_point(step))
