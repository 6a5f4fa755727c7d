"""Reports as a browser shows them: on a telephone, in half a window and in a whole one no text lies outside the page or is cut off."""

import pathlib
from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from flowjax.reporting import page as pages
from tests.binary import Binary
from tests.browser import outside
from tests.experiments.trained_models import SCORED, leave, untrained

WIDTHS = (390, 800, 1200)


SENTENCE = "what stands behind it, in a sentence that is longer than most: it goes on until nobody reads it any more, and then some"
CELLS = ("a", 0.123456789, 123456789, "0.512 to 0.731", "of 50 uniform steps, before", SENTENCE, "f" * 64, None, "", True, -1e-30)


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_tables_of_every_size_stay_within_the_page(browser: Page, tmp_path: pathlib.Path, width: int) -> None:
    names = ("what", "predicted_over_measured", "steps before the turn", "n", "evidence", "large/large, high")
    tables = [[{f"{names[j % 6]}{j}": CELLS[(i + j) % len(CELLS)] for j in range(columns)} for i in range(5)] for columns in range(1, 17)]
    sections = [pages.Section("A table", "Rows.", table=table) for table in tables]
    command = "python -m experiments.oracle_sweep --config=experiments/configs/oracle_sweep.py:digits --workdir=" + "x/" * 200
    pages.write_report(
        tmp_path / "report.html",
        "A title",
        "What is found",
        [*sections, pages.Section("A command", "", command=command)],
        {"command": command, "data": {"sha256": "e" * 64}},
        contents=True,
    )
    assert outside(browser, tmp_path / "report.html", width) == []


SMALL_MODEL = "--config.model.path={models}/small"
RUNS = {
    "advise": ("--config.num_queries=32",),
    "oracle_sweep": ("--config=experiments/configs/oracle_sweep.py:digits_by_class", "--config.num_t=8", "--config.num_queries=64"),
    "inspect_data": (),
    "encode_latents": ("--config.out={models}/latents", "--config.shard_size=500"),
    "bench_data": ("--config.seconds=0.1",),
    "sample": (SMALL_MODEL, *SCORED[:2], "--config.num_steps=2"),
    "one_step": (SMALL_MODEL, "--config.num_samples=8", "--config.num_steps=4", "--config.show=1"),
    "timestep_shift": (SMALL_MODEL, *SCORED, "--config.shifts=(0.1, 1.0)", "--config.num_steps=(2,)"),
    "loss_by_timestep": ("--config.checkpoints=('{models}/small@50', '{models}/large@50')", "--config.num_queries=16", "--config.num_t=4"),
}
"""Each kind of table and figure is in one of these; what the others write has the same parts."""
IN_CI = ("inspect_data",)
"""The others by hand: `make test-long`."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("train")
    leave(folder / "small", untrained(1), step=100)
    leave(folder / "large", untrained(2), step=200)
    return folder


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in IN_CI else pytest.mark.long) for name in RUNS])
def test_no_text_of_a_report_lies_outside_the_page(
    name: str, models: pathlib.Path, binary_of: Callable[[str], Binary], browser: Page, tmp_path: pathlib.Path
) -> None:
    given = [argument.format(models=models) for argument in RUNS[name]]
    done = binary_of(name)(*given, f"--workdir={tmp_path / 'run'}")
    assert done.status == 0, done.output
    assert {width: outside(browser, tmp_path / "run" / "report.html", width) for width in WIDTHS} == {width: [] for width in WIDTHS}
