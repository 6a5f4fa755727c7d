"""Every implementation that the benchmark compares is right, and one that is not installed is left out."""

import sys

import pytest

from kernels.benchmark import runner as bench
from kernels.benchmark.competitors import COMPETITORS, ours, sgemms


@pytest.mark.long
def test_every_implementation_here_is_compared_and_right():
    data = bench.synthetic(300, 12)
    comparison = bench.Comparison(data, ours(), pytest.fail)
    rows = comparison.at(0.6, 5, 1, part="t")
    assert [row["implementation"] for row in rows] == [*ours(), "sgemm alone"]
    assert all(row["velocity_error"] < 1e-5 for row in rows[:-1])


def test_what_is_not_installed_is_left_out_with_a_note(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "tokamax", None)
    monkeypatch.setitem(sys.modules, "pykeops.numpy", None)
    notes: list[str] = []
    data = bench.synthetic(50, 4)
    comparison = bench.Comparison(data, COMPETITORS, notes.append)
    assert list(comparison.calls) == ["NumPy"]
    assert [note.split(" is left out")[0] for note in notes] == [name for name in COMPETITORS if name != "NumPy"]
    assert list(sgemms(data, data[:2])) == ["NumPy"]
