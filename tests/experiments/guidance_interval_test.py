"""`python -m experiments.guidance_interval` as its user runs it."""

import pathlib
from collections.abc import Callable

import pytest

from experiments import guidance_interval
from experiments.configs import guidance_interval as presets
from tests.binary import Binary
from tests.experiments.in_process import summary_of
from tests.experiments.trained_models import SCORED, summary, table


@pytest.mark.slow
def test_guidance_is_mapped_over_where_it_begins_and_ends(
    runs: pathlib.Path, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path
) -> None:
    given = ("--config.edges=(0.0, 0.5, 1.0)", "--config.intervals=((0.0, 1.0), (0.1, 0.6))", "--config.num_steps=2")
    done = binary_of("guidance_interval")(f"--config.model.path={runs / 'small'}", *SCORED, *given, f"--workdir={tmp_path}")
    assert done.status == 0, done.output
    assert [(row["t_low"], row["t_high"]) for row in table(tmp_path / "map.csv")] == [("0.0", "0.5"), ("0.0", "1.0"), ("0.5", "1.0")]
    rows = table(tmp_path / "guidance.csv")
    assert [(row["interval"], row["paper, gFID"]) for row in rows[:3]] == [("none", "12.99"), ("[0, 1]", "10.79"), ("[0.1, 0.6]", "2.8")]
    found = summary(tmp_path)
    assert set(found["own"]) == {"navigation alone", "refinement alone", "advised"}
    assert found["own"]["advised"]["interval"][0] == found["turning_point"]["measured"]


@pytest.mark.long
def test_a_weaker_model_guides_in_place_of_classes(runs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    small = {
        "num_samples": 32,
        "batch_size": 32,
        "num_steps": 2,
        "quality.classifier_steps": 2,
        "edges": (0.0, 0.5, 1.0),
        "intervals": ((0.0, 1.0),),
    }
    given = {"model.path": str(runs / "large"), "guide.path": str(runs / "small")}
    found = summary_of(guidance_interval, presets.get_config(), tmp_path / "run", **small, **given)
    assert str(runs / "small") in found["guide"]
    assert str(runs / "large") in found["model"]["source"]
    assert found["own"]
    with pytest.raises(ValueError, match=r"expected .*\(8, 8, 1\)|\(4, 4, 1\)"):
        summary_of(guidance_interval, presets.get_config(), tmp_path / "wrong", **small, **given | {"guide.path": str(runs / "other")})
