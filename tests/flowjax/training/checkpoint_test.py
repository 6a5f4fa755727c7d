"""A run outlives what happens to it: killed, out of disk, its checkpoints damaged. Real processes, real signals, a real full disk."""

import contextlib
import hashlib
import multiprocessing
import os
import pathlib
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest

from flowjax.data.pipeline import Batches
from flowjax.data.sources.digits import records
from flowjax.models import Architecture
from flowjax.objective import Objective
from flowjax.training import seal
from flowjax.training.checkpoint import Checkpointer, SaveFailed
from flowjax.training.loop import Observers, Schedule, train
from flowjax.training.metrics import MetricWriter, read_metrics
from flowjax.training.sharding import make_mesh
from flowjax.training.step import Trainer, make_optimizer, parameters_digest
from flowjax.training.tasks import FlowTask

SHAPE = Architecture(image_shape=(8, 8, 1), patch=4, depth=1, width=16, heads=2, num_classes=10)
STEPS, EVERY, KILLS = 40, 4, 2  # docs/scale.md's were 200, 4, 20
PATIENCE = 900  # seconds, on however busy a machine

pytestmark = pytest.mark.slow


def trainer() -> Trainer:
    return Trainer(FlowTask(SHAPE, Objective(), records().normalization), make_optimizer(1e-3), make_mesh(1, 1))


def checkpointer(folder: pathlib.Path) -> Checkpointer:
    return Checkpointer(folder, every=EVERY, keep=3, meta={"model": "tiny"})


def run(root: pathlib.Path, steps: int = STEPS) -> str:
    """Train in `root` from where it stands; the digest of the parameters."""
    root.mkdir(exist_ok=True)
    trained = train(
        trainer(),
        Batches(records(), 8, seed=0, label_dropout=0.1),
        Schedule(steps, log_every=1),
        seed=0,
        checkpointer=checkpointer(root / "checkpoints"),
        observers=Observers(lambda first: MetricWriter(root / "metrics.jsonl", root / "board", first + 1)),
    )
    return parameters_digest((trained.state.parameters, trained.state.ema, trained.state.optimizer))


def child(root: str) -> None:
    """The same in a process of its own."""
    digest = run(pathlib.Path(root))
    (pathlib.Path(root) / "digest").write_text(digest)


@pytest.fixture(scope="module")
def start() -> Callable[[pathlib.Path], multiprocessing.Process]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.flowjax.training.checkpoint_test"])

    def started(root: pathlib.Path) -> Any:
        process = context.Process(target=child, args=(str(root),))
        process.start()
        return process

    return started


