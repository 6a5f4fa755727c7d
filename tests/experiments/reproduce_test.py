"""`python -m experiments.reproduce` as its user runs it, and the report as a browser shows it."""

import csv
import json
import pathlib
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, sync_playwright

from experiments.common.paper_findings import FINDINGS
from experiments.configs import reproduce as presets
from experiments.reproduce import _asked, _command
from tests.binary import BINARIES, Binary

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Binary:
    return Binary("reproduce", tmp_path_factory.mktemp("binary"))


ONLY = "--config.only=('sweep',)"


@pytest.fixture(scope="module")
def reproduced(binary: Binary, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A report of the first finding."""
    workdir = tmp_path_factory.mktemp("reproduce") / "run"
    done = binary(ONLY, f"--workdir={workdir}")
    assert done.status == 0, done.output
    return workdir


@pytest.mark.slow
def test_each_experiment_is_a_run_of_its_own_and_the_report_has_its_command(reproduced: pathlib.Path) -> None:
    with open(reproduced / "findings.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["experiment"] for row in rows] == ["sweep"]
    own = json.loads((reproduced / "experiments" / "sweep" / "summary.json").read_text())
    assert (rows[0]["here"], rows[0]["verdict"]) == (own["takeaway"], own["verdict"]["outcome"])
    page = (reproduced / "report.html").read_text()
    assert "python -m experiments.oracle_sweep --config=experiments/configs/oracle_sweep.py:digits --workdir=" in page
    assert FINDINGS[0].paper in page


@pytest.mark.slow
def test_what_is_done_is_not_done_again_and_what_fails_is_named(binary: Binary, reproduced: pathlib.Path) -> None:
    done = reproduced / "experiments" / "sweep" / "summary.json"
    before = done.stat().st_mtime_ns
    failed = binary("--config.only=('sweep', 'one_step')", "--config.model=/nowhere", f"--workdir={reproduced}", "--resume")
    assert failed.status == 2
    assert "/nowhere: no such file" in failed.output
    assert failed.output.strip().splitlines()[-1].startswith("reproduce: error: one_step failed")
    assert done.stat().st_mtime_ns == before
    assert (reproduced / "report.html").exists()


def test_what_cannot_be_asked_for_ends_in_one_line(binary: Binary, tmp_path: pathlib.Path) -> None:
    assert "there is no such experiment" in binary("--config.only=('sweeep',)", f"--workdir={tmp_path / 'a'}").error
    assert "expected one of digits" in binary("--config.preset=mnist", f"--workdir={tmp_path / 'b'}").error


def test_a_model_is_trained_once_and_only_where_one_is_needed(tmp_path: pathlib.Path) -> None:
    def names(preset: str = "digits", **settings: object) -> list[str]:
        config = presets.get_config(preset)
        config.update(settings)
        return [experiment.name for experiment in _asked(config)]

    every = [experiment for finding in FINDINGS for experiment in finding.experiments]
    assert {experiment.binary for experiment in every} <= set(BINARIES)
    assert len({experiment.name for experiment in every}) == len(every)
    assert names(only=("one_step",)) == ["model", "one_step"]
    assert names(only=("one_step",), model="runs/train") == ["one_step"]
    assert names(only=("sweep",)) == ["sweep"]
    assert "sweep_of_1000" in names("fashion_mnist")
    assert "sweep_of_1000" not in names()
    config = presets.get_config("imagenet_vavae")
    config.update(model="XL.pt", data="latents")
    typed = {each.name: _command(each, config, pathlib.Path("runs")) for each in _asked(config)}
    assert [name for name, words in typed.items() if "--config.data.path=latents" not in words] == ["gaussians"]
    digits = presets.get_config()
    swap = next(each for each in _asked(digits) if each.name == "capacity_swap")
    assert not [word for word in _command(swap, digits, tmp_path) if word.startswith("--config.small.path=")]
    trained = tmp_path / "loss_by_timestep" / "models" / "Na-2-1200-0a46b2b1"
    trained.mkdir(parents=True)
    (trained / "model.safetensors").touch()
    assert f"--config.small.path={trained}" in _command(swap, digits, tmp_path)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A page of a real browser, on which whatever it complains of is an error."""
    assert CHROMIUM, "no Chromium here: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_the_report_opens_in_a_browser_at_every_link_and_figure(reproduced: pathlib.Path, page: Page, width: int) -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.set_viewport_size({"width": width, "height": 800})
    page.goto((reproduced / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # nothing is wider than a phone
    links = page.locator("nav a")
    assert links.all_inner_texts() == ["In short", FINDINGS[0].heading]
    for link in links.all():
        link.click()
        heading = page.get_by_role("heading", name=link.inner_text(), exact=True)
        assert 0 <= heading.bounding_box()["y"] < 800
    assert page.locator("figure").count() >= 1
    for figure in page.locator("figure").all():
        assert figure.locator("img").evaluate("image => image.complete && image.naturalWidth > 300")
        figure.locator("a.open").click()
        assert figure.bounding_box()["width"] == width
        figure.get_by_text("Close").click()
        assert figure.bounding_box()["width"] < width
    assert complaints == []
