"""`python -m experiments.hybrid_sampling` as its user runs it."""

import csv
import pathlib
from collections.abc import Callable

import pytest

from tests.binary import Binary
from tests.experiments.trained_models import summary


@pytest.mark.slow
def test_hybrid_samples_turn_into_copies_and_the_verdict_says_what_that_means(
    run_folder: pathlib.Path, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path
) -> None:
    small = ("--config.num_samples=40", "--config.num_steps=20", "--config.num_switches=5", "--config.show=2")
    done = binary_of("hybrid_sampling")(f"--config.model.path={run_folder}", *small, f"--workdir={tmp_path}")
    assert done.status == 0, done.output
    found = summary(tmp_path)
    assert found["copies"]["oracle"]["value"] == 1.0
    assert found["copies"]["model"]["value"] < 0.2  # an untrained model makes nothing that looks like anything
    assert 0 < found["target_turning_point"]["measured"] < found["behavioural_turning_point"]["measured"] <= 1
    assert found["verdict"]["outcome"] == "reproduced"
    rows = list(csv.DictReader((tmp_path / "hybrid.csv").read_text().splitlines()))
    assert [float(row["t_switch"]) for row in rows] == [0, 0.25, 0.5, 0.75, 1]
    assert {entry.name for entry in (tmp_path / "figures").iterdir()} == {
        f"{name}.{suffix}" for name in ("copies", "distances", "samples") for suffix in ("png", "svg")
    }
