"""A binary of `experiments` as its user runs it: real processes, which can be killed."""

import importlib
import itertools
import multiprocessing
import os
import pathlib
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType


def _command(name: str, arguments: tuple[str, ...], output: str, devices: int) -> None:
    """In the child: what `python -m experiments.NAME ARGUMENTS` does, its output in a file."""
    if devices:
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = [name, *arguments]
    from experiments import runner

    binary = importlib.import_module(f"experiments.{name}")
    runner.main(name, binary.run, live=getattr(binary, "LIVE", ()), several=getattr(binary, "SEVERAL", False))


class Finished:
    """A process that has ended: its exit status and all it printed."""

    def __init__(self, name: str, status: int, output: str):
        self._name, self.status, self.output = name, status, output

    @property
    def error(self) -> str:
        """The one line of a user's error."""
        lines = self.output.strip().splitlines()
        assert self.status == 2, self.output
        assert len(lines) == 1, self.output
        assert lines[0].startswith(f"{self._name}: error: ")
        return lines[0]


class Running:
    """A process that has not ended."""

    def __init__(self, name: str, process: multiprocessing.Process, output: pathlib.Path):
        self._name, self._process, self._output = name, process, output

    def kill_when(self, condition: Callable[[], bool], how: signal.Signals = signal.SIGKILL) -> Finished:
        """Send a signal as soon as the condition holds."""
        deadline = time.monotonic() + 120
        while not condition():
            assert self._process.is_alive(), self._text()
            assert time.monotonic() < deadline, "what the process should do did not happen within two minutes"
            time.sleep(0.02)
        os.kill(self._process.pid, how)
        return self.wait()

    def wait(self) -> Finished:
        self._process.join(120)
        assert self._process.exitcode is not None, "the binary did not end within two minutes"
        return Finished(self._name, self._process.exitcode, self._text())

    def _text(self) -> str:
        return self._output.read_text() if self._output.exists() else ""


class Binary:
    """Runs a binary in processes forked from one that has imported it: a fresh process each, without the seconds of importing."""

    def __init__(self, name: str, scratch: pathlib.Path):
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([f"experiments.{name}"])
        self._name, self._scratch, self._number = name, scratch, itertools.count()

    def start(self, *arguments: str, devices: int = 0) -> Running:
        """Args:
        devices: how many CPU devices the process has; 0: as many as the tests.
        """
        output = self._scratch / f"output{next(self._number)}.txt"
        process = self._context.Process(target=_command, args=(self._name, arguments, str(output), devices))
        process.start()
        return Running(self._name, process, output)

    def __call__(self, *arguments: str, devices: int = 0) -> Finished:
        return self.start(*arguments, devices=devices).wait()

    def job(
        self, processes: int, devices: int, *arguments: str, own: Mapping[int, tuple[str, ...]] = MappingProxyType({})
    ) -> list[Running]:
        """Several processes that find each other; `own`: what one of them is told besides."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        among = (f"--coordinator_address={address}", f"--num_processes={processes}", "--heartbeat_timeout_seconds=10")
        return [self.start(*arguments, *among, f"--process_id={index}", *own.get(index, ()), devices=devices) for index in range(processes)]
