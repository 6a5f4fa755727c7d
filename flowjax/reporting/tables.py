"""Tables: rows of values as `.csv`, as a page shows them, and as text."""

import csv
import math
import pathlib
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

Rows = Sequence[Mapping[str, Any]]


def columns_of(rows: Rows) -> list[str]:
    """The keys of all rows, in the order in which they first appear."""
    return list(dict.fromkeys(key for row in rows for key in row))


def write_csv(path: pathlib.Path, rows: Rows) -> None:
    """Writes one line per row under a header; floats with every digit needed to read them back, None and what is missing as nothing."""
    with open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, columns_of(rows), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


class Cell(NamedTuple):
    """A cell as it is shown: its column, its text, and its classes in the page's style."""

    column: str
    text: str
    kind: str


class Table(NamedTuple):
    """A table as it is shown. `fits` tells the page's style which window has room for it: `narrow`, `medium`, `wide`; `cards`: none."""

    heads: list[Cell]
    rows: list[list[Cell]]
    fits: str


def laid_out(rows: Rows) -> Table:
    """The rows as they are shown: numbers to four significant digits, a dash for None, NaN and what is missing.

    Where the page is narrower than the table each row is shown as a card, its cells one after the other below their column's name.
    """
    columns = columns_of(rows)
    firsts = [next((row[column] for row in rows if row.get(column) is not None), None) for column in columns]
    kinds = [_class(first) for first in firsts]
    heads = [Cell(column, column, kind) for column, kind in zip(columns, kinds, strict=True)]
    cells = [[_cell(column, row.get(column), kind) for column, kind in zip(columns, kinds, strict=True)] for row in rows]
    room = sum(_room(column, [row.get(column) for row in rows]) for column in columns)
    fits = next((name for name, most in _FITS.items() if room <= most), "cards")
    return Table(heads, cells, fits)


def text_table(rows: Rows) -> str:
    """The rows as a Markdown table, for a terminal and for docs; numbers as in `laid_out`."""
    columns = columns_of(rows)
    cells = [columns, *([_shown(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


_SHORT, _LONG = 16, 60  # letters of a cell that is never broken into lines, and of one that takes a line of its own on a card
_LETTER, _PADDING, _TEXT = 10, 20, 130  # pixels, at most: of a letter; about a cell; of a cell that is broken into lines
_FITS = {"narrow": 280, "medium": 760, "wide": 1290}
# pixels: of the column of text on a telephone and in a window of 800, and, in smaller letters, of a window of 1200


def _cell(column: str, value: Any, kind: str) -> Cell:
    """A cell in a column of this kind: where it is missing from numbers it stands as they do."""
    return Cell(column, _shown(value), kind if value is None and kind == "number" else _class(value))


def _class(value: Any) -> str:
    if isinstance(value, Real) and not isinstance(value, bool):
        return "number"
    length = len(_shown(value))
    return "text long" if length > _LONG else "text" if length > _SHORT else ""


def _room(column: str, cells: Sequence[Any]) -> int:
    """The least width of a column, in pixels."""
    shown = [_shown(cell) for cell in cells]
    longest = max([0, *map(len, column.split()), *(len(text) for text in shown if len(text) <= _SHORT)]) * _LETTER
    return max([longest, *(_TEXT for text in shown if len(text) > _SHORT)]) + _PADDING


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return f"{int(value):,}"
    if isinstance(value, Real):
        return "–" if math.isnan(value) else f"{float(value):.4g}"
    return "–" if value is None else str(value)
