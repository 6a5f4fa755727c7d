"""`python -m experiments.loss_by_timestep` as its user runs it."""

import pathlib
from collections.abc import Callable

import pytest

from tests.binary import Binary
from tests.experiments.trained_models import summary, table


@pytest.mark.slow
def test_errors_of_models_are_compared_on_each_side_of_the_turning_point(
    runs: pathlib.Path, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path
) -> None:
    given = (f"--config.checkpoints=('{runs / 'small'}@50', '{runs / 'large'}')", "--config.num_queries=16", "--config.num_t=4")
    done = binary_of("loss_by_timestep")(*given, f"--workdir={tmp_path}")
    assert done.status == 0, done.output
    found = summary(tmp_path)
    assert [model["steps"] for model in found["models"]] == [50, 200]  # as told, and as the file says
    assert found["gains"] == []  # both differ in size and in training: neither is bought alone
    assert 0.5 < found["share_of_target_gap_in_navigation"] <= 1
    assert len(table(tmp_path / "loss_by_timestep.csv")) == 2 * 2 * 4
    given = (f"--config.checkpoints=('{runs / 'small'}@50', '{runs / 'large'}@50')", *given[1:])
    done = binary_of("loss_by_timestep")(*given, f"--workdir={tmp_path}", "--resume")
    assert done.status == 0, done.output
    gains = table(tmp_path / "gains.csv")
    assert [(row["bought by"], row["samples"], row["target"], row["stage"]) for row in gains] == [
        ("capacity", samples, target, stage)
        for samples in ("training", "held-out")
        for target in ("oracle", "cfm")
        for stage in ("navigation", "refinement")
        if (samples, target, stage) != ("held-out", "oracle", "refinement")  # where the oracle knows training samples alone
    ]
    for row in gains:
        assert float(row["low"]) <= float(row["reduction"]) <= float(row["high"])


def test_a_model_that_is_not_the_strongest_is_refused_before_any_is_trained(
    runs: pathlib.Path, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path
) -> None:
    given = (f"--config.model.path={runs / 'large'}", f"--workdir={tmp_path / 'run'}")
    told = binary_of("loss_by_timestep")(*given, "--config.sizes=('Pi/2', 'Na/2')").error
    assert "was trained with model.size = Mi/2; expected the strongest of these models, Na/2" in told
    assert "give it alone" in binary_of("loss_by_timestep")(*given, "--config.checkpoints=('a', 'b')").error
    assert not (tmp_path / "run" / "models").exists()
