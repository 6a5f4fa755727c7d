"""`python -m kernels.bench` on tiny data: what it writes is right. Nothing here looks at a time."""

import csv
import json
import os
import pathlib
import subprocess
import sys

import pytest

from kernels.benchmark.competitors import DEFAULT
from kernels.benchmark.runner import COLUMNS
from tests.binary import Binary


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Binary:
    return Binary("kernels.bench", tmp_path_factory.mktemp("binary"))


@pytest.mark.long
def test_a_run_writes_a_row_for_each_and_a_figure(tmp_path):
    """Default and NumPy, two t, a sweep of three, as a user would; on one core of those there are."""
    settings = "--n=200 --d=8 --t=0.2,0.7 --queries=4 --repeats=2 --sweep=3 --threads=1 --only=default,NumPy"
    command = [sys.executable, "-m", "kernels.bench", *settings.split(), f"--workdir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "bench.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["implementation"] for row in rows] == [DEFAULT, "NumPy", "sgemm alone"] * 5
    assert [row["part"] for row in rows] == ["t"] * 6 + ["sweep"] * 9
    assert all(float(row["velocity_error"]) < 1e-4 for row in rows[:6] if row["implementation"] != "sgemm alone")
    assert (tmp_path / "bench.png").stat().st_size > 5000
    assert (tmp_path / "bench.svg").exists()
    assert "A sweep of 3 t" in done.stdout
    assert "1 cores" in done.stdout


@pytest.mark.long
def test_first_calls_are_timed_with_and_without_an_index(bench, tmp_path):
    """Of data that are large enough to have one."""
    done = bench("--calls=1,3", "--repeats=1", "--n=70000", "--d=64", "--queries=4", f"--workdir={tmp_path}")
    assert done.status == 0, done.output
    rows = json.loads((tmp_path / "calls.json").read_text())["rows"]
    assert [row["calls"] for row in rows] == [1, 3]
    for row in rows:
        assert row["at once"] > row["never"] > 0  # three calls do not pay for an index
        assert row["ratio"] == pytest.approx(row["default"] / row["never"])


@pytest.mark.slow
def test_workloads_are_written_as_documents_read_them(bench, tmp_path):
    """A row for each workload and time, exact, and the table of documents from it."""
    done = bench("--workloads=small", "--repeats=1", f"--workdir={tmp_path}")
    assert done.status == 0, done.output
    written = json.loads((tmp_path / "workloads.json").read_text())
    assert list(written["rows"]) == ["toy, t = 0.5"]
    for row in written["rows"].values():
        assert row["velocity_error"] <= 1e-5
        assert row["ratio"] == pytest.approx(row["pytorch_ms"] / row["ours_ms"])
    assert written["cores"] == len(os.sched_getaffinity(0))
    (tmp_path / "docs" / "figures").mkdir(parents=True)
    (tmp_path / "workloads.json").rename(tmp_path / "docs" / "figures" / "workloads.json")
    (tmp_path / "README.md").write_text("<!-- figures: workloads.json table:toy, --><!-- end -->")
    script = pathlib.Path(__file__).parents[2] / "docs" / "fill_numbers.py"
    subprocess.run([sys.executable, str(script), f"--root={tmp_path}"], check=True)
    table = (tmp_path / "README.md").read_text().splitlines()
    assert table[1] == "| t | flowjax, ms | PyTorch, ms | x PyTorch | error |"
    assert table[3].startswith("| 0.5 | ")


@pytest.mark.long
def test_whole_paths_are_written(bench, tmp_path):
    """Each way is exact, and its ratios are those of its times."""
    done = bench("--paths=3", "--queries=16", "--n=300", "--d=8", "--repeats=1", f"--workdir={tmp_path}")
    assert done.status == 0, done.output
    rows = json.loads((tmp_path / "paths.json").read_text())["rows"]
    assert list(rows) == ["flowjax, without gap", "flowjax, with gap", "PyTorch, logits", "PyTorch, pass"]
    for row in rows.values():
        assert row["error"] <= 1e-5
        assert row["of_pass"] == pytest.approx(rows["PyTorch, pass"]["seconds"] / row["seconds"])


@pytest.mark.long
def test_implementations_for_gpus_are_written(bench, tmp_path):
    """On a CPU `pallas_gpu` is left out, and said to be."""
    done = bench("--gpu=small", f"--workdir={tmp_path}")
    assert done.status == 0, done.output
    assert "pallas_gpu is left out: it does not run on cpu" in done.output
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert all(row["velocity_error"] <= 1e-5 for row in rows.values() if row["way"].startswith("streaming"))


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--t=0.5,1", "t=0.5,1: expected times between 0 and 1, neither included"),
        ("--paths=-3", "paths=-3: expected at least 2"),
        ("--gpu=all", "gpu=all: JAX sees no GPU here, but cpu; --gpu=small tries the command on it"),
        ("--data=nowhere.npy", "data=nowhere.npy: nowhere.npy is not there; give synthetic, fashion_mnist or a file"),
    ],
)
def test_wrong_flags_end_in_one_line(bench, flag, message, tmp_path):
    done = bench(flag, f"--workdir={tmp_path}")
    assert (done.status, done.output.strip()) == (2, f"kernels.bench: {message}")
