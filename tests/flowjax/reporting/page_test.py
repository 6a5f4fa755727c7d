"""A report is one page that stands by itself, and names from outside are text in it."""

import base64
import html.parser
import json
import pathlib
import re

import pytest

from flowjax.reporting import figures, page, style
from flowjax.reporting.workdir import open_workdir
from tests.flowjax.reporting.drawing import RISING, T


class Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.addresses, self.alts, self.text = [], [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [key for key, _ in attrs]
        self.addresses += [value for key, value in attrs if key in ("src", "href", "srcset")]
        self.alts += [dict(attrs).get("alt") for _ in [0] if tag == "img"]

    def handle_data(self, data):
        self.text += data


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
            page.Section("Beside", "", link=page.Link("A page <b>", "explore.html")),
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
    assert [address for address in found.addresses if not address.startswith(("#", "data:"))] == ["explore.html"]
    embedded = [address.split(",") for address in found.addresses if address.startswith("data:")]
    assert [kind for kind, _ in embedded] == ["data:image/svg+xml;base64", "data:image/png;base64"]
    assert base64.b64decode(embedded[0][1]) == svg.read_bytes()
    assert not re.search(r"url\(|@import|https?://", text)


def test_a_figure_needs_an_alt_text():
    with pytest.raises(ValueError, match="alt"):
        page.Section("First", "A curve.", pathlib.Path("x.svg"))


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
    assert seen.text.count(HOSTILE[1]) >= 5  # the title of its section, its sentence, two cells, its command
    assert seen.tags.count("img") == len(HOSTILE)  # the figures
    assert not any(name.startswith("on") for name in seen.attributes)
    assert json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))["path"] == list(HOSTILE)
