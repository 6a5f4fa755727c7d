"""`python -m experiments.advise` as its user runs it."""

import json
import pathlib

import pytest

from tests.binary import Binary


@pytest.mark.slow
def test_advice_comes_from_the_data_alone(tmp_path: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    advise = Binary("advise", tmp_path_factory.mktemp("binary"))
    done = advise(f"--workdir={tmp_path / 'run'}", "--config.num_queries=64")
    assert done.status == 0, done.output
    found = json.loads((tmp_path / "run" / "summary.json").read_text())
    turn = found["turning_point"]
    assert turn["predicted"] == pytest.approx(turn["measured"], rel=0.08)
    assert found["advice"]["guidance_interval"]["value"][0] == turn["measured"]
    assert "timestep shift s" in done.output
    assert found["frameworks"]["ddt"]["shift"] == pytest.approx(1 / found["advice"]["shift"]["value"])
    assert found["frameworks"]["ddt"]["shift_line"] in done.output
    assert {row["rule"] for row in found["rules_of_thumb"]} >= {"this advice", "RAE", "Flux"}
    assert "more of the steps near noise" in (tmp_path / "run" / "report.html").read_text()
    wrong = advise(f"--workdir={tmp_path / 'other'}", "--config.for=sd4")
    assert "for = 'sd4': expected diffusers" in wrong.error
