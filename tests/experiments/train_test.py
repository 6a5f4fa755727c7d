"""Training as its user runs it: stopped, killed, gone on with; and what it says when something is wrong."""

import json
import pathlib
import re
import signal
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flowjax.training.metrics import read_metrics
from tests.binary import Binary

CONFIGS = pathlib.Path(__file__).parents[2] / "experiments" / "configs" / "train.py"
SMALL = (
    "--config.model.size=Pi/4",
    "--config.batch_size=16",
    "--config.steps=60",
    "--config.optimizer.warmup=5",
    "--config.log_every=5",
    "--config.checkpoint_every=10",
    "--config.evaluate_every=0",
    "--config.evaluation.times=4",
    "--config.evaluation.queries=32",
    "--config.evaluation.copies=8",
    "--config.evaluation.copies_steps=2",
    "--config.evaluation.grid=10",
    "--config.evaluation.sampler_steps=4",
    "--config.evaluation.frechet_samples=0",
)


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Binary:
    return Binary("train", tmp_path_factory.mktemp("binary"))


def summary(workdir: pathlib.Path) -> dict[str, Any]:
    return json.loads((workdir / "summary.json").read_text())


@pytest.fixture(scope="module")
def undisturbed(binary: Binary, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("runs") / "undisturbed"
    finished = binary(*SMALL, f"--workdir={workdir}")
    assert finished.status == 0, finished.output
    return workdir


def checkpoint(workdir: pathlib.Path, at_least: int) -> bool:
    folder = workdir / "checkpoints"
    return folder.is_dir() and any(entry.name.isdigit() and int(entry.name) >= at_least for entry in folder.iterdir())


@pytest.mark.slow
def test_a_run_leaves_all_that_is_promised(undisturbed: pathlib.Path) -> None:
    found = summary(undisturbed)
    assert {"final_loss", "params_digest", "steps", "steps_per_second", "compile_seconds"} <= set(found)
    assert found["steps"] == 60
    assert len(found["params_digest"]) == 64
    lines = read_metrics(undisturbed / "metrics.jsonl")
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert sorted(losses) == list(range(5, 61, 5))
    assert losses[60] < losses[5]
    board = EventAccumulator(str(undisturbed / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("loss")] == sorted(losses)
    np.testing.assert_allclose([event.value for event in board.Scalars("loss")], list(losses.values()), rtol=1e-6)
    stages = {f"{target}/{stage}" for target in ("cfm", "oracle") for stage in ("navigation", "refinement")}
    assert stages <= set(lines[-1])
    assert lines[-1]["copies/from_noise/training/low"] <= lines[-1]["copies/from_noise/training"] < 0.5  # of an untrained model
    assert "copies/from_turning_point/unseen/high" in lines[-1]
    assert found["copies_by_t"]["copies/from_noise/training"] == lines[-1]["copies/from_noise/training"]
    for name in (
        "report.html",
        "loss_by_t.csv",
        "copies_by_t.csv",
        "figures/copies_by_t.svg",
        "figures/training.png",
        "figures/loss_by_t.svg",
        "samples/00000060.png",
    ):
        assert (undisturbed / name).stat().st_size > 0


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, marks=pytest.mark.long),  # in CI: several processes, supervise_test.py
        pytest.param(signal.SIGINT, marks=pytest.mark.long),
    ],
)
def test_a_run_that_was_killed_or_stopped_ends_with_the_same_parameters(
    binary: Binary, undisturbed: pathlib.Path, tmp_path: pathlib.Path, how: signal.Signals
) -> None:
    workdir = tmp_path / "run"
    brief = ("--config.evaluation.oracle=False",)  # evaluations do not touch the parameters
    longer = ("--config.evaluate_every=25",)  # so that it is still at work when the checkpoint of step 20 is there
    cut_off = binary.start(*SMALL, *brief, *longer, f"--workdir={workdir}", "--resume").kill_when(lambda: checkpoint(workdir, 20), how)
    assert cut_off.status == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 75}[how], cut_off.output
    if how == signal.SIGTERM:  # the last step that was done is saved, whichever it was
        step = int(re.search(r"stopped by SIGTERM after step (\d+), which is saved", cut_off.output)[1])
        assert (workdir / "checkpoints" / str(step)).is_dir()
    assert not (workdir / "summary.json").exists()
    for steps in (40, 60):  # a run that has ended goes on, too, if it is told more steps
        finished = binary(*SMALL, *brief, f"--workdir={workdir}", "--resume", f"--config.steps={steps}")
        assert finished.status == 0, finished.output
        assert summary(workdir)["steps"] == steps
    assert "at least as many" in binary(*SMALL, *brief, f"--workdir={workdir}", "--resume", "--config.steps=30").error
    assert summary(workdir)["params_digest"] == summary(undisturbed)["params_digest"]
    assert summary(workdir)["ema_digest"] == summary(undisturbed)["ema_digest"]
    steps = [line["step"] for line in read_metrics(workdir / "metrics.jsonl") if "loss" in line]
    assert steps == list(range(5, 61, 5))


