"""Reporting: files that read back as what was written, figures for every shape of result, and a folder that loses nothing."""

import base64
import csv
import html.parser
import json
import os
import pathlib
import re
import xml.etree.ElementTree

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from flowjax.reporting import figures, page, strip, style, tables
from flowjax.reporting.workdir import open_workdir
from flowjax.runtime.strict_json import plain

T = np.linspace(0.01, 0.99, 30)
RISING = figures.Curve(T**2, T**2 * 0.9, T**2 * 1.05)
ZERO = figures.Curve(0 * T, 0 * T, 0 * T)


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def drawn(figure: Figure, folder: pathlib.Path) -> pathlib.Path:
    """Renders both files, and requires that they be what they claim."""
    svg = style.save(figure, folder, "figure")
    xml.etree.ElementTree.parse(svg)
    with Image.open(svg.with_suffix(".png")) as image:
        assert min(image.size) > 300
        assert image.convert("RGB").getpixel((1, 1)) == (255, 255, 255)
    return svg


def tree(root: pathlib.Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in sorted(root.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("turning_point", [0.3, None])
def test_stage_figures_mark_the_turning_point_or_do_without(tmp_path, turning_point):
    interval = None if turning_point is None else (0.28, 0.33)
    top1 = figures.top1_figure(T, RISING, turning_point, interval, {"from the spectrum": 0.35, "from the data": None})
    shown = texts(top1)
    assert "from the spectrum: 0.350" in shown
    assert "from the data" not in shown
    assert ("measured: 0.300  [0.280, 0.330]" in shown) == (turning_point is not None)
    assert ("no crossing" in shown) == (turning_point is None)
    drawn(top1, tmp_path)
    for figure in (
        figures.gap_figure(T, RISING, RISING, turning_point),
        figures.entropy_figure(T, RISING, figures.Curve(*(1 + part for part in RISING)), 5.0, turning_point),
    ):
        assert ("navigation" in texts(figure)) == (turning_point is not None)
        figure.draw_without_rendering()


def test_gap_reaches_down_to_exact_zero(tmp_path):
    """Refinement's gap underflows to 0; a log axis would drop those points."""
    gap = np.where(T < 0.6, 30 * (1 - T), 0.0)
    figure = figures.gap_figure(T, figures.Curve(gap, gap - 1, gap + 1), figures.Curve(gap, gap, gap), 0.4)
    logarithmic = figure.axes[1]
    assert logarithmic.get_ylim()[0] == 0
    assert np.isfinite(logarithmic.transData.transform(np.stack([T, gap], 1))).all()
    drawn(figure, tmp_path)


def test_one_sample_gives_figures_too():
    figures.gap_figure(T, ZERO, ZERO, None).draw_without_rendering()
    figures.entropy_figure(T, ZERO, figures.Curve(1 + 0 * T, 1 + 0 * T, 1 + 0 * T), 0.0).draw_without_rendering()


def test_an_interval_beside_its_point_is_drawn():
    figures.top1_figure(T, RISING, 0.7, (0.71, 0.72), {}).draw_without_rendering()


def test_grid_draws_a_curve_and_its_points_for_each_dimension(tmp_path):
    points = [
        figures.GridPoint(d, n, 0.1, 0.11 if n > 64 else None, (0.1, 0.12) if n == 1024 else None)
        for d in (16, 64)
        for n in (64, 256, 1024)
    ]
    figure = figures.grid_figure(points)
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 0]
    assert [list(line.get_xdata()) for line in lines[:3]] == [[64, 256, 1024], [256, 1024], [1024, 1024]]
    assert {"D = 16", "D = 64", "predicted"} <= set(texts(figure).splitlines())
    drawn(figure, tmp_path)


@pytest.mark.parametrize("count", [3, 60])
def test_classes_are_sorted_and_those_that_never_cross_say_so(tmp_path, count):
    points = [figures.ClassPoint(f"class {c}", 0.5 - c / 200, (0.1, 0.6), 0.3) for c in range(count)] + [figures.ClassPoint("lone", None)]
    figure = figures.classes_figure(points, overall=0.4)
    if count == 3:
        assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["class 2", "class 1", "class 0", "lone"]
        assert "never crosses" in texts(figure)
    drawn(figure, tmp_path)
    figures.classes_figure([figures.ClassPoint("lone", None)]).draw_without_rendering()


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (6, 9, 3), (4, 4, 32), (50,), (1,), (2, 3, 4, 5)])
def test_strip_shows_samples_of_any_shape(tmp_path, shape):
    rng = np.random.default_rng(0)
    t = np.linspace(0, 0.9, 5)
    images = rng.normal(size=(2, 5, *shape)).astype(np.float32)
    figure = strip.strip_figure(t, images, images / 2, (-1.0, 1.0), 0.3 if shape == (8, 8) else None)
    assert len(figure.axes[0].get_yticklabels()) == 4
    drawn(figure, tmp_path) if shape == (8, 8) else figure.draw_without_rendering()


