"""`report.html`: one self-contained page. Figures are embedded, and open by a click; nothing is fetched and no script runs."""

import base64
import dataclasses
import html
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from flowjax.analysis.verdict import Verdict
from flowjax.reporting import tables

_MEDIA = {".svg": "image/svg+xml", ".png": "image/png"}
_SVG_LIMIT = 500_000  # bytes; a figure of more is embedded as the .png beside it


@dataclasses.dataclass(frozen=True)
class Section:
    """One part of a page.

    Attributes:
      heading: a few words; "" for what goes on with the section before.
      text: what the reader sees in the figure or table, in a sentence or two; or "".
      figure: path of a figure as written by `style.save`, or None.
      alt: what the figure shows, for those who cannot see it. Needed with a figure.
      table: rows to print, or None.
      command: what was typed to make it, or nothing.
      level: of the heading: 2, or 3 for a part of the section before.
    """

    heading: str
    text: str
    figure: pathlib.Path | None = None
    alt: str = ""
    table: tables.Rows | None = None
    command: str = ""
    level: int = 2

    def __post_init__(self) -> None:
        if self.figure is not None and not self.alt:
            raise ValueError(f"section {self.heading!r}: a figure needs an alt text")


def beside_the_paper(paper: str, verdict: Verdict) -> Section:
    """The part of a report that sets what the paper says beside what was found."""
    return Section("What the paper says", paper, table=[{"verdict": verdict.outcome, "why": verdict.why}])


