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


@pytest.mark.long
def test_sampling_resumed_from_held_out_samples_is_faithful_where_little_noise_is_left(
    run_folder: pathlib.Path, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path
) -> None:
    binary = binary_of("hybrid_sampling")
    small = ("--config.num_samples=30", "--config.num_steps=10", "--config.num_switches=3", "--config.show=2", "--config.batch_size=30")
    done = binary(f"--config.model.path={run_folder}", "--config.start=heldout", *small, f"--workdir={tmp_path / 'run'}")
    assert done.status == 0, done.output
    found = summary(tmp_path / "run")
    assert found["num_samples"] == {"held-out": 30, "training": 30}
    assert found["n"] + found["n_heldout"] == 1797
    rows = list(csv.DictReader((tmp_path / "run" / "resumed.csv").read_text().splitlines()))
    assert [(row["originals"], float(row["t_switch"])) for row in rows] == [(k, t) for k in ("held-out", "training") for t in (0, 0.5, 1)]
    for kind in ("held-out", "training"):
        early, _, late = (float(row["nearest to the original"]) for row in rows if row["originals"] == kind)
        assert early < 0.2  # an untrained model, from noise
        assert late == 1  # nothing is left to do
    assert {entry.name for entry in (tmp_path / "run" / "figures").glob("*.png")} == {"faithfulness.png", "samples.png"}
    assert "start = 'noise': expected one of prior, heldout" in binary("--config.start=noise", f"--workdir={tmp_path / 'a'}").error
    assert "is read only with --config.start=heldout" in binary("--config.heldout=x.npy", f"--workdir={tmp_path / 'b'}").error
