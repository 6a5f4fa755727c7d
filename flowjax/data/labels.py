"""Labels as integers, from numbers of any dtype, one-hot rows or names, in arrays, text and CSV files."""

import csv
import io
import pathlib
import re

import ml_dtypes
import numpy as np

LABEL_NAMES = ("labels", "label", "y", "targets", "target", "classes", "class")
"""Usual names of arrays and CSV columns that hold labels."""
TEXT_SUFFIXES = (".txt", ".csv", ".tsv")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")
ROW_NUMBERS = ("", "id", "index", "idx")
"""Usual names of columns that number the rows."""
NAME_IT = "--config.data.label_array"


def as_labels(values: np.ndarray, n: int, origin: str) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """The labels of n samples as integers `[n]`, and the classes' names if the values say them.

    Args:
      values: `[n]` whole numbers of any dtype, or strings; `[n, 1]` or `[1, n]` of them; `[n, K]` one-hot rows, whose K classes are kept
        as names. Strings that are all numbers are numbers; others are numbered in their order, and so are numbers if some are negative or
        above what int32 holds.
      origin: begins an error.

    Raises:
      ValueError: another number of labels, values that are no whole numbers, or so large that their dtype rounds them; an empty string.
    """
    values = np.asarray(values)
    if values.ndim == 2 and values.size == n and 1 in values.shape:
        values = values.reshape(n)
    if values.shape[:1] != (n,) or values.ndim > 2:
        raise ValueError(f"{origin}: labels have shape {values.shape}, expected ({n},), one for each sample, or ({n}, K), one-hot")
    if values.dtype.kind in "US":
        return _of_strings(values, origin)
    if values.dtype.kind not in "buif" and values.dtype.name not in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        raise ValueError(f"{origin}: labels are {values.dtype}, expected whole numbers or names")
    if values.ndim == 2:
        if not (((values == 0) | (values == 1)).all() and (np.count_nonzero(values, axis=1) == 1).all()):
            raise ValueError(f"{origin}: labels have shape {values.shape} and are not one-hot; expected ({n},), one class for each sample")
        return values.argmax(1), tuple(map(str, range(values.shape[1])))
    return _numbered(_whole(values, origin))


def mapping_in_words(values: np.ndarray, class_names: tuple[str, ...] | None) -> str:
    """A sentence on how `as_labels` numbered some values, for the user."""
    if class_names is None:
        return "whole numbers, as they are"
    if values.dtype.kind not in "US" and values.ndim == 2 and 1 not in values.shape:
        return f"one-hot rows of {values.shape[1]} values, numbered by the place of the 1"
    listed = ", ".join(f"{k} = {name}" for k, name in enumerate(class_names[:5])) + ", ..." * (len(class_names) > 5)
    return f"{len(class_names):,} names, numbered in their order: {listed}"


def _numbered(labels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Whole numbers as they are, if each can be a label; otherwise numbered in their order."""
    if not labels.size or (labels.min() >= 0 and labels.max() < np.iinfo(np.int32).max):
        return labels, None
    numbers, found = np.unique(labels, return_inverse=True)
    return found, tuple(map(str, numbers.tolist()))


def read_text_labels(path: pathlib.Path, n: int, column: str = "") -> np.ndarray:
    """The labels of n samples in a text file, `[n]` strings, in the order of its lines.

    Args:
      path: `.csv` or `.tsv`, with a line of names above the labels or without (their number tells); any other file has one label on a line.
      column: of a CSV file: its name, or its number from 0; "": the only one, or the only one called like labels (`LABEL_NAMES`).

    Raises:
      FileNotFoundError: no such file.
      ValueError: no UTF-8 text, another number of labels, an empty one, several columns of which none is named.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, seen from {pathlib.Path.cwd()}")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not read: no UTF-8 text (byte {error.start}); save it as UTF-8") from error
    tabular = path.suffix.lower() in (".csv", ".tsv")
    rows = _table(path, text) if tabular else [[line.strip()] for line in text.rstrip().splitlines()]
    header: list[str] = []
    if tabular and len(rows) == n + 1:
        header, rows = [cell.strip() for cell in rows[0]], rows[1:]
    first = 1 + bool(header)
    uneven = next((i for i, row in enumerate(rows) if len(row) != len(rows[0])), None)
    if uneven is not None:
        raise ValueError(f"{path}: line {uneven + first} has {len(rows[uneven])} columns, the first {len(rows[0])}")
    chosen = _column(path, header, len(rows[0]) if rows else 0, column)
    found = [row[chosen].strip() for row in rows]
    if "" in found:
        raise ValueError(f"{path}: line {found.index('') + first} has no label")
    _check_number(path, found, header[chosen] if header else None, n)
    if header:
        _check_order(path, header, rows)
    if not tabular and n > 1 and len(set(found)) == n and all(re.search(r"[\s,;]", line) for line in found):
        raise ValueError(f"{path}: lines such as {found[0][:40]!r}; expected one label on each, or a .csv file")
    return np.array(found)


