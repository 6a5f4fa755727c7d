"""The page of `python -m experiments.explore` in a browser: every slider by keyboard, what it shows then, and what it never does."""

import itertools
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page

from experiments import explore
from experiments.configs import explore as presets
from flowjax.conventions import CONVENTIONS, told
from flowjax.schedules import shift, uniform_timesteps
from tests.browser import outside
from tests.experiments.in_process import summary_of

pytestmark = pytest.mark.slow

NAMES = ("<script>alert(1)<", "<img src=x onerror=alert(1)>")
"""Two folders of images, whose names are those of their classes."""
SMALL = {"num_shown": 3, "num_t": 9, "num_queries": 32, "num_steps": 20}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    images, folder = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("explored")
    rng = np.random.default_rng(0)
    for name in NAMES:
        (images / name).mkdir()
        for i in range(20):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(images / name / f"{i}.png")
    summary_of(explore, presets.get_config(), folder / "run", **{"data.path": str(images), "data.cache_dir": "none", **SMALL})
    return folder / "run"


@pytest.fixture
def page(run: pathlib.Path, browser: Page) -> Iterator[Page]:
    """The page, opened; it may neither say anything on the console, nor open a dialog, nor ask for anything."""
    heard: list[str] = []
    listeners = {
        "console": lambda message: heard.append(message.text),
        "pageerror": lambda error: heard.append(str(error)),
        "dialog": lambda dialog: (heard.append(dialog.message), dialog.dismiss()),
        "request": lambda request: request.url.startswith(("file:", "data:")) or heard.append(request.url),
    }
    for event, listener in listeners.items():
        browser.on(event, listener)  # type: ignore[call-overload]
    browser.set_viewport_size({"width": 1200, "height": 900})
    browser.goto((run / "explore.html").as_uri())
    browser.wait_for_selector("body[data-ready]")
    yield browser
    for event, listener in listeners.items():
        browser.remove_listener(event, listener)
    assert heard == []


