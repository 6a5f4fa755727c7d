"""Training as several processes, started as its user starts them: they train, save, stop and fail as one."""

import json
import os
import pathlib
import resource
import signal
import time

import numpy as np
import pytest

from flowjax.runtime.exit_codes import Exit
from flowjax.training.metrics import read_metrics
from tests.binary import Binary, Job, Place

SMALL = (
    "--config.task=classifier",
    "--config.batch_size=16",
    "--config.mesh.fsdp=4",
    "--config.optimizer.warmup=5",
    "--config.log_every=1",
    "--config.checkpoint_every=4",
    "--config.evaluate_every=0",
)
FLOW = (
    "--config.task=flow",
    "--config.model.size=Pi/4",
    "--config.steps=3",
    "--config.heldout_fraction=0.0",
    "--config.evaluation.oracle=False",
    "--config.evaluation.frechet_samples=0",
    "--config.evaluation.sampler_steps=2",
    "--config.evaluation.grid=10",
)
CLASSIFIER = ("--config.steps=3",)
FOREVER = "--config.steps=100000"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place() -> Place:
    return Place(devices=2)


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Binary:
    return Binary("train", tmp_path_factory.mktemp("binary"))


def losses(workdir: pathlib.Path) -> list[float]:
    return [line["loss"] for line in read_metrics(workdir / "metrics.jsonl") if "loss" in line]


def saved(workdir: pathlib.Path) -> list[int]:
    folder = workdir / "checkpoints"
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()) if folder.is_dir() else []


def refused(job: Job) -> str:
    """All processes end by the user's error, in one line each; returns that of the first."""
    with job:
        ended = job.wait()
    lines = [finished.output.strip().splitlines()[-1] for finished in ended]
    assert [finished.status for finished in ended] == [Exit.USER_ERROR] * len(ended), [finished.output for finished in ended]
    assert all(": error: " in line for line in lines)
    return lines[0]


@pytest.mark.long
def test_two_processes_train_as_one_stop_as_one_and_one_goes_on(binary: Binary, place: Place, tmp_path: pathlib.Path) -> None:
    """SIGTERM to one: both save the same step, and end with the status for it. One process, of as many devices, finishes what they began:
    the losses are those that it has by itself."""
    workdir, alone = tmp_path / "two", tmp_path / "one"
    with binary.job(2, *SMALL, FOREVER, f"--workdir={workdir}", place=place) as job:
        second = job.when(lambda: len(losses(workdir)) >= 6)[1]
        second.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        ended = job.wait()
    assert time.monotonic() - asked < 30 * max(1.0, os.getloadavg()[0] / 2)  # of a quiet machine
    assert [finished.status for finished in ended] == [Exit.STOPPED] * 2, [finished.output for finished in ended]
    stopped = len(losses(workdir))
    assert saved(workdir)[-1] == stopped
    assert not (workdir / "summary.json").exists()
    steps = f"--config.steps={stopped + 2}"
    four = Place(devices=4)
    for folder in (workdir, alone):
        finished = binary(*SMALL, steps, f"--workdir={folder}", "--resume", place=four)
        assert finished.status == 0, finished.output
    np.testing.assert_allclose(losses(workdir), losses(alone), rtol=5e-6)


@pytest.mark.parametrize("task", [CLASSIFIER, pytest.param(FLOW, marks=pytest.mark.long)], ids=["classifier", "flow"])
def test_what_two_processes_leave_is_what_one_leaves(binary: Binary, place: Place, tmp_path: pathlib.Path, task: tuple[str, ...]) -> None:
    with binary.job(2, *SMALL, *task, f"--workdir={tmp_path / 'two'}", place=place) as job:
        ended = job.wait()
    assert [finished.status for finished in ended] == [Exit.FINISHED] * 2, [finished.output for finished in ended]
    assert "Report" in ended[0].output
    assert "Report" not in ended[1].output
    assert binary(*SMALL, *task, f"--workdir={tmp_path / 'one'}", place=Place(devices=4)).status == 0
    two, one = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("two", "one"))
    assert set(two) == set(one)
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=5e-6)
    for key in ("steps", "mesh", "n", "num_parameters", "versions", "device"):
        assert two[key] == one[key]
    names = [{str(f.relative_to(tmp_path / name).parts[:2]) for f in (tmp_path / name).rglob("*")} for name in ("two", "one")]
    tensorboard = [{name for name in found if "tfevents" not in name} for found in names]
    assert tensorboard[0] == tensorboard[1]


def test_where_one_cannot_save_all_stop_and_name_the_last_good_checkpoint(binary: Binary, place: Place, tmp_path: pathlib.Path) -> None:
    """One process can write no large file from the first checkpoint on."""
    with binary.job(2, *SMALL, FOREVER, f"--workdir={tmp_path / 'run'}", place=place) as job:
        second = job.when(lambda: (tmp_path / "run" / "checkpoints" / "4" / "SHA256SUMS").exists())[1]
        resource.prlimit(second.pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        ended = job.wait()
    for finished in ended:
        assert finished.status == Exit.NOT_SAVED, finished.output
        line = finished.output.strip().splitlines()[-1]
        assert "could not be saved" in line
        assert f"the last good one is at step {saved(tmp_path / 'run')[-1]}" in line
    assert "process 1: " in ended[0].output


def test_processes_that_were_not_started_alike_are_refused_with_the_difference(
    binary: Binary, place: Place, tmp_path: pathlib.Path
) -> None:
    job = binary.job(2, *SMALL, f"--workdir={tmp_path / 'run'}", place=place, last=("--config.optimizer.beta2=0.9",))
    assert "process 1 has config.optimizer.beta2 = 0.9, but process 0 has 0.95" in refused(job)
    job = binary.job(2, *SMALL[:2], "--config.mesh.batch=2", f"--workdir={tmp_path / 'run'}", place=place)
    assert "a mesh of 2 devices, but the job has 4" in refused(job)
    places = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "data.npy", np.full((32, 8, 8, 1), ord(name), np.float32))
        places.append(Place(2, str(tmp_path / name)))
    given = (f"--workdir={tmp_path / 'run'}", "--config.data.path=data.npy")
    assert "process 1 has data.rows" in refused(binary.job(2, *SMALL, *given, place=places[0], last_place=places[1]))
    (tmp_path / "b" / "data.npy").unlink()
    assert "data.npy" in refused(binary.job(2, *SMALL, *given, place=places[0], last_place=places[1]))
    assert not (tmp_path / "run").exists()


def test_a_process_whose_peers_do_not_come_says_so(binary: Binary, tmp_path: pathlib.Path) -> None:
    among = ("--coordinator_address=127.0.0.1:1", "--num_processes=2", "--process_id=1", "--start_timeout_seconds=2")
    finished = binary(*SMALL, f"--workdir={tmp_path / 'run'}", *among)
    assert finished.status == Exit.LOST_PEER, finished.output
    assert "process 0 was not to be reached at 127.0.0.1:1 within 2 s" in finished.output
    assert "--process_id" in binary(*SMALL, f"--workdir={tmp_path / 'run'}", *among[:2]).error
    assert not (tmp_path / "run").exists()
