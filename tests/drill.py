"""Faults for a training job under its supervisor: does it come to its end, and is anything lost?

    python -m tests.drill --faults=50 --seed=0            # make drill DRILL_FAULTS=50; in CI: tests/experiments/drill_test.py

Several processes of two CPU devices each train the smallest model; one fault after the other happens to them, a few steps after they have
gone on from the one before. At the end their parameters are compared with those of a run that nothing happened to.
"""

import argparse
import collections
import contextlib
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

from experiments.supervise import Supervisor
from flowjax.training.metrics import read_metrics
from flowjax.training.seal import FILE as SEAL
from tests.binary import Binary, Place, Running

EVERY = 4  # steps between two checkpoints
PATIENCE = 240.0  # seconds, on however busy a machine
TRAINING = (
    "--config.task=classifier",
    "--config.batch_size=16",
    "--config.optimizer.warmup=5",
    "--config.log_every=1",
    f"--config.checkpoint_every={EVERY}",
    "--config.evaluate_every=0",
    "--heartbeat_timeout_seconds=10",
    "--resume",
)


class Drill:
    """A job, and what can happen to it."""

    def __init__(self, root: pathlib.Path, *, processes: int = 2, steps: int, seed: int = 0, say: Callable[[str], None] = print):
        self._root, self._processes, self._steps, self._say = root, processes, steps, say
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(root / "cache"))  # each attempt compiles the same step
        self._binary = Binary("train", root)
        self._place = Place(devices=2)
        self._draws = random.Random(seed)
        self._attempts: list[list[Running]] = []
        self._between: Callable[[], None] = lambda: None
        self._told: list[str] = []
        self.lost = 0
        """Steps between the last whole checkpoint at a fault and that from which the job went on."""
        self.waited: list[float] = []
        """Seconds from each fault to the next step."""

    def undisturbed(self) -> str:
        """The digest of the parameters of a run that nothing happens to."""
        supervisor = self._supervisor("undisturbed")
        assert supervisor.run() == 0, self._said()
        return self._digest("undisturbed")

    def disturbed(self, faults: Sequence[str]) -> str:
        """The digest of those of a run to which the faults happen, in their order."""
        with self._disk("disturbed") as folder:
            supervisor = self._supervisor("disturbed")
            status: list[int] = []
            thread = threading.Thread(target=lambda: status.append(supervisor.run()), daemon=True)
            thread.start()
            self._until(lambda: bool(self._saved(folder)), thread)
            for fault in faults:
                wanted = self._draws.randint(1, EVERY + 2)
                self._until(lambda: len(self._steps_done(folder)) >= wanted, thread)  # noqa: B023
                self._happens(fault, folder, thread)
            thread.join(PATIENCE + 3 * self._steps)
            assert status == [0], (status, self._told[-3:], self._said())
            return self._digest("disturbed")

    def _happens(self, fault: str, folder: pathlib.Path, thread: threading.Thread) -> None:
        job, before = self._attempts[-1], len(self._attempts)
        saved = self._saved(folder)
        getattr(self, f"_{fault}")(job, folder)
        began = time.monotonic()
        self._until(lambda: len(self._attempts) > before, thread)
        self._until(lambda: len(self._steps_done(folder)) >= 1, thread)
        # By now a damaged one has been set aside: what it held is not counted as lost.
        kept = max((step for step in saved if (folder / "checkpoints" / str(step)).exists()), default=0)
        self.waited.append(time.monotonic() - began)
        gone_on = re.search(r"goes on from the checkpoint at step (\d+)", self._attempts[-1][0].text)
        self.lost += max(kept - int(gone_on[1] if gone_on else 0), 0)
        self._say(f"{fault}: {self._told[-1]}; {self.waited[-1]:.1f} s to the next step, from step {gone_on[1] if gone_on else 0}")

    # What can happen.

    def _sigterm(self, job: list[Running], folder: pathlib.Path) -> None:
        self._draws.choice(job).send_signal(signal.SIGTERM)

    def _kill_a_worker(self, job: list[Running], folder: pathlib.Path) -> None:
        self._draws.choice(job[1:]).send_signal(signal.SIGKILL)

    def _kill_the_coordinator(self, job: list[Running], folder: pathlib.Path) -> None:
        job[0].send_signal(signal.SIGKILL)

    def _kill_in_a_save(self, job: list[Running], folder: pathlib.Path) -> None:
        deadline = time.monotonic() + PATIENCE
        while not any("tmp" in entry.name for entry in (folder / "checkpoints").iterdir()) and time.monotonic() < deadline:
            time.sleep(0.002)
        self._draws.choice(job).send_signal(signal.SIGKILL)

    def _freeze(self, job: list[Running], folder: pathlib.Path) -> None:
        self._draws.choice(job).send_signal(signal.SIGSTOP)

    def _corrupt_the_newest(self, job: list[Running], folder: pathlib.Path) -> None:
        def corrupt() -> None:
            newest = folder / "checkpoints" / str(max(self._saved(folder)))
            largest = max((file for file in newest.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
            content = bytearray(largest.read_bytes())
            content[len(content) // 2] ^= 1
            largest.write_bytes(content)

        self._until(lambda: len(self._saved(folder)) >= 2)
        self._between = corrupt
        job[0].send_signal(signal.SIGKILL)

    def _fill_the_disk(self, job: list[Running], folder: pathlib.Path) -> None:
        if not os.path.ismount(folder):  # where none can be mounted: a process that can write no large file
            resource.prlimit(job[-1].pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
            return
        filler = folder.parent / "disturbed" / "filler"
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        self._between = filler.unlink

    # The job.

    def _supervisor(self, name: str) -> Supervisor:
        self._attempts = []
        arguments = (*TRAINING, f"--config.steps={self._steps}", f"--workdir={self._root / name / 'run'}")

        def start(index: int, told: Sequence[str]) -> Running:
            process = self._binary.start(*arguments, *told, place=self._place)
            if index == 0:
                self._attempts.append([])
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

    def _steps_done(self, folder: pathlib.Path) -> list[int]:
        """Those that the attempt which runs now has done itself."""
        job = self._attempts[-1]
        gone_on = re.search(r"goes on from the checkpoint at step (\d+)", job[0].text)
        if len(self._attempts) > 1 and gone_on is None:
            return []
        first = int(gone_on[1]) if gone_on else 0
        return [line["step"] for line in read_metrics(folder / "metrics.jsonl") if line["step"] > first]

    def _saved(self, folder: pathlib.Path) -> list[int]:
        """The checkpoints that are whole."""
        return [int(seal.parent.name) for seal in (folder / "checkpoints").glob(f"*/{SEAL}") if seal.parent.name.isdigit()]

    def _digest(self, name: str) -> str:
        return str(json.loads((self._root / name / "run" / "summary.json").read_text())["params_digest"])

    def _until(self, condition: Callable[[], bool], thread: threading.Thread | None = None) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert thread is None or thread.is_alive(), ("the job has ended", self._told[-3:], self._said())
            assert time.monotonic() < deadline, ("this did not come to pass", self._told[-3:], self._said())
            time.sleep(0.02)

    def _said(self) -> list[str]:
        return [process.text[-2000:] for process in self._attempts[-1]]


FAULTS = tuple(name[1:] for name in ("_sigterm", "_kill_a_worker", "_kill_the_coordinator", "_corrupt_the_newest", "_fill_the_disk"))
RANDOM = (*FAULTS, "kill_in_a_save", "freeze")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draws = random.Random(options.seed)
    faults = [draws.choice(RANDOM) for _ in range(options.faults)]
    root = pathlib.Path(tempfile.mkdtemp(prefix="drill_"))
    drill = Drill(root, processes=options.processes, steps=2 * EVERY * (options.faults + 1), seed=options.seed)
    try:
        wanted = drill.undisturbed()
        same = drill.disturbed(faults) == wanted
    finally:
        shutil.rmtree(root, ignore_errors=True)
    kinds = ", ".join(f"{count} x {name}" for name, count in sorted(collections.Counter(faults).items()))
    mean = sum(drill.waited) / len(drill.waited)
    print(f"{kinds}; from a fault to the next step {mean:.1f} s on average, {max(drill.waited):.1f} s at most")
    print(
        f"drill: {len(drill.waited)} faults survived, {drill.lost} steps lost beyond the last whole checkpoint, "
        f"final parameters {'equal to' if same else 'DIFFERENT from'} those of an undisturbed run"
    )
    return 0 if same and not drill.lost else 1


if __name__ == "__main__":
    sys.exit(main())