def data_of(run: pathlib.Path) -> dict[str, Any]:
    text = (run / "explore.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_the_slider_over_t_moves_pictures_weights_and_words(page: Page, run: pathlib.Path) -> None:
    data, pictures = data_of(run), {}
    page.focus("#t")
    for key, i in (("Home", 0), ("ArrowRight", 1), ("ArrowRight", 2), ("End", 8), ("ArrowLeft", 7)):
        page.keyboard.press(key)
        t, mean = data["t"][i], 100 * data["top1"]["mean"][i]
        words = page.inner_text("#time-words")
        stage = "navigation" if t < data["turn"]["t"] else "refinement"
        assert f"At t = {t:.{3 if 0 < t < 0.1 else 2}f}, in {stage}" in words
        assert float(re.search(r"has ([\d.]+) %", words)[1]) == pytest.approx(mean, abs=0.51 if mean >= 10 else 0.06)  # type: ignore[index]
        assert page.get_attribute("#t", "aria-valuetext") in words.replace(";", "")
        shown = page.locator(".query").nth(1).locator(".weight").all_inner_texts()
        weights = [100 * w for w in data["weights"][i][1]]
        told_weights = [float(text.strip("<% ")) for text in shown[:-1]]
        assert told_weights == [pytest.approx(w, abs=0.51 if w >= 10 else 0.06) for w in weights]
        pictures[key, i] = page.evaluate("[...document.querySelectorAll('.pictures canvas')].map((canvas) => canvas.toDataURL())")
    assert all(a != b for a, b in zip(pictures["Home", 0], pictures["End", 8], strict=True))
    assert "One of 20 has it all." in page.inner_text(".query >> nth=0")
    label = page.locator(".pictures canvas[data-kind=oracle]").first.get_attribute("aria-label")
    assert label is not None
    assert f"nearly sample {data['queries'][0]['row']}, class {NAMES[1]}" in label


def test_the_shift_moves_the_steps_and_counts_those_before_the_turn(page: Page, run: pathlib.Path) -> None:
    data = data_of(run)
    page.focus("#shift")
    page.keyboard.press("Home")
    for i in range(3):
        s = data["shifts"][i]
        begins = shift(uniform_timesteps(20), s)[:-1]
        before = int((begins < data["turn"]["t"]).sum())
        assert f"{before} of 20 steps lie before the turn" in page.inner_text("#shift-words")
        assert "more of the steps near noise" in page.inner_text("#shift-words")
        assert page.locator(".marks .before").count() == before
        assert f", {s:.6g})" in page.inner_text("#lines")
        page.keyboard.press("ArrowRight")


def test_the_ends_of_the_interval_stay_apart_and_count_the_guided_steps(page: Page, run: pathlib.Path) -> None:
    data = data_of(run)
    ends, begins = data["ends"], np.array(data["frameworks"][0]["steps"][int(page.input_value("#shift"))])
    page.focus("#high")
    page.keyboard.press("Home")
    assert (page.input_value("#low"), page.input_value("#high")) == ("0", "1")
    page.focus("#low")
    page.keyboard.press("End")
    assert [int(page.input_value(end)) for end in ("#low", "#high")] == [len(ends) - 2, len(ends) - 1]
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    low = ends[len(ends) - 6]
    guided = int((begins >= low).sum())
    assert f"{guided} step{'s' * (guided != 1)}" in page.inner_text("#interval-words")
    assert f"interval=({low:.6g}, 1)" in page.inner_text("#lines")


def test_each_framework_has_its_own_lines(page: Page, run: pathlib.Path) -> None:
    data = data_of(run)
    page.focus("#shift")
    page.keyboard.press("End")
    low, high = (data["ends"][int(page.input_value(end))] for end in ("#low", "#high"))
    for i, name in enumerate(CONVENTIONS):
        page.select_option("#framework", index=1 + i)
        lines = told(name, data["shifts"][-1], (low, high), 20)
        assert page.inner_text("#lines").splitlines() == [line for line in (lines["shift_line"], lines["interval_line"]) if line]
        assert ("has no shift" in page.inner_text("#shift-words")) == (lines["shift_line"] == "")


@pytest.mark.parametrize("width", [390, 800, 1200])
def test_names_are_text_and_nothing_lies_outside_the_page(page: Page, run: pathlib.Path, width: int) -> None:
    assert outside(page, run / "explore.html", width) == []
    page.wait_for_selector("body[data-ready]")
    assert outside(page, run / "explore.html", width) == []
    headings = " ".join(page.locator(".query h3").all_inner_texts())
    assert all(name in headings for name in NAMES)
    assert page.locator("img").count() == 0
    assert (run / "explore.html").stat().st_size < 8e6


def test_a_model_and_latents_are_shown_beside_the_oracle(
    latents: pathlib.Path, run_folder: pathlib.Path, browser: Page, tmp_path: pathlib.Path
) -> None:
    beside = summary_of(explore, presets.get_config(), tmp_path / "model", **{"model.path": str(run_folder), "for_": "ddt", **SMALL})
    browser.goto((tmp_path / "model" / "explore.html").as_uri())
    browser.wait_for_selector("body[data-ready]")
    assert beside["model"] == str(run_folder / "model.safetensors")
    assert browser.locator(".query").first.locator("figcaption").all_inner_texts() == ["xt", "oracle", "model"]
    assert browser.inner_text("#lines").startswith("timeshift: ")
    summary_of(
        explore, presets.get_config(), tmp_path / "latents", **{"data.path": str(latents), "classes": (3, 8), "for_": "sit", **SMALL}
    )
    browser.goto((tmp_path / "latents" / "explore.html").as_uri())
    browser.wait_for_selector("body[data-ready]")
    assert "2 channels, which are no colours" in browser.inner_text("header")
    assert {text.partition("class ")[2] for text in browser.locator(".query h3").all_inner_texts()} == {"3", "8"}


def test_data_that_never_turn_have_a_page_that_says_so(browser: Page, tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "two.npy", np.array([[0.0, 1.0], [1.0, 0.0]], np.float32))
    summary_of(explore, presets.get_config(), tmp_path / "run", **{"data.path": str(tmp_path / "two.npy"), "for_": "sit", **SMALL})
    browser.goto((tmp_path / "run" / "explore.html").as_uri())
    browser.wait_for_selector("body[data-ready]")
    assert "no turning point was found" in browser.inner_text(".takeaway")
    assert not any(browser.locator(f"{mark} >> nth=0").is_visible() for mark in (".turn", ".navigation", ".refinement"))
    assert browser.inner_text("#shift-words").startswith("With s = 1, 19 steps: ")
    assert "laid out row by row" in browser.inner_text("header")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"t_max": 1.0}, "t_max = 1.0"),
        ({"num_heaviest": 0}, "num_heaviest = 0"),
        ({"for_": "sd4"}, "for = 'sd4'"),
        ({"for_": "ddt", "path": "cosine"}, "frameworks' units are those of rectified_flow"),
        ({"classes": (11,)}, "no samples of class 11"),
    ],
)
def test_what_a_user_gets_wrong_is_named(settings: dict[str, Any], said: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        summary_of(explore, presets.get_config(), tmp_path / "run", **{**SMALL, "num_queries": 4, **settings})


def test_pairs_of_ends_come_in_the_order_that_the_page_counts_in() -> None:
    count = 7
    places = [low * count - low * (low + 1) // 2 + high - low - 1 for low, high in itertools.combinations(range(count), 2)]
    assert places == list(range(count * (count - 1) // 2))
