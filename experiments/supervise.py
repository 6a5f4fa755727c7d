"""Start a binary as several processes on this machine, and start it again when that can help.

    python -m experiments.supervise --processes=4 -- python -m experiments.train --workdir=runs/train --resume

Each process gets --coordinator_address, --num_processes and --process_id (with --processes=1 none of them). The job ends with the first
status that another attempt would not change (finished, the user's error, Control-C); after any other, a death by a signal included, what is
left of it is killed and all are started again, --max_restarts times. A job that was stopped and has saved (75) does not count. SIGTERM is
passed on; the supervisor then ends with the job. What the statuses mean stands in flowjax/runtime/exit_codes.py, which launch/jobset.yaml
follows.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from absl import app, flags

from flowjax.runtime import exit_codes
from flowjax.runtime.exit_codes import Exit

_PROCESSES = flags.DEFINE_integer("processes", 1, "How many processes to start.", lower_bound=1)
_MAX_RESTARTS = flags.DEFINE_integer("max_restarts", 10, "How often to start again; afresh after an hour without a fault.", lower_bound=0)
_GRACE = flags.DEFINE_float("grace_seconds", 60.0, "When one process has failed, how long the others may take to notice.", lower_bound=0.0)
_LOGS = flags.DEFINE_string("logs", "", "Folder for the output of each process, appended to process-0.log ...; none: it is passed on.")

HEALTHY = 3600.0  # seconds after which earlier faults are forgotten
_POLL = 0.05


class Process(Protocol):
    """One process of a job."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None:
        """Its status, negative for a signal; None while it runs."""

    def send_signal(self, sig: int, /) -> None: ...


Start = Callable[[int, Sequence[str]], Process]
"""Starts the process of an index, which is told the flags."""


class Supervisor:
    """Runs a job to its end, over as many attempts as that takes.

    Args:
      start: of one process.
      processes: how many.
      max_restarts: attempts after the first that may follow a fault.
      grace: seconds that the others may take to end when one has failed; then they are killed.
      backoff: seconds before the second restart; doubled for each that follows, a minute at most.
      say: is told what happens, a line each.
      between: called before each further attempt.
    """

    def __init__(
        self,
        start: Start,
        processes: int,
        *,
        max_restarts: int = 10,
        grace: float = 60.0,
        backoff: float = 2.0,
        say: Callable[[str], None] = print,
        between: Callable[[], None] = lambda: None,
    ):
        self._start, self._count, self._max_restarts, self._grace = start, processes, max_restarts, grace
        self._backoff, self._say, self._between = backoff, say, between
        self._stopping = False
        self.running: list[Process] = []

    def run(self) -> int:
        """Until the job ends for good; its status."""
        restarts = 0
        while True:
            began = time.monotonic()
            self.running = [self._start(index, flags_of) for index, flags_of in enumerate(_flags(self._count))]
            statuses = self._ended()
            status = exit_codes.of_job(statuses)
            if self._stopping or status in exit_codes.FINAL:
                return status
            if time.monotonic() - began > HEALTHY:
                restarts = 0
            restarts += status not in exit_codes.FREE
            told = ", ".join(f"process {index}: {_name(status)}" for index, status in enumerate(statuses))
            if restarts > self._max_restarts:
                self._say(f"supervise: error: {told}; given up after {self._max_restarts} restarts")
                return status
            self._say(f"supervise: {told}; starting again (restart {restarts} of {self._max_restarts})")
            self._between()
            time.sleep(min(self._backoff * 2.0 ** (restarts - 2), 60.0) if restarts > 1 else 0.0)

    def stop(self) -> None:
        """Pass SIGTERM on; what follows is the end."""
        self._stopping = True
        self._signal(signal.SIGTERM)

    def _ended(self) -> list[int]:
        """The statuses of all, when all have ended."""
        deadline = None
        while None in (statuses := [process.poll() for process in self.running]):
            failed = any(status for status in statuses)
            if failed and deadline is None:
                deadline = time.monotonic() + self._grace
            if deadline is not None and time.monotonic() > deadline:
                self._signal(signal.SIGKILL)
            time.sleep(_POLL)
        return [status for status in statuses if status is not None]

    def _signal(self, which: int) -> None:
        for process in self.running:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):  # it ended in between
                    process.send_signal(which)


class _Group(subprocess.Popen):
    """A process that is killed with all that it has started."""

    def send_signal(self, sig: int) -> None:
        if sig == signal.SIGKILL:
            os.killpg(self.pid, sig)
        else:
            super().send_signal(sig)


def _flags(count: int) -> list[tuple[str, ...]]:
    """What each process is told, so that they find each other."""
    if count == 1:
        return [()]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [(f"--coordinator_address={address}", f"--num_processes={count}", f"--process_id={index}") for index in range(count)]


def _name(status: int) -> str:
    known = {int(each): each.name.lower().replace("_", " ") for each in Exit}
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"{known.get(status, 'status')} ({status})"


def main(argv: Sequence[str]) -> None:
    """Supervise the command that follows `--`."""
    command = list(argv[1:])
    if not command:
        sys.exit(_refuse("no command given; expected one after --, for example -- python -m experiments.train --resume"))
    if "--resume" not in command:
        sys.exit(_refuse("the command has no --resume: a further attempt would not go on from what the first one saved"))

    def start(index: int, told: Sequence[str]) -> Process:
        if not _LOGS.value:
            return _Group([*command, *told], start_new_session=True)
        with open(f"{_LOGS.value}/process-{index}.log", "ab") as log:
            return _Group([*command, *told], start_new_session=True, stdout=log, stderr=subprocess.STDOUT)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    supervisor = Supervisor(start, _PROCESSES.value, max_restarts=_MAX_RESTARTS.value, grace=_GRACE.value, say=say)
    for which in (signal.SIGTERM, signal.SIGINT):
        signal.signal(which, lambda number, frame: supervisor.stop())
    try:
        sys.exit(supervisor.run())
    except OSError as error:
        sys.exit(_refuse(f"{command[0]} cannot be started ({error})"))


def _refuse(message: str) -> int:
    print(f"supervise: error: {message}", file=sys.stderr)
    return int(Exit.USER_ERROR)


if __name__ == "__main__":
    app.run(main)
