"""A binary of `experiments`, or a command of `kernels`, as its user runs it: real processes, which can be killed."""

import dataclasses
import gc
import importlib
import itertools
import multiprocessing
import os
import pathlib
import runpy
import signal
import socket
import sys
import time
from collections.abc import Callable

from tests.xla_flags import xla_flags


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a process runs."""

    devices: int = 1
    """How many CPU devices it has, however many the tests have; 0: it compiles for others, without the tests' settings."""
    folder: str = "."
    environment: tuple[tuple[str, str], ...] = ()


def _command(name: str, arguments: tuple[str, ...], output: str, place: Place) -> None:
    """In the child: what `python -m experiments.NAME ARGUMENTS` does, its output in a file."""
    gc.freeze()  # else its first collection visits, and so copies, every page that it shares with the server
    os.chdir(place.folder)
    os.environ.update(place.environment)
    os.environ["XLA_FLAGS"] = xla_flags(place.devices) if place.devices else ""
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = [name, *arguments]
    import jax

    jax.config.update("jax_disable_most_optimizations", place.devices > 0)  # its numbers are held to rounding elsewhere: see conftest.py
    if name not in BINARIES:  # its frame is its own, and it is imported only now
        runpy.run_module(name if "." in name else f"experiments.{name}", run_name="__main__", alter_sys=True)
        return
    from experiments.common import app

    binary = importlib.import_module(f"experiments.{name}")
    how = {key: getattr(binary, key.upper()) for key in ("live", "free", "several", "on_disk", "page") if hasattr(binary, key.upper())}
    app.main(name, binary.run, **how)


BINARIES = sorted(file.stem for file in pathlib.Path("experiments").glob("*.py") if "    app.main(" in file.read_text())
"""All of them: the server from which processes are forked is one for all tests, and imports once."""
PRELOADED = (
    *("sklearn.datasets", "sklearn.neighbors", "matplotlib.figure", "scipy.stats", "numba"),
    *("orbax.checkpoint.v1", "grain", "diffrax", "tensorboardX", "jaxlib.mlir.dialects.mhlo"),
    "experiments.common.training_run",
)
"""What binaries import only where they use it."""
HERE = Place()
PATIENCE = 420  # seconds, on however busy a machine


class Finished:
    """A process that has ended: its exit status and all it printed."""

    def __init__(self, name: str, status: int, output: str):
        self._name, self.status, self.output = name, status, output

    @property
    def error(self) -> str:
        """The one line of a user's error; lines before it may warn of the data."""
        *before, last = self.output.strip().splitlines()
        assert self.status == 2, self.output
        assert all(line.startswith("warning: ") for line in before), self.output
        assert last.startswith(f"{self._name}: error: ")
        return last


class Running:
    """A process that has not ended."""

    def __init__(self, name: str, process: multiprocessing.Process, output: pathlib.Path):
        self._name, self._process, self._output = name, process, output

    def kill_when(self, condition: Callable[[], bool], how: signal.Signals = signal.SIGKILL) -> Finished:
        """Send a signal as soon as the condition holds."""
        self.until(condition)
        os.kill(self.pid, how)
        return self.wait()

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for the condition, which must come to hold while the process runs."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self._process.is_alive(), self.text
            assert time.monotonic() < deadline, f"what the process should do did not happen within {PATIENCE} s: {self.text}"
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def send_signal(self, which: int) -> None:
        os.kill(self.pid, which)

    def poll(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> Finished:
        self._process.join(PATIENCE)
        assert self._process.exitcode is not None, f"the binary did not end within {PATIENCE} s: {self.text}"
        return Finished(self._name, self._process.exitcode, self.text)

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self._output.read_text() if self._output.exists() else ""


class Binary:
    """Runs a binary in processes forked from one that has imported it: a fresh process each, without the seconds of importing."""

    def __init__(self, name: str, scratch: pathlib.Path):
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([*(f"experiments.{each}" for each in BINARIES), *PRELOADED])
        self._name, self._scratch, self._number = name, scratch, itertools.count()

    def start(self, *arguments: str, place: Place = HERE) -> Running:
        output = self._scratch / f"output{next(self._number)}.txt"
        process = self._context.Process(target=_command, args=(self._name, arguments, str(output), place))
        process.start()
        return Running(self._name, process, output)

    def __call__(self, *arguments: str, place: Place = HERE) -> Finished:
        return self.start(*arguments, place=place).wait()

    def job(self, processes: int, *arguments: str, place: Place, last: tuple[str, ...] = (), last_place: Place | None = None) -> "Job":
        """Several processes that find each other; the last one may be told something besides, or run elsewhere."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        among = (f"--coordinator_address={address}", f"--num_processes={processes}", "--heartbeat_timeout_seconds=10")
        others = [self.start(*arguments, *among, f"--process_id={index}", place=place) for index in range(processes - 1)]
        return Job([*others, self.start(*arguments, *among, f"--process_id={processes - 1}", *last, place=last_place or place)])


class Job:
    """The processes of a job, in their order."""

    def __init__(self, running: list[Running]):
        self.running = running

    def when(self, condition: Callable[[], bool]) -> list[Running]:
        """Its processes, as soon as the condition holds."""
        self.running[0].until(condition)
        return self.running

    def wait(self) -> list[Finished]:
        return [process.wait() for process in self.running]

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.running:
            process.kill()
