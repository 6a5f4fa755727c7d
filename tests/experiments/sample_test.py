"""`python -m experiments.sample` as its user runs it."""

import pathlib
from collections.abc import Callable

import numpy as np
import pytest

from tests.binary import Binary
from tests.experiments.trained_models import summary


@pytest.mark.slow
def test_samples_are_written_as_evaluation_suites_read_them(
    run_folder: pathlib.Path, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path
) -> None:
    sample = binary_of("sample")
    done = sample(
        f"--config.model.path={run_folder}",
        "--config.num_samples=30",
        "--config.num_steps=4",
        "--config.batch_size=8",
        "--config.guidance.scale=3.0",
        "--config.guidance.interval=(0.3, 3.0)",
        "--config.guidance.coordinate=sigma",
        "--config.labels=2,7",
        "--config.solver=heun",
        "--config.quality.features=classifier",
        "--config.quality.classifier_steps=80",
        f"--workdir={tmp_path / 'run'}",
    )
    assert done.status == 0, done.output
    held = np.load(tmp_path / "run" / "samples.npz")
    assert (held["arr_0"].shape, held["arr_0"].dtype) == ((30, 8, 8, 3), np.uint8)
    np.testing.assert_array_equal(held["labels"], np.resize([2, 7], 30))
    assert {"config.json", "summary.json", "samples.csv", "report.html"} <= {entry.name for entry in (tmp_path / "run").iterdir()}
    quality = summary(tmp_path / "run")["quality"]
    assert quality["features"] == "classifier"
    assert quality["frechet"] > 0
    assert quality["recall"]["high"] < 0.9  # two classes of ten, of an untrained model


@pytest.mark.long
def test_a_weaker_model_guides(runs: pathlib.Path, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path) -> None:
    steps = ("--config.num_samples=10", "--config.num_steps=3", "--config.batch_size=10", "--config.guidance.scale=3.0")
    found = {}
    for guide in ("large", "small"):
        asked = (f"--config.model.path={runs / 'large'}", f"--config.guide.path={runs / guide}", f"--workdir={tmp_path / guide}")
        done = binary_of("sample")(*steps, *asked)
        assert done.status == 0, done.output
        found[guide] = np.load(tmp_path / guide / "samples.npz")["arr_0"].astype(int)
    plain = (f"--config.model.path={runs / 'large'}", "--config.guidance.scale=1.0", f"--workdir={tmp_path / 'plain'}")
    assert binary_of("sample")(*steps[:3], *plain).status == 0
    unguided = np.load(tmp_path / "plain" / "samples.npz")["arr_0"].astype(int)
    assert abs(found["large"] - unguided).max() <= 1  # u + w (u - u) = u
    assert abs(found["small"] - unguided).max() > 10
