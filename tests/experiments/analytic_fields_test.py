"""`python -m experiments.analytic_fields` as its user runs it."""

import pathlib
from collections.abc import Callable

import pytest

from tests.binary import Binary
from tests.experiments.trained_models import summary, table

SMALL = ("--config.num_queries=8", "--config.num_t=4", "--config.fields=('gaussian', 'patch=3')", "--config.show=1")


@pytest.mark.slow
def test_fields_are_set_beside_a_model(run_folder: pathlib.Path, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path) -> None:
    binary, given = binary_of("analytic_fields"), (f"--config.model.path={run_folder}", *SMALL, f"--workdir={tmp_path / 'run'}")
    done = binary(*given)
    assert done.status == 0, done.output
    found = summary(tmp_path / "run")
    assert found["fields"] == ["oracle", "gaussian", "patch=3"]
    assert found["stage_edges"][0] < found["turning_point"]["measured"] < found["stage_edges"][1]
    assert set(found["explains_most"]["held-out"]) <= {"navigation", "between", "refinement"}
    rows = table(tmp_path / "run" / "analytic_fields.csv")
    assert len(rows) == 2 * 3 * 4
    for row in rows:
        assert float(row["low"]) <= float(row["R²"]) <= float(row["high"]) < 1  # an untrained model is none of them
    assert {entry.name for entry in (tmp_path / "run" / "figures").glob("*.png")} == {"explained.png", "predictions_0.png"}
    assert len(list((tmp_path / "run" / "distances").glob("*.npz"))) == 2  # kept for a run that goes on


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("--config.fields=('wiener',)", "fields: 'wiener': expected gaussian, smoothed=NOISE"),
        ("--config.fields=('patch',)", "fields: 'patch': expected gaussian"),
        ("--config.fields=('oracle',)", "expected at least one beside the oracle"),
        ("--config.margin=1.5", "margin = 1.5"),
        ("--config.num_t=2", "num_t = 2"),
    ],
)
def test_wrong_settings_end_in_one_line(argument: str, told: str, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path) -> None:
    assert told in binary_of("analytic_fields")(argument, f"--workdir={tmp_path / 'run'}").error