@pytest.mark.slow
def test_a_finished_run_and_one_of_another_configuration_are_told(binary: Binary, undisturbed: pathlib.Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in undisturbed.rglob("*")}
    again = binary(*SMALL, f"--workdir={undisturbed}", "--resume")
    assert again.status == 0
    assert "finished run" in again.output
    assert "--resume" in binary(*SMALL, f"--workdir={undisturbed}").error
    other = binary(*SMALL, f"--workdir={undisturbed}", "--resume", "--config.batch_size=32").error
    assert "batch_size" in other
    assert {file: file.stat().st_mtime_ns for file in undisturbed.rglob("*") if file.name != ".flowjax.json"}.items() <= before.items()


@pytest.mark.long
def test_a_second_process_on_the_same_folder_is_refused(binary: Binary, tmp_path: pathlib.Path) -> None:
    workdir = tmp_path / "run"
    first = binary.start(*SMALL, f"--workdir={workdir}", "--config.steps=100000")

    def refused() -> bool:
        if not (workdir / ".flowjax.lock").exists():
            return False
        assert "being written by process" in binary(*SMALL, f"--workdir={workdir}", "--resume").error
        return True

    first.kill_when(refused)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_with_the_step_the_seed_and_the_checkpoint(binary: Binary, tmp_path: pathlib.Path) -> None:
    extra = ("--config.optimizer.learning_rate=1e25", "--config.optimizer.clip=0.0", "--config.checkpoint_every=1")
    error = binary(*SMALL, f"--workdir={tmp_path / 'run'}", *extra).error
    assert "at step" in error
    assert "seed 0" in error
    assert "last good checkpoint is at step" in error


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((f"--config={CONFIGS}:digts",), "'digits'"),
        (("--config.model.size=XXL/1",), "XXL/1"),
        (("--config.model.size=Mi/3",), "patch"),
        (("--config.model.dtype=float8",), "float8"),
        (("--config.model.remat=some",), "remat"),
        (("--config.batch_size=30", "--config.accumulation=4"), "batch_size"),
        (("--config.mesh.batch=64",), "mesh.batch"),
        (("--config.objective.times.t_min=0.6", "--config.objective.times.t_max=0.4"), "t_min"),
        (("--config.objective.target=marginal",), "marginal"),
        (("--config.optimizer.learning_rate=0.0",), "learning_rate"),
        (("--config.steps=0",), "steps"),
        (("--config.checkpoint_every=0",), "checkpoint_every"),
        (("--config.task=painting",), "painting"),
        (("--config.data.path=/nowhere/latents",), "/nowhere/latents"),
        ((f"--config={CONFIGS}:imagenet_vavae_b1",), "data.path"),
    ],
)
def test_what_a_user_gets_wrong_ends_in_one_line_that_names_it(
    binary: Binary, tmp_path: pathlib.Path, arguments: tuple[str, ...], named: str
) -> None:
    assert named in binary(f"--workdir={tmp_path / 'run'}", *arguments).error
    assert not (tmp_path / "run").exists()
