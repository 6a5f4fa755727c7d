"""`python -m experiments.timestep_shift`: killed, it goes on with the next cell."""

import pathlib
from collections.abc import Callable

import pytest

from tests.binary import Binary
from tests.experiments.trained_models import SCORED, summary, table


@pytest.mark.long
def test_a_sweep_that_is_killed_goes_on_with_the_next_cell(
    runs: pathlib.Path, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path
) -> None:
    cells, workdir = tmp_path / "run" / "cells", f"--workdir={tmp_path / 'run'}"
    given = (f"--config.model.path={runs / 'small'}", *SCORED, "--config.shifts=(0.1, 1.0)", "--config.num_steps=(2,)")
    stopped = binary_of("timestep_shift").start(*given, workdir).kill_when(lambda: len(list(cells.glob("*.json"))) >= 3)
    assert stopped.status == -9
    left = {file: file.stat().st_mtime_ns for file in cells.glob("*.json")}
    done = binary_of("timestep_shift")(*given, "--resume", workdir)
    assert done.status == 0, done.output
    kept = {file: file.stat().st_mtime_ns for file in cells.glob("*.json")}
    assert len(kept) == 2 + 3 * 3  # whose cells they are; the turning point; each of three seeds at 0.1, 1 and what is advised
    assert left.items() <= kept.items()
    found = summary(tmp_path / "run")
    assert found["verdict"]["outcome"] in ("reproduced", "partly", "not on this data")
    assert found["by_steps"]["2"]["advised_regret"]["low"] <= found["by_steps"]["2"]["advised_regret"]["high"]
    rows = table(tmp_path / "run" / "shift.csv")
    assert [row[""] for row in rows] == ["", "advised", ""]
    assert [row["paper, gFID"] for row in rows] == ["19.91", "", "12.99"]
    assert [float(row["steps at t <= 0.2"]) for row in rows[::2]] == [0.72, 0.22]
    assert (tmp_path / "run" / "shift.md").read_text().count("\n") == len(rows) + 2
