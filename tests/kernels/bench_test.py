"""`python -m kernels.bench` on tiny data: what it writes is right. Nothing here looks at a time."""

import csv
import subprocess
import sys

import numpy as np
import pytest

from kernels.benchmark import runner as bench
from kernels.benchmark.competitors import DEFAULT, PEERS, numpy_dense, ours, reference_velocity, sgemms
from tests import float64_oracle as exact


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "kernels.bench", *arguments], capture_output=True, text=True)


def test_a_run_writes_a_row_for_each_and_a_figure(tmp_path):
    """Default and NumPy, two t, a sweep of three, as a user would; on one core of those there are."""
    settings = "--n=200 --d=8 --t=0.2,0.7 --queries=4 --repeats=2 --sweep=3 --threads=1 --only=default,NumPy"
    done = run(*settings.split(), f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "bench.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == bench.COLUMNS
    assert [row["implementation"] for row in rows] == [DEFAULT, "NumPy", "sgemm alone"] * 5
    assert [row["part"] for row in rows] == ["t"] * 6 + ["sweep"] * 9
    assert all(float(row["velocity_error"]) < 1e-4 for row in rows[:6] if row["implementation"] != "sgemm alone")
    assert (tmp_path / "bench.png").stat().st_size > 5000
    assert (tmp_path / "bench.svg").exists()
    assert "A sweep of 3 t" in done.stdout
    assert "1 cores" in done.stdout


def test_the_reference_is_the_oracle():
    """Float64 against the independent one, off-centre data included."""
    data = bench.synthetic(300, 12) + np.float32(3)
    for t in (0.1, 0.5, 0.97):
        x, _ = bench.queries(data, t, 5)
        true = exact.oracle(data, x, t).velocity
        assert bench._error(reference_velocity(data, x, t), true) < 1e-8
        assert bench._error(numpy_dense(data)(x, float(np.float32(t))), true) < 1e-3


def test_every_implementation_here_is_compared_and_right():
    data = bench.synthetic(300, 12)
    contest = bench.PairedScores(data, ours(), pytest.fail)
    rows = contest.at(0.6, 5, 1, part="t")
    assert [row["implementation"] for row in rows] == [*ours(), "sgemm alone"]
    assert all(row["velocity_error"] < 1e-5 for row in rows[:-1])


def test_what_is_not_installed_is_left_out_with_a_note(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "tokamax", None)
    monkeypatch.setitem(sys.modules, "pykeops.numpy", None)
    notes: list[str] = []
    data = bench.synthetic(50, 4)
    contest = bench.PairedScores(data, PEERS, notes.append)
    assert list(contest.calls) == ["NumPy"]
    assert [note.split(" is left out")[0] for note in notes] == [name for name in PEERS if name != "NumPy"]
    assert list(sgemms(data, data[:2])) == ["NumPy"]


def test_an_exponent_is_that_of_a_power_law():
    rows = [{"part": "growth with N", "n": n, "d": 7, "t": 0.1, "implementation": "a", "seconds": 3e-9 * n**1.5} for n in (10, 100, 1000)]
    assert bench.exponents(rows)[0] == ("growth with N", 0.1, "a", pytest.approx(1.5))


def test_data_come_from_files(tmp_path):
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.save(tmp_path / "images.npy", images)
    np.testing.assert_array_equal(bench.load(str(tmp_path / "images.npy"), 0, 0), images.reshape(2, 12))
    header = b"\x00\x00\x08\x03" + b"".join(n.to_bytes(4, "big") for n in images.shape)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header + images.tobytes())
    np.testing.assert_allclose(bench.load(str(tmp_path / "train-images-idx3-ubyte"), 0, 0), images.reshape(2, 12) / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--t=0.5,1", "t=0.5,1: expected times between 0 and 1, neither included"),
        ("--data=nowhere.npy", "data=nowhere.npy: nowhere.npy is not there; give synthetic, fashion_mnist or a file"),
    ],
)
def test_wrong_flags_end_in_one_line(flag, message, tmp_path):
    done = run(flag, f"--workdir={tmp_path}")
    assert (done.returncode, done.stderr.strip()) == (2, f"kernels.bench: {message}")