def test_strip_places_every_image_at_its_row_and_column():
    t = np.array([0.1, 0.5, 0.9])
    queries = np.arange(2 * 3, dtype=np.float32).reshape(2, 3, 1, 1, 1) * np.ones((4, 4, 1), np.float32)
    figure = strip.strip_figure(t, queries, queries + 6, (0.0, 12.0), 0.5)
    mosaic = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(mosaic[1::5, 1::5, 0] * 12, [[0, 1, 2], [6, 7, 8], [3, 4, 5], [9, 10, 11]], atol=1e-6)


def test_as_image_keeps_values():
    vector = np.arange(7, dtype=np.float32)
    image = strip.as_image(vector)
    assert image.shape == (3, 3, 3)
    np.testing.assert_array_equal(image[..., 0].ravel()[:7], vector)
    assert np.isnan(image[..., 0].ravel()[7:]).all()
    rgb = np.random.default_rng(0).normal(size=(2, 2, 3))
    np.testing.assert_array_equal(strip.as_image(rgb), rgb)
    latent = np.random.default_rng(0).normal(size=(2, 2, 5))
    np.testing.assert_array_equal(strip.as_image(latent)[..., 2], latent[..., 0])


def test_style_leaves_the_callers_settings_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    figures.top1_figure(T, RISING, 0.3, None, {})
    assert dict(matplotlib.rcParams) == before


