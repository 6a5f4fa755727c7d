"""`report.html`: one self-contained page. Figures are embedded, and open by a click; nothing is fetched and no script runs."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from flowjax.analysis.verdict import Verdict
from flowjax.reporting import tables


@dataclasses.dataclass(frozen=True)
class Link:
    """A link to another file of the run's folder.

    Attributes:
      text: what the reader finds there.
      address: relative to the report.
    """

    text: str
    address: str


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
      link: to what lies beside the report, or None.
    """

    heading: str
    text: str
    figure: pathlib.Path | None = None
    alt: str = ""
    table: tables.Rows | None = None
    command: str = ""
    level: int = 2
    link: Link | None = None

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
    from flowjax.reporting.templating import rendered  # here: Jinja2 takes a tenth of a second to import, and `--help` needs no page

    text = rendered("report.html.j2", title=title, takeaway=takeaway, sections=sections, metadata=metadata, contents=contents)
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
