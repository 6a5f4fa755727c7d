"""`--workdir=gs://...`, against an emulator: runs are killed and go on, and end as on a disk; what is wrong is said in one line."""

import json
import os
import pathlib
import signal
import time
from collections.abc import Iterator

import pytest

from flowjax.runtime.storage import bucket
from tests.binary import Binary, Place
from tests.emulator import emulator

SMALL = (
    "--config.task=classifier",
    "--config.batch_size=16",
    "--config.optimizer.warmup=5",
    "--config.evaluate_every=0",
    "--config.log_every=1",
    "--config.checkpoint_every=4",
)
SWEEP = ("--config.num_queries=16", "--config.strip_samples=1", "--config.num_t=16")


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with emulator() as environment:
        yield Place(environment=tuple(environment.items()))


def names(folder: str) -> set[str]:
    """Of the objects below gs://mine/FOLDER."""
    return set(bucket.checksums(f"gs://mine/{folder}"))


def text(name: str) -> str:
    found = bucket.read(f"gs://mine/{name}")
    assert found is not None, name
    return found[1]


@pytest.mark.long
def test_training_that_is_killed_goes_on_from_the_bucket_and_ends_as_on_a_disk(place: Place, tmp_path: pathlib.Path) -> None:
    """Killed while its third checkpoint is being saved. Then the newest that is whole is damaged: the one before it is read."""
    train = Binary("train", tmp_path)
    run = (*SMALL, "--config.steps=20", "--workdir=gs://mine/train", "--resume")

    def saving() -> bool:
        found = names("train/checkpoints")
        return "8/SHA256SUMS" in found and any(f"{name.partition('/')[0]}/commit_success.txt" not in found for name in found)

    train.start(*run, place=place).kill_when(saving)
    assert ".flowjax.lock" in names("train")
    whole = max(int(name.partition("/")[0]) for name in names("train/checkpoints") if name.count("/") == 1 and name.endswith("SHA256SUMS"))
    (largest,) = (name for name in names(f"train/checkpoints/{whole}") if name.startswith("state/ocdbt.process_0/d/"))
    bucket.blob(f"gs://mine/train/checkpoints/{whole}/{largest}").upload_from_string(b"damaged")
    ended = train(*run, place=place)
    assert ended.status == 0, ended.output
    assert f"the checkpoint at step {whole} is damaged" in ended.output
    assert f"goes on from the checkpoint at step {whole - 4}" in ended.output
    assert f"damaged-{whole}/{largest}" in names("train/checkpoints")

    assert train(*SMALL, "--config.steps=20", f"--workdir={tmp_path / 'run'}").status == 0
    here, there = json.loads((tmp_path / "run" / "summary.json").read_text()), json.loads(text("train/summary.json"))
    assert there["params_digest"] == here["params_digest"]
    ours, theirs = (text("train/metrics.jsonl"), (tmp_path / "run" / "metrics.jsonl").read_text())
    assert [json.loads(line)["step"] for line in ours.splitlines()] == [json.loads(line)["step"] for line in theirs.splitlines()]
    on_disk = {str(file.relative_to(tmp_path / "run")) for file in (tmp_path / "run").rglob("*") if file.is_file()}
    live = ("checkpoints/", "tensorboard/")
    assert {name for name in names("train") if not name.startswith(live)} == {name for name in on_disk if not name.startswith(live)}
    assert "holds a finished run" in train(*run, place=place).output
    assert "--overwrite to replace it" in train(*run[:-1], place=place).error


@pytest.mark.long
def test_a_sweep_that_is_killed_goes_on_with_the_next_t(place: Place, tmp_path: pathlib.Path) -> None:
    sweep = Binary("oracle_sweep", tmp_path)
    sweep.start(*SWEEP, "--workdir=gs://mine/sweep", place=place).kill_when(lambda: len(names("sweep/partial")) > 4)
    done = len(names("sweep/partial")) - 1
    ended = sweep(*SWEEP, "--workdir=gs://mine/sweep", "--resume", place=place)
    assert ended.status == 0, ended.output
    assert f"goes on: {done} of 16" in ended.output
    assert sweep(*SWEEP, f"--workdir={tmp_path / 'run'}").status == 0
    assert text("sweep/sweep.csv") == (tmp_path / "run" / "sweep.csv").read_text()


@pytest.mark.long
def test_a_second_writer_is_refused_and_goes_on_when_the_first_is_gone(place: Place, tmp_path: pathlib.Path) -> None:
    sweep = Binary("oracle_sweep", tmp_path)
    first = sweep.start(*SWEEP, "--config.num_t=2000", "--workdir=gs://mine/two", place=place)
    first.until(lambda: len(names("two/partial")) > 1)
    assert f"is being written by process {first.pid} on this machine" in sweep(*SWEEP, "--workdir=gs://mine/two", place=place).error
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait().status == 75
    assert ".flowjax.lock" not in names("two")


@pytest.mark.slow
def test_what_is_wrong_with_a_bucket_is_said_in_one_line_within_a_minute(place: Place, tmp_path: pathlib.Path) -> None:
    inspect, began = Binary("inspect_data", tmp_path), time.monotonic()
    assert "there is no bucket gs://other" in inspect("--workdir=gs://other/run", place=place).error
    assert "expected gs://BUCKET/FOLDER" in inspect("--workdir=gs://mine", place=place).error
    assert "s3://mine/run: expected a folder" in inspect("--workdir=s3://mine/run", place=place).error
    without = {
        "STORAGE_EMULATOR_HOST": "",
        "GOOGLE_APPLICATION_CREDENTIALS": "",
        "CLOUDSDK_CONFIG": str(tmp_path),
        "GCE_METADATA_IP": "127.0.0.1:1",
    }
    nobody = Place(environment=tuple(without.items()))
    assert "there are no credentials" in inspect("--workdir=gs://mine/run", place=nobody).error
    assert time.monotonic() - began < 60 * max(1.0, os.getloadavg()[0] / 2)  # of a quiet machine
    assert names("run") == set()