@pytest.fixture(scope="module")
def undisturbed(start: Callable[[pathlib.Path], Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("undisturbed")
    process = start(root)
    process.join(PATIENCE)
    assert process.exitcode == 0
    return (root / "digest").read_text()


def saving(root: pathlib.Path) -> bool:
    """Whether a checkpoint is being written just now."""
    folder = root / "checkpoints"
    return folder.is_dir() and any("tmp" in entry.name for entry in folder.iterdir())


@pytest.mark.long
def test_a_run_that_is_killed_again_and_again_ends_as_an_undisturbed_one(
    start: Callable[[pathlib.Path], Any], undisturbed: str, tmp_path: pathlib.Path
) -> None:
    """At random steps and, every other time, in the middle of a save."""
    draws, root = random.Random(0), tmp_path / "run"
    in_a_save = 0
    for kill in range(KILLS):
        before = len(read_metrics(root / "metrics.jsonl"))
        process = start(root)
        wanted = before + draws.randint(1, 6)
        deadline = time.monotonic() + PATIENCE
        while not (len(read_metrics(root / "metrics.jsonl")) >= wanted and (kill % 2 or saving(root))):
            assert process.is_alive(), process.exitcode
            assert time.monotonic() < deadline
            time.sleep(0.002)
        in_a_save += saving(root)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert in_a_save >= 1
    process = start(root)
    process.join(PATIENCE)
    assert process.exitcode == 0
    assert (root / "digest").read_text() == undisturbed
    assert [line["step"] for line in read_metrics(root / "metrics.jsonl") if "loss" in line] == list(range(1, STEPS + 1))


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, str]:
    """A run of eight steps, with its checkpoints; and what it is after twelve."""
    root = tmp_path_factory.mktemp("short")
    run(root, 8)
    return root, run(tmp_path_factory.mktemp("longer"), 12)


@pytest.mark.parametrize("how", ["a bit", pytest.param("missing", marks=pytest.mark.long)])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_read(
    short: tuple[pathlib.Path, str], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    root = tmp_path / "run"
    subprocess.run(["cp", "-r", short[0], root], check=True)
    largest = max((root / "checkpoints" / "8").rglob("*"), key=lambda file: file.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    if how == "missing":
        largest.unlink()
    else:
        largest.write_bytes(content if how == "a bit" else content[:100])
    assert run(root, 12) == short[1]
    said = capsys.readouterr().err
    assert "the checkpoint at step 8 is damaged" in said
    assert "kept as damaged-8" in said
    assert sorted(entry.name for entry in (root / "checkpoints").iterdir() if entry.is_dir()) == ["12", "4", "8", "damaged-8"]


def test_where_every_checkpoint_is_damaged_training_does_not_begin_anew(short: tuple[pathlib.Path, str], tmp_path: pathlib.Path) -> None:
    root = tmp_path / "run"
    subprocess.run(["cp", "-r", short[0], root], check=True)
    for step in ("4", "8"):
        (root / "checkpoints" / step / "state" / "manifest.ocdbt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"step 8 is damaged .*no other is left.*--overwrite"):
        run(root, 12)


def test_the_seal_is_what_sha256sum_checks(short: tuple[pathlib.Path, str]) -> None:
    folder = short[0] / "checkpoints" / "8"
    subprocess.run(["sha256sum", "--check", "--quiet", seal.FILE], cwd=folder, check=True)
    name, digest = "_CHECKPOINT_METADATA", hashlib.sha256((folder / "_CHECKPOINT_METADATA").read_bytes()).hexdigest()
    assert f"{digest}  {name}\n" in (folder / seal.FILE).read_text()


@contextlib.contextmanager
def full_disk(folder: pathlib.Path) -> Iterator[Callable[[], object]]:
    """A disk that is full until the function is called: a small tmpfs where one can be mounted, else files of limited size."""
    folder.mkdir()
    size = ["-o", "size=1m"]
    if subprocess.run(["mount", "-t", "tmpfs", *size, "tmpfs", str(folder)], capture_output=True, check=False).returncode == 0:
        try:
            filler = folder / "filler"
            with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            yield lambda: subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
    else:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
        try:
            yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax's threads, of the save that failed
def test_a_full_disk_costs_a_checkpoint_and_not_the_run(
    short: tuple[pathlib.Path, str], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failed save is told, what it left is removed, and the next one is whole; a last save that fails is an error."""
    one = trainer()
    state = one.init(0)
    with full_disk(tmp_path / "disk") as freed:
        folder = tmp_path / "disk" / "checkpoints"
        with pytest.raises(SaveFailed, match="step 4 could not be saved"), checkpointer(folder) as saver:
            saver.save(state, {"loss": 1.0}, 4)
        with checkpointer(folder) as saver:
            saver.save(state, {"loss": 1.0}, 8)
            with contextlib.suppress(SaveFailed):
                saver.wait()
            freed()
            saver.save(state, {"loss": 2.0}, 12)
            saver.wait()
            assert saver.latest == 12
            assert [entry.name for entry in folder.iterdir() if entry.is_dir()] == ["12"]
            restored = saver.restore(one)
    assert restored is not None
    assert restored.data["loss"] == 2.0
    for wanted, found in zip(jax.tree.leaves(state), jax.tree.leaves(restored.state), strict=True):
        np.testing.assert_array_equal(wanted, found)