def write_report(
    path: pathlib.Path, title: str, takeaway: str, sections: Sequence[Section], metadata: Mapping[str, Any], *, contents: bool = False
) -> None:
    """Writes the page to `path`: title, the sentence to take away, the sections, and how it was made.

    All text is escaped. `metadata` is printed at the foot, key by key (command, versions, device, seed, wall time, ...); a
    mapping among its values as a list. `contents`: begin with links to the sections.
    """
    head, text = html.escape(title), html.escape(takeaway)
    facts = "".join(f"<dt>{html.escape(str(key))}</dt><dd>{_fact(value)}</dd>\n" for key, value in metadata.items())
    path.write_text(
        f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{head}</title>
<style>{_CSS}</style>
</head>
<body>
<main>
<header><h1>{head}</h1><p class="takeaway">{text}</p></header>
{_contents(sections) if contents else ""}{"".join(_section(number, section) for number, section in enumerate(sections))}</main>
<footer><h2>How this was made</h2><dl>{facts}</dl></footer>
</body>
</html>
""",
        encoding="utf-8",
        errors="backslashreplace",
    )


def _contents(sections: Sequence[Section]) -> str:
    links = [
        f'<li><a href="#section-{number}">{html.escape(section.heading)}</a></li>'
        for number, section in enumerate(sections)
        if section.heading and section.level == 2
    ]
    return f'<nav aria-label="Contents"><ul>{"".join(links)}</ul></nav>\n'


def _section(number: int, section: Section) -> str:
    parts = [f"<h{section.level}>{html.escape(section.heading)}</h{section.level}>"] if section.heading else []
    if section.text:
        parts.append(f"<p>{html.escape(section.text)}</p>")
    if section.figure is not None:
        # An <img> keeps each SVG a document of its own: Matplotlib's ids, the same in every figure, cannot clash.
        parts.append(
            f'<figure id="figure-{number}"><a class="close" href="#section-{number}">Close</a>'
            f'<a class="open" href="#figure-{number}"><img src="{_data_uri(section.figure)}" alt="{html.escape(section.alt)}"></a></figure>'
        )
    if section.table is not None:
        parts.append(tables.html_table(section.table))
    if section.command:
        parts.append(f"<pre><code>{html.escape(section.command)}</code></pre>")
    return f'<section id="section-{number}">' + "\n".join(parts) + "</section>\n"


def _data_uri(figure: pathlib.Path) -> str:
    if figure.suffix == ".svg" and figure.stat().st_size > _SVG_LIMIT:
        figure = figure.with_suffix(".png")
    return f"data:{_MEDIA[figure.suffix]};base64,{base64.b64encode(figure.read_bytes()).decode()}"


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{html.escape(str(key))} {html.escape(str(part))}" for key, part in value.items())
    return html.escape(str(value))


_CSS = """
:root { color-scheme: light dark; --text: #1b1b1b; --page: #ffffff; --soft: #555555; --line: #d5d5d5; --mark: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e8e8e8; --page: #16181b; --soft: #a9b0b7; --line: #3a3f45; --mark: #56b4e9; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 1.05rem/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main, footer { max-width: 52rem; margin: 0 auto; padding: 0 1.1rem; }
header { padding-top: 1.6rem; }
h1 { font-size: 1.05rem; font-weight: 600; color: var(--soft); margin: 0; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 2.6rem 0 0.4rem; }
h3 { font-size: 1.08rem; line-height: 1.3; margin: 1.8rem 0 0.3rem; }
p { margin: 0.3rem 0 0.9rem; overflow-wrap: break-word; }
a { color: var(--mark); }
nav ul { columns: 18rem 2; padding-left: 1.1rem; }
.takeaway { font-size: clamp(1.35rem, 1rem + 2vw, 2rem); line-height: 1.3; font-weight: 650; margin: 0.5rem 0 1rem;
  padding-left: 0.9rem; border-left: 0.3rem solid var(--mark); }
img { display: block; width: 100%; height: auto; background: #ffffff; border-radius: 0.4rem; }
section { scroll-margin-top: 0.8rem; }
figure { margin: 0 0 0.9rem; }
figure .open { cursor: zoom-in; }
figure .close { display: none; }
figure:target { position: fixed; inset: 0; z-index: 1; overflow: auto; padding: 0.6rem; background: var(--page); }
figure:target .close { display: block; position: sticky; left: 0; width: max-content; padding: 0.4rem 0; }
figure:target img { width: auto; min-width: 100%; max-width: none; }
pre { padding: 0.6rem 0.8rem; border: 1px solid var(--line); border-radius: 0.4rem; font-size: 0.85rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.95rem; }
th, td { padding: 0.3rem 0.6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { vertical-align: bottom; }
td { white-space: nowrap; }
td.text { white-space: normal; overflow-wrap: anywhere; min-width: 8rem; }
th.number, td.number { text-align: right; }
footer { border-top: 1px solid var(--line); margin-top: 3rem; padding-bottom: 2rem; color: var(--soft); font-size: 0.9rem; }
footer h2 { font-size: 1rem; margin-top: 1.2rem; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 0.2rem 1rem; margin: 0; }
dd { margin: 0; overflow-wrap: anywhere; }
"""
# A table that takes more room than there is: each row a card, each cell below the name of its column.
_CARDS = """
@media all and (max-width: WIDTH) {
  KIND thead { display: none; }
  KIND table, KIND tbody { display: block; }
  KIND tr { display: flex; flex-wrap: wrap; padding: 0.3rem 0; border-bottom: 1px solid var(--line); }
  KIND td, KIND td.number { display: block; min-width: 6rem; max-width: 100%; padding: 0.2rem 1rem 0.2rem 0; border: 0; text-align: left;
    white-space: normal; overflow-wrap: anywhere; }
  KIND td:empty { display: none; }
  KIND td.long { width: 100%; }
  KIND td::before { content: attr(data-label); display: block; font-size: 0.8rem; color: var(--soft); }
}
"""
_CSS += _CARDS.replace("WIDTH", "49.9rem").replace("KIND", ".medium") + _CARDS.replace("(max-width: WIDTH)", "(min-width: 0)").replace(
    "KIND", ".wide"
)
_CSS += """
@media print {
  :root { --text: #000000; --page: #ffffff; --soft: #444444; --line: #bbbbbb; }
  figure, table, pre, .takeaway { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  table { font-size: 0.7rem; }
  th, td { padding: 0.2rem 0.35rem; }
}
"""