def test_csv_reads_back_to_the_last_digit(tmp_path):
    rows = [{"t": 0.1 + 0.2, "name": "a, b"}, {"t": np.float32(0.1), "more": None, "n": np.int64(7)}, {"name": "é\n", "t": float("nan")}]
    tables.write_csv(tmp_path / "x.csv", rows)
    with open(tmp_path / "x.csv", newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == ["t", "name", "more", "n"]
    assert float(read[0]["t"]) == 0.1 + 0.2
    assert np.float32(read[1]["t"]) == np.float32(0.1)
    assert (read[1]["n"], read[1]["more"], read[2]["name"], read[2]["t"]) == ("7", "", "é\n", "nan")


def test_html_table_escapes_and_rounds():
    text = tables.html_table([{"<a>": "x & <b>", "v": 0.123456, "n": 60000, "ok": True, "none": None}, {"v": float("nan")}])
    assert "&lt;a&gt;" in text
    assert "x &amp; &lt;b&gt;" in text
    assert all(part in text for part in ('"number">0.1235<', ">60,000<", ">yes<", ">–<", '<th scope="col" class="number">v<'))


def test_json_is_strict():
    value = {
        1: np.float32(np.nan),
        "a": (np.int64(3), jnp.arange(2), [np.inf, 0.5]),
        "p": pathlib.Path("x"),
        "b": np.bool_(True),
        "n": np.array([1, np.nan]),
    }
    text = json.dumps(plain(value), allow_nan=False)
    assert json.loads(text) == {"1": None, "a": [3, [0, 1], [None, 0.5]], "p": "x", "b": True, "n": [1, None]}


class Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.addresses, self.alts = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [key for key, _ in attrs]
        self.addresses += [value for key, value in attrs if key in ("src", "href", "srcset")]
        self.alts += [dict(attrs).get("alt") for _ in [0] if tag == "img"]


def test_report_stands_by_itself(tmp_path):
    svg = style.save(figures.top1_figure(T, RISING, 0.3, None, {}), tmp_path, "top1")
    heavy = tmp_path / "heavy.svg"
    heavy.write_bytes(b" " * 600_000)
    heavy.with_suffix(".png").write_bytes(svg.with_suffix(".png").read_bytes())
    page.write_report(
        tmp_path / "report.html",
        "Digits <& more>",
        "The turn comes at t = 0.3 <b>",
        [
            page.Section("First", "A curve.", svg, alt='a "curve"'),
            page.Section("Heavy", "A map.", heavy, alt="map"),
            page.Section("T", "Rows.", table=[{"t": 1}]),
        ],
        {"command": "python -m x --a='<b>'", "versions": {"jax": "0.10"}, "seed": 0},
    )
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    found = Links()
    found.feed(text)
    assert "<title>Digits &lt;&amp; more&gt;</title>" in text
    assert "t = 0.3 &lt;b&gt;" in text
    assert "jax 0.10" in text
    assert "script" not in found.tags
    assert "b" not in found.tags
    assert found.alts == ['a "curve"', "map"]
    embedded = [address.split(",") for address in found.addresses if not address.startswith("#")]
    assert [kind for kind, _ in embedded] == ["data:image/svg+xml;base64", "data:image/png;base64"]
    assert base64.b64decode(embedded[0][1]) == svg.read_bytes()
    assert not re.search(r"url\(|@import|https?://", text)


def test_a_figure_needs_an_alt_text():
    with pytest.raises(ValueError, match="alt"):
        page.Section("First", "A curve.", pathlib.Path("x.svg"))


def small_run(root: pathlib.Path, number: int, overwrite: bool = False, extra: bool = False) -> None:
    with open_workdir(root, overwrite) as workdir:
        workdir.write_json("summary.json", {"run": number})
        workdir.write_csv("sweep.csv", [{"run": number}])
        if extra:
            workdir.path("figures/deep/extra.txt").write_text("extra")


def failing_run(root: pathlib.Path, failure: type[BaseException]) -> None:
    with open_workdir(root, overwrite=True) as workdir:
        workdir.write_json("summary.json", {"run": 2})
        raise failure


def test_a_run_leaves_its_files_and_nothing_else(tmp_path):
    root = tmp_path / "a" / "run"
    with open_workdir(root) as workdir:
        svg = workdir.save_figure("top1", figures.top1_figure(T, RISING, 0.3, None, {}))
        workdir.write_report("Title", "Sentence.", [page.Section("First", "Text.", svg, "curve")], {})
        aside = [".flowjax-partial/" + name for name in ("figures/top1.png", "figures/top1.svg", "report.html")]
        assert list(tree(root)) == [*aside, ".flowjax.lock"]
    assert set(tree(root)) == {".flowjax.json", "figures/top1.png", "figures/top1.svg", "report.html"}


HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "$x^{$ 'a' \"b\" & c",
    "line\nbreak\x1b[31m",
    "\udcff\udcfe",
)
"""Names that folders can have: markup, a broken formula, letters that steer a terminal, bytes that are no Unicode."""


def test_names_from_outside_are_text_wherever_they_are_shown(tmp_path):
    points = [figures.ClassPoint(name, 0.3, (0.2, 0.4), 0.31) for name in HOSTILE]
    table = [{"class": name, name: 1} for name in HOSTILE]
    with open_workdir(tmp_path / "run") as workdir:
        svg = workdir.save_figure("classes", figures.classes_figure(points))
        sections = [page.Section(name, name, svg, alt=name, table=table, command=name) for name in HOSTILE]
        workdir.write_report(HOSTILE[0], HOSTILE[0], sections, {name: {name: name} for name in HOSTILE}, contents=True)
        workdir.write_csv("classes.csv", table)
        workdir.write_json("config.json", {"path": HOSTILE})
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    seen = Links()
    seen.feed(text)
    assert "script" not in seen.tags
    assert seen.tags.count("img") == len(HOSTILE)  # the figures
    assert not any(name.startswith("on") for name in seen.attributes)
    assert json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))["path"] == list(HOSTILE)