def _of_strings(values: np.ndarray, origin: str) -> tuple[np.ndarray, tuple[str, ...] | None]:
    if values.ndim == 2:
        raise ValueError(f"{origin}: labels are strings of shape {values.shape}, expected ({len(values)},)")
    if values.dtype.kind == "S":
        try:
            values = np.char.decode(values, "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{origin}: labels are bytes that are no UTF-8 text") from error
    values = np.char.strip(values)
    if (values == "").any():
        raise ValueError(f"{origin}: label {int(np.argmax(values == ''))} is empty")
    if all(map(_NUMBER.fullmatch, values.tolist())):
        return _numbered(_whole(values.astype(np.float64), origin))
    names, labels = np.unique(values, return_inverse=True)
    return labels, tuple(names.tolist())


def _whole(values: np.ndarray, origin: str) -> np.ndarray:
    """Whole numbers of any dtype as integers."""
    if values.dtype.kind in "iu":
        return values
    if values.dtype.kind == "b":
        return values.astype(np.int32)
    wide = values.astype(np.float64)
    wrong = ~np.isfinite(wide) | (wide != np.floor(wide))
    if wrong.any():
        raise ValueError(f"{origin}: label {int(np.argmax(wrong))} is {wide[np.argmax(wrong)]:g}, expected whole numbers")
    exact = 2.0 ** (ml_dtypes.finfo(values.dtype).nmant + 1)
    if len(wide) and abs(wide).max() >= exact:
        most = f"labels reach {abs(wide).max():.0f}, and {values.dtype} rounds whole numbers from {exact:.0f} on"
        raise ValueError(f"{origin}: {most}; store integers")
    return wide.astype(np.int64)


def _table(path: pathlib.Path, text: str) -> list[list[str]]:
    head = text.partition("\n")[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ";" if ";" in head and "," not in head else ","
    try:
        return list(csv.reader(io.StringIO(text.rstrip()), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}: not read: no CSV file ({error})") from error


def _column(path: pathlib.Path, header: list[str], width: int, column: str) -> int:
    """The number of the column that holds the labels."""
    if column and column in header:
        return header.index(column)
    if column.isdecimal() and int(column) < width:
        return int(column)
    known = f"the columns {', '.join(map(repr, header))}" if header else f"{width} columns without names"
    if column:
        raise ValueError(f"{path}: no column {column!r}; it has {known}")
    named = [k for k, name in enumerate(header) if name.lower() in LABEL_NAMES]
    if width <= 1 or len(named) == 1:
        return named[0] if named else 0
    raise ValueError(f"{path}: has {known}; name that of the labels, {NAME_IT}={'NAME' if header else 'NUMBER, from 0'}")


def _check_number(path: pathlib.Path, found: list[str], header: str | None, n: int) -> None:
    """A ValueError unless there are n labels, with or without the first line, which may be a header."""
    numbers = [bool(_NUMBER.fullmatch(label)) for label in found]
    if header is not None and (header in found or _NUMBER.fullmatch(header)):
        raise ValueError(f"{path}: holds {len(found) + 1} labels, expected {n}, one for each sample")
    if len(found) != n:
        raise ValueError(f"{path}: holds {len(found)} labels, expected {n}, one for each sample")
    if header is None and n > 1 and not numbers[0] and (all(numbers[1:]) or found[0].lower() in LABEL_NAMES) and found[0] not in found[1:]:
        raise ValueError(f"{path}: holds {n - 1} labels below {found[0]!r}, expected {n}, one for each sample")


def _check_order(path: pathlib.Path, header: list[str], rows: list[list[str]]) -> None:
    """A ValueError if a column numbers the rows in another order than theirs."""
    for k, name in enumerate(header):
        cells = [row[k].strip() for row in rows]
        if name.lower() in ROW_NUMBERS and all(cell.isdecimal() for cell in cells):
            numbers = np.array(cells, np.float64)
            if (np.diff(numbers) <= 0).any():
                raise ValueError(f"{path}: its lines are not in the order of the column {name!r}; sort them as the samples are")
