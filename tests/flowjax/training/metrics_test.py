"""The metrics of a run: its file when it goes on, and its line of progress."""

import io
import json
import pathlib
import re
import time

import pytest

from flowjax.training.metrics import MetricWriter, ProgressLine, read_metrics


def test_metrics_of_a_run_that_was_cut_off_are_replaced_from_where_it_goes_on(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "metrics.jsonl"
    first = MetricWriter(file, tmp_path / "board")
    for step in (5, 10, 15):
        first.write(step, {"loss": 1.0 / step, "bad": float("nan")})
    first.close()
    with open(file, "a") as broken:
        broken.write('{"step": 20, "lo')
    second = MetricWriter(file, tmp_path / "board", first_step=11)
    second.write(15, {"loss": 7.0})
    second.close()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert (
        lines
        == read_metrics(file)
        == [{"step": 5, "loss": 0.2, "bad": None}, {"step": 10, "loss": 0.1, "bad": None}, {"step": 15, "loss": 7.0}]
    )


def test_the_progress_line_tells_step_loss_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    line = ProgressLine(1000, stream)
    line.show(10, 0.5)  # compiling was part of these steps
    later = time.perf_counter() + 100
    monkeypatch.setattr("time.perf_counter", lambda: later)
    line.show(210, 0.375)
    line.show(1000, 0.25)
    first, second, last = stream.getvalue().splitlines()
    assert first == "step 10/1,000  loss 0.5"
    assert re.fullmatch(r"step 210/1,000  loss 0.375  (2|1.99|2.01) steps/s  6 min 3[4-6] s left", second)
    assert last.startswith("step 1,000/1,000  loss 0.25")
    assert "left" not in last
