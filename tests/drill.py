"""Faults for jobs under their supervisor: do they come to their end, and is anything lost?

    python -m tests.drill --faults=50 --seed=0            # make drill DRILL_FAULTS=50; in CI: tests/experiments/supervise_test.py

Four processes of two CPU devices each train the smallest model, and then others sweep an oracle; one fault after the other happens to them,
a little after they have gone on from the one before. At the end the parameters, and the table, are compared with those of a run that
nothing happened to.
"""

import argparse
import collections
import contextlib
import hashlib
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from experiments.supervise import Supervisor
from flowjax.training.metrics import read_metrics
from flowjax.training.seal import FILE as SEAL
from tests.binary import Binary, Place, Running

PATIENCE = 240.0  # seconds, on however busy a machine
EVERY = 4  # steps between two checkpoints
FAULTS = ("sigterm", "kill_a_worker", "kill_the_coordinator", "corrupt_the_newest", "fill_the_disk")


class Kind(Protocol):
    """What the jobs do."""

    binary: str
    faults: tuple[str, ...]
    """That can happen to it."""
    writes: tuple[int, int]
    """A process that must write, and a size in bytes of its files that is too little."""

    def arguments(self, faults: int) -> tuple[str, ...]:
        """For a run that is long enough for so many faults."""

    def saved(self, folder: pathlib.Path) -> list[pathlib.Path]:
        """What is whole on disk, the newest last."""

    def amount(self, saved: Sequence[pathlib.Path]) -> int:
        """How much of the run it holds."""

    def goes_on_from(self, said: str) -> int | None:
        """The amount from which an attempt went on; None: it has not yet."""

    def advanced(self, folder: pathlib.Path, began: int, since: float) -> int:
        """How much further the attempt that began so, and then, has come."""

    def digest(self, folder: pathlib.Path) -> str:
        """Of what the run ends with."""


class Training:
    """Of the smallest model; what is saved are checkpoints, their amount is the step."""

    binary, faults, writes = "train", (*FAULTS, "kill_in_a_save", "freeze"), (-1, 100_000)

    def arguments(self, faults: int) -> tuple[str, ...]:
        small = ("--config.task=classifier", "--config.batch_size=16", "--config.optimizer.warmup=5", "--config.evaluate_every=0")
        return (*small, "--config.log_every=1", f"--config.checkpoint_every={EVERY}", f"--config.steps={2 * EVERY * (faults + 1)}")

    def saved(self, folder: pathlib.Path) -> list[pathlib.Path]:
        seals = (folder / "checkpoints").glob(f"*/{SEAL}")
        return sorted((seal.parent for seal in seals if seal.parent.name.isdigit()), key=lambda kept: int(kept.name))

    def amount(self, saved: Sequence[pathlib.Path]) -> int:
        return max((int(kept.name) for kept in saved), default=0)

    def goes_on_from(self, said: str) -> int | None:
        gone_on = re.search(r"goes on from the checkpoint at step (\d+)", said)
        return int(gone_on[1]) if gone_on else None

    def advanced(self, folder: pathlib.Path, began: int, since: float) -> int:
        return sum(line["step"] > began for line in read_metrics(folder / "metrics.jsonl"))

    def digest(self, folder: pathlib.Path) -> str:
        return str(json.loads((folder / "summary.json").read_text())["params_digest"])


class Sweeping:
    """An oracle, through many t; what is saved are files, one for each t, and their number is the amount."""

    binary, faults, writes = "oracle_sweep", (*FAULTS, "freeze"), (0, 500)

    def arguments(self, faults: int) -> tuple[str, ...]:
        return ("--config.num_queries=16", "--config.strip_samples=1", f"--config.num_t={2 * EVERY * (faults + 1)}")

    def saved(self, folder: pathlib.Path) -> list[pathlib.Path]:
        return sorted((folder / "partial").glob("*.npz"))

    def amount(self, saved: Sequence[pathlib.Path]) -> int:
        return len(saved)

    def goes_on_from(self, said: str) -> int | None:
        gone_on = re.search(r"goes on: (\d+) of \d+ times are done", said)
        return int(gone_on[1]) if gone_on else None

    def advanced(self, folder: pathlib.Path, began: int, since: float) -> int:
        return sum(file.stat().st_mtime > since for file in self.saved(folder))

    def digest(self, folder: pathlib.Path) -> str:
        return hashlib.sha256((folder / "sweep.csv").read_bytes()).hexdigest()