def test_a_second_run_needs_overwrite_and_then_replaces_only_what_is_ours(tmp_path):
    small_run(tmp_path, 1, extra=True)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "figures" / "mine.png").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(ValueError, match="holds an earlier run: pass --resume to go on with it, --overwrite to replace it"):
        open_workdir(tmp_path)
    assert tree(tmp_path) == before
    small_run(tmp_path, 2, overwrite=True)
    assert set(tree(tmp_path)) == {".flowjax.json", "figures/mine.png", "notes.txt", "summary.json", "sweep.csv"}
    assert json.loads((tmp_path / "summary.json").read_text()) == {"run": 2}
    assert not (tmp_path / "figures" / "deep").exists()
    small_run(tmp_path, 3, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_run_that_fails_changes_nothing(tmp_path, failure):
    small_run(tmp_path / "old", 1)
    before = tree(tmp_path)
    for name in ("old", "new"):
        with pytest.raises(failure):
            failing_run(tmp_path / name, failure)
    assert tree(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_a_run_that_was_killed_is_told_and_can_be_replaced(tmp_path):
    open_workdir(tmp_path / "run").write_json("summary.json", {})  # neither committed nor discarded
    with pytest.raises(ValueError, match="holds an unfinished run: pass --resume to go on with it, --overwrite to replace it"):
        open_workdir(tmp_path / "run")
    with open_workdir(tmp_path / "run", resume=True) as workdir:  # also where nothing of it was kept
        workdir.write_json("summary.json", {})
    open_workdir(tmp_path / "run", overwrite=True).write_json("summary.json", {})
    small_run(tmp_path / "run", 2, overwrite=True)
    assert set(tree(tmp_path / "run")) == {".flowjax.json", "summary.json", "sweep.csv"}


def test_a_commit_cut_short_is_never_taken_for_a_finished_run(tmp_path, monkeypatch):
    """Whichever file it was about to move: no summary, or all of the new run."""
    for count in range(1, 5):
        root = tmp_path / str(count)
        small_run(root, 1)
        replace, moved = os.replace, []

        def failing(source, target, replace=replace, moved=moved, count=count):
            moved.append(target)
            if len(moved) == count:
                raise OSError("disk full")
            replace(source, target)

        monkeypatch.setattr(os, "replace", failing)
        with pytest.raises(OSError, match="disk full"):
            small_run(root, 2, overwrite=True)
        monkeypatch.undo()
        held = json.loads((root / "summary.json").read_text()) if (root / "summary.json").exists() else None
        assert held == {1: {"run": 1}, 4: {"run": 2}}.get(count)  # the first and the last to be moved is the manifest


def test_no_link_in_the_folder_leads_elsewhere(tmp_path):
    """A folder from outside brings its manifest along, and links: what lies where they lead is neither written nor removed."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "top1.png").write_text("mine")
    (victim / "file").write_text("mine")
    before = tree(victim)
    for number, (link, to) in enumerate(
        [
            ("figures", victim),
            ("log", victim),
            ("folder/deep", victim),
            ("folder/file", victim / "file"),
            (".flowjax.lock", victim / "file"),
        ]
    ):
        root = tmp_path / f"run{number}"
        (root / link).parent.mkdir(parents=True)
        (root / link).symlink_to(to)
        (root / ".flowjax.json").write_text(json.dumps({"files": ["figures/top1.png"], "live": ["log", "folder"]}))
        for how in ({"overwrite": True}, {"resume": True}):
            with pytest.raises((ValueError, OSError), match=r"is a link|cannot be written"):
                open_workdir(root, live=("log", "folder"), **how)
        (root / ".flowjax.json").write_text(json.dumps({"files": [], "live": []}))
        if link == "figures":
            with pytest.raises(FileExistsError), open_workdir(root, overwrite=True) as workdir:
                workdir.path("figures/top1.png")
    assert tree(victim) == before


def test_a_commit_cut_short_still_knows_its_files(tmp_path, monkeypatch):
    small_run(tmp_path, 1, extra=True)
    replace, moved = os.replace, []

    def failing(source, target):
        moved.append(target)
        if len(moved) == 3:
            raise OSError("disk full")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="disk full"):
        small_run(tmp_path, 2, overwrite=True)
    monkeypatch.undo()
    small_run(tmp_path, 3, overwrite=True)
    assert set(tree(tmp_path)) == {".flowjax.json", "summary.json", "sweep.csv"}


def test_other_peoples_folders_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="not of an earlier run: give another --workdir"):
            open_workdir(tmp_path, overwrite)
    assert set(tree(tmp_path)) == {"notes.txt"}
    with pytest.raises(ValueError, match="is a file"):
        open_workdir(tmp_path / "notes.txt")
    with pytest.raises(OSError, match="cannot be written"):
        open_workdir(tmp_path / "notes.txt" / "run")


@pytest.mark.skipif(not os.path.isdir("/sys/kernel"), reason="needs a folder that not even root may write to")
def test_a_folder_that_cannot_be_written():
    with pytest.raises(PermissionError, match=r"workdir /sys/kernel/run cannot be written .*: give another --workdir"):
        open_workdir("/sys/kernel/run")


def test_a_file_of_the_users_own_is_not_overwritten(tmp_path):
    small_run(tmp_path, 1)
    (tmp_path / "report.html").write_text("mine")
    (tmp_path / "figures").write_text("mine")
    before = tree(tmp_path)
    for name in ("report.html", "figures/a.png"):
        with pytest.raises(FileExistsError, match="of your own"), open_workdir(tmp_path, overwrite=True) as workdir:
            workdir.path(name)
    assert tree(tmp_path) == before


def test_nothing_outside_of_the_folder_is_written_or_removed(tmp_path):
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    root = tmp_path / "run"
    for name in ("../victim.txt", str(victim), ""):
        with pytest.raises(ValueError, match="leads out"), open_workdir(root, overwrite=True) as workdir:
            workdir.path(name)
    small_run(root, 1)
    for manifest in ('{"files": ["../victim.txt"]}', '{"files": 3}', "not json", "[]"):
        (root / ".flowjax.json").write_text(manifest)
        with pytest.raises(ValueError, match="damaged"):
            open_workdir(root, overwrite=True)
    assert victim.read_text() == "mine"
    assert ".flowjax-partial" not in os.listdir(root)


def test_live_files_outlive_a_run_that_was_cut_off_and_are_gone_on_with(tmp_path):
    root = tmp_path / "run"

    def cut_off() -> None:
        with open_workdir(root, live=("log", "folder")) as workdir:
            workdir.live("log").write_text("so far")
            workdir.write_json("summary.json", {})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        cut_off()
    assert set(tree(root)) == {".flowjax.json", "log"}
    with pytest.raises(ValueError, match="--resume to go on with it, --overwrite to replace it"):
        open_workdir(root, live=("log", "folder"))
    with open_workdir(root, live=("log", "folder"), resume=True) as workdir:
        assert workdir.live("log").read_text() == "so far"
        workdir.write_json("summary.json", {})
    assert set(tree(root)) == {".flowjax.json", "log", "summary.json"}
    with open_workdir(root, overwrite=True, live=("log",)) as workdir:
        assert not workdir.live("log").exists()
        workdir.write_json("summary.json", {})


def test_a_live_file_of_the_users_own_is_left_alone(tmp_path):
    small_run(tmp_path, 1)
    (tmp_path / "log").write_text("mine")
    with pytest.raises(ValueError, match="a log of your own"):
        open_workdir(tmp_path, overwrite=True, live=("log",))
    assert (tmp_path / "log").read_text() == "mine"


def test_a_folder_that_is_being_written_is_refused(tmp_path):
    with open_workdir(tmp_path / "run") as workdir:
        workdir.write_json("summary.json", {})
        with pytest.raises(ValueError, match=f"being written by process {os.getpid()}"):
            open_workdir(tmp_path / "run", overwrite=True)
    small_run(tmp_path / "run", 2, overwrite=True)
