"""`python -m experiments.one_step` as its user runs it."""

import pathlib
from collections.abc import Callable

import pytest

from flowjax.models.trained import FILE, load_trained, save_trained
from tests.binary import Binary
from tests.experiments.trained_models import summary


@pytest.mark.slow
def test_a_weak_model_is_called_that(run_folder: pathlib.Path, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path) -> None:
    flow = load_trained(run_folder)
    save_trained(flow.model, tmp_path / FILE, {**flow.about, "frechet": {"ratio": 9.0}})
    small = ("--config.num_samples=20", "--config.num_steps=10", "--config.show=1", f"--config.model.path={tmp_path}")
    done = binary_of("one_step")(*small, f"--workdir={tmp_path / 'run'}")
    assert done.status == 0, done.output
    found = summary(tmp_path / "run")
    assert found["verdict"]["outcome"] == "model too weak"
    oracle = found["settled"]["along the oracle"]
    assert oracle["layout"]["t"] <= oracle["details"]["t"] < 1
    assert found["first_prediction_from_class_mean"]["along the oracle"] < 1e-6