class Drill:
    """Jobs of a kind, and what can happen to them."""

    def __init__(
        self,
        root: pathlib.Path,
        kind: Kind,
        faults: Sequence[str],
        *,
        processes: int = 4,
        seed: int = 0,
        say: Callable[[str], None] = print,
    ):
        root.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(root / "cache"))  # each attempt compiles the same programs
        self._root, self._kind, self._faults, self._processes, self._say = root, kind, faults, processes, say
        self._binary = Binary(kind.binary, root)
        self._draws = random.Random(seed)
        self._attempts: list[list[Running]] = []
        self._since = 0.0
        self._between: Callable[[], None] = lambda: None
        self._damaged: pathlib.Path | None = None
        self._told: list[str] = []
        self.lost = 0
        """Of what was whole on disk at a fault, and was not damaged by it: how much the job did not go on from."""
        self.waited: list[float] = []
        """Seconds from each fault to the next step."""
        self.in_saves = 0
        """Kills that left a save unfinished on disk."""

    def undisturbed(self) -> str:
        """The digest of what a run ends with that nothing happens to."""
        assert self._supervisor("undisturbed").run() == 0, self._said()
        return self._kind.digest(self._root / "undisturbed" / "run")

    def disturbed(self) -> str:
        """That of a run to which the faults happen, in their order."""
        with self._disk("disturbed") as folder:
            supervisor = self._supervisor("disturbed")
            status: list[int] = []
            thread = threading.Thread(target=lambda: status.append(supervisor.run()), daemon=True)
            thread.start()
            self._until(lambda: bool(self._kind.saved(folder)), thread)
            for fault in self._faults:
                wanted = self._draws.randint(1, EVERY + 2)
                self._until(lambda: self._advanced(folder) >= wanted, thread)  # noqa: B023
                self._happens(fault, folder, thread)
            thread.join(PATIENCE + 20 * len(self._faults))
            assert status == [0], (status, self._told[-3:], self._said())
            return self._kind.digest(folder)

    def _happens(self, fault: str, folder: pathlib.Path, thread: threading.Thread) -> None:
        job, before = self._attempts[-1], len(self._attempts)
        saved = self._kind.saved(folder)
        self._damaged = None
        getattr(self, f"_{fault}")(job, folder)
        began = time.monotonic()
        self._until(lambda: len(self._attempts) > before, thread)
        self._until(lambda: self._advanced(folder) >= 1, thread)
        self.waited.append(time.monotonic() - began)
        gone_on = self._kind.goes_on_from(self._attempts[-1][0].text) or 0
        self.lost += max(self._kind.amount([kept for kept in saved if kept != self._damaged]) - gone_on, 0)
        self._say(f"{self._kind.binary}: {fault}: {self._told[-1]}; {self.waited[-1]:.1f} s to the next step, from {gone_on}")

    # What can happen.

    def _sigterm(self, job: list[Running], folder: pathlib.Path) -> None:
        self._draws.choice(job).send_signal(signal.SIGTERM)

    def _kill_a_worker(self, job: list[Running], folder: pathlib.Path) -> None:
        self._draws.choice(job[1:]).send_signal(signal.SIGKILL)

    def _kill_the_coordinator(self, job: list[Running], folder: pathlib.Path) -> None:
        job[0].send_signal(signal.SIGKILL)

    def _kill_in_a_save(self, job: list[Running], folder: pathlib.Path) -> None:
        """As soon as Orbax's temporary folder is there. If it still is when the job has ended, nothing of the save was whole."""
        checkpoints, deadline = folder / "checkpoints", time.monotonic() + PATIENCE
        while not _unfinished(checkpoints) and time.monotonic() < deadline:
            time.sleep(0.002)
        self._draws.choice(job).send_signal(signal.SIGKILL)

        def count() -> None:
            self.in_saves += bool(_unfinished(checkpoints))

        self._between = count

    def _freeze(self, job: list[Running], folder: pathlib.Path) -> None:
        self._draws.choice(job).send_signal(signal.SIGSTOP)

    def _corrupt_the_newest(self, job: list[Running], folder: pathlib.Path) -> None:
        def corrupt() -> None:
            self._damaged = self._kind.saved(folder)[-1]
            files = [self._damaged, *self._damaged.rglob("*")]
            largest = max((file for file in files if file.is_file()), key=lambda file: file.stat().st_size)
            content = bytearray(largest.read_bytes())
            content[len(content) // 2] ^= 1
            largest.write_bytes(content)

        self._until(lambda: len(self._kind.saved(folder)) >= 2)
        self._between = corrupt
        job[0].send_signal(signal.SIGKILL)

    def _fill_the_disk(self, job: list[Running], folder: pathlib.Path) -> None:
        if not os.path.ismount(folder.parent):  # where none can be mounted: a process that can write no large file
            which, size = self._kind.writes
            resource.prlimit(job[which].pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            return
        filler = folder.parent / "filler"
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        self._between = filler.unlink

    # The job.

    def _supervisor(self, name: str) -> Supervisor:
        self._attempts = []
        arguments = (
            *self._kind.arguments(len(self._faults)),
            f"--workdir={self._root / name / 'run'}",
            "--heartbeat_timeout_seconds=10",
            "--resume",
        )

        def start(index: int, told: Sequence[str]) -> Running:
            began = time.time()
            process = self._binary.start(*arguments, *told, place=Place(devices=2))
            if index == 0:
                self._since = began
                self._attempts.append([process])
            else:
                self._attempts[-1].append(process)
            return process

        def between() -> None:
            action, self._between = self._between, lambda: None
            action()

        return Supervisor(start, self._processes, max_restarts=10_000, grace=5.0, backoff=0.0, say=self._told.append, between=between)

    @contextlib.contextmanager
    def _disk(self, name: str) -> Iterator[pathlib.Path]:
        """A small disk of its own, where one can be mounted."""
        (self._root / name).mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(self._root / name)]
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
        try:
            yield self._root / name / "run"
        finally:
            for process in self._attempts[-1]:
                process.kill()
            if mounted:
                subprocess.run(["umount", "-l", str(self._root / name)], check=True)

    def _advanced(self, folder: pathlib.Path) -> int:
        """How far the attempt that runs now has come by itself."""
        gone_on = self._kind.goes_on_from(self._attempts[-1][0].text)
        if len(self._attempts) > 1 and gone_on is None:
            return 0
        return self._kind.advanced(folder, gone_on or 0, self._since)

    def _until(self, condition: Callable[[], bool], thread: threading.Thread | None = None) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert thread is None or thread.is_alive(), ("the job has ended", self._told[-3:], self._said())
            assert time.monotonic() < deadline, ("this did not come to pass", self._told[-3:], self._said())
            time.sleep(0.02)

    def _said(self) -> list[str]:
        return [process.text[-2000:] for process in self._attempts[-1]]


def _unfinished(checkpoints: pathlib.Path) -> list[str]:
    return [entry.name for entry in checkpoints.iterdir() if ".orbax-checkpoint-tmp" in entry.name]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", choices=sorted({*Training.faults, *Sweeping.faults}), action="append", help="these faults; given again: these too"
    )
    options = parser.parse_args()
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"  # processes that are killed leave semaphores; the last line is ours
    draws = random.Random(options.seed)
    root = pathlib.Path(tempfile.mkdtemp(prefix="drill_"))
    happened: collections.Counter[str] = collections.Counter()
    waited, lost, in_saves, same = [], 0, 0, True
    try:
        jobs: list[Kind] = [Training(), Sweeping()]
        asked = [(kind, [fault for fault in kind.faults if not options.only or fault in options.only]) for kind in jobs]
        asked = [(kind, possible) for kind, possible in asked if possible]
        for index, (kind, possible) in enumerate(asked):
            count = (options.faults + len(asked) - 1 - index) // len(asked)
            faults = [*possible] * -(-count // len(possible))  # each kind as often as the others, in any order
            faults = draws.sample(faults[:count], count)
            drill = Drill(root / kind.binary, kind, faults, processes=options.processes, seed=options.seed)
            alike = drill.undisturbed() == drill.disturbed()
            print(f"{kind.binary}: {len(faults)} faults, the end is {'that' if alike else 'NOT that'} of an undisturbed run", flush=True)
            same &= alike
            happened.update(faults)
            waited += drill.waited
            lost += drill.lost
            in_saves += drill.in_saves
    finally:
        shutil.rmtree(root, ignore_errors=True)
    kinds = ", ".join(f"{count} x {name}" for name, count in sorted(happened.items()))
    print(f"{kinds}; {in_saves} kills left a save unfinished on disk")
    print(f"from a fault to the next step {sum(waited) / len(waited):.1f} s on average, {max(waited):.1f} s at most")
    print(
        f"drill: {len(waited)} faults survived, {lost} steps lost beyond what was whole on disk, "
        f"final parameters and table {'equal to' if same else 'DIFFERENT from'} those of undisturbed runs"
    )
    return 0 if same and not lost else 1


if __name__ == "__main__":
    sys.exit(main())
