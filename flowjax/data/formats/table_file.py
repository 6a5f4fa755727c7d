"""Parquet, Arrow and CSV files as tables whose rows are read some at a time, by pyarrow. Nothing in a file is unpickled or run."""

import collections
import json
import pathlib
import re
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flowjax.data.formats.file_kind import kind_of_file
from flowjax.data.sources.image_files import SPLITS, files_below
from flowjax.runtime import extras
from flowjax.runtime.messages import first_line

if TYPE_CHECKING:
    import pyarrow

TABLE_SUFFIXES = (".parquet", ".arrow", ".csv", ".tsv")
SAVED = ("state.json", "dataset_dict.json")
"""Files by which a folder of `datasets.save_to_disk` is recognised: of one data set, and of one for each split."""
KEPT_BYTES = 2**30
"""Of columns of row groups that stay in memory. A column that fits is decompressed once, in whatever order its rows are read."""
_NUMBERED = re.compile(r"(?P<split>[A-Za-z]\w*?)-\d+-of-\d+")  # how Hugging Face names the files of a split


def arrow() -> Any:
    """The module pyarrow.

    Raises:
      ValueError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError as error:
        raise extras.missing("a Parquet, Arrow or CSV file", error, "tables") from error
    return pyarrow


class _Block(NamedTuple):
    """Some consecutive rows of a table.

    Attributes:
      n: how many.
      read: a column of them by its name.
    """

    n: int
    read: Callable[[str], Any]


class Table:
    """Rows of files of one schema, one file after the other.

    Args:
      schema: pyarrow's.
      blocks: the rows.
      origin: begins an error.
    """

    def __init__(self, schema: "pyarrow.Schema", blocks: Sequence[_Block], origin: str):
        self.schema, self._origin = schema, origin
        self._blocks = [block for block in blocks if block.n]
        self._ends = np.cumsum([0, *(block.n for block in self._blocks)])
        self.n = int(self._ends[-1])
        self._kept: collections.OrderedDict[tuple[int, str], Any] = collections.OrderedDict()
        self._kept_bytes, self._lock = 0, threading.Lock()

    def _read(self, block: int, name: str) -> Any:
        """A column of a block: the one kept, or read now, in place of those not asked for the longest."""
        key = block, name
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        column = self._read_block(block, name)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = column
                self._kept_bytes += column.nbytes
            while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
                self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return column

    def _read_block(self, block: int, name: str) -> Any:
        pa = arrow()
        try:
            column = self._blocks[block].read(name)
            column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
            return column.storage if isinstance(column, pa.ExtensionArray) else column
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{self._origin}: not read: column {name!r} is cut short or damaged ({first_line(error, 200)})") from error

    def take(self, name: str, index: np.ndarray) -> "pyarrow.Array":
        """The rows `index` (any order, repeats allowed) of a column. Whole blocks are read for it: row groups, in Parquet.

        Raises:
          ValueError: a damaged file; rows without a value.
        """
        pa = arrow()
        rows, back = np.unique(index, return_inverse=True)
        of = np.searchsorted(self._ends, rows, side="right") - 1
        parts = [self._read(int(block), name).take(pa.array(rows[of == block] - self._ends[block])) for block in np.unique(of)]
        found = pa.concat_arrays(parts)
        if found.null_count:
            row = int(rows[int(np.argmax(found.is_null().to_numpy(zero_copy_only=False)))])
            raise ValueError(f"{self._origin}: row {row} has no value in the column {name!r}")
        return found if len(back) == len(rows) and (back[1:] > back[:-1]).all() else found.take(pa.array(back))

    def column(self, name: str) -> "pyarrow.Array":
        """A whole column; for labels and plain numbers."""
        return self.take(name, np.arange(self.n))


class Opened(NamedTuple):
    """A table, the split that it is of ("" if there are none), and what was left unread, in words."""

    table: Table
    split: str = ""
    not_read: str = ""


def open_table(path: pathlib.Path, split: str = "") -> Opened:
    """The table in a file, or in a folder: Parquet files at any depth, or what `datasets.save_to_disk` wrote.

    Args:
      path: `.parquet`, `.arrow`, `.csv` or `.tsv`; or a folder.
      split: which, where files or folders are called by splits (`train-00000-of-00001.parquet`, `test/`); "" is train.

    Raises:
      FileNotFoundError: nothing there.
      ValueError: a file that is not what its name says, cut short or damaged; files of several schemas; no such split.
    """
    if path.is_file():
        return Opened(_joined([path], str(path)))
    if not path.is_dir():
        raise FileNotFoundError(f"path={path}: nothing lies there, seen from {pathlib.Path.cwd()}; give a .parquet, .arrow or .csv file")
    if (path / "dataset_dict.json").is_file():
        listed = _json(path / "dataset_dict.json").get("splits")
        there = sorted(folder.parent.name for folder in path.glob("*/state.json"))
        if not isinstance(listed, list) or sorted(map(str, listed)) != there or not there:
            raise ValueError(f"{path}: dataset_dict.json names the splits {listed}, and there are {there}; copy the whole folder again")
        chosen = _chosen(path, there, split)
        return Opened(_saved(path / chosen), chosen, _others(there, chosen))
    if (path / "state.json").is_file():
        return Opened(_saved(path))
    files = sorted(file for file in files_below(path) if file.suffix.lower() == ".parquet")
    if not files:
        raise ValueError(f"{path}: no .parquet file there")
    splits = {file: _split_of(file, path) for file in files}
    names = sorted(set(splits.values()))
    if names == [""]:
        return Opened(_joined(files, str(path)))
    chosen = _chosen(path, [name for name in names if name], split)
    unread = _others([name or "files of no split" for name in names], chosen)
    return Opened(_joined([file for file in files if splits[file] == chosen], str(path)), chosen, unread)


def _chosen(path: pathlib.Path, names: Sequence[str], wanted: str) -> str:
    chosen = wanted or ("train" if "train" in names else names[0] if len(names) == 1 else "")
    if chosen not in names:
        raise ValueError(f"{path}: has the splits {', '.join(names)}, not {wanted!r}; set --config.data.split=NAME")
    return chosen


def _others(names: Sequence[str], chosen: str) -> str:
    left = [name for name in names if name != chosen]
    return f"split{'s' * (len(left) > 1)} {', '.join(left)} (--config.data.split=NAME)" if left else ""


def _split_of(file: pathlib.Path, root: pathlib.Path) -> str:
    """The split that a file's name or folder says, or ""."""
    numbered = _NUMBERED.match(file.name)
    if numbered:
        return numbered["split"]
    names = [re.split(r"[-_.]", file.name)[0], *file.relative_to(root).parts[:-1]]
    return next((name for name in names if name.lower() in SPLITS), "")


def _saved(folder: pathlib.Path) -> Table:
    """The table that `datasets.save_to_disk` wrote. The files that its `state.json` names must lie beside it."""
    place = folder / "state.json"
    state = _json(place)
    if state.get("_indices_data_files"):
        raise ValueError(f"{place}: rows are chosen by a table of indices, which is not read; save flatten_indices() of the data set")
    try:
        names = [str(entry["filename"]) for entry in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{place}: not read: it names no _data_files") from error
    for name in names:
        if pathlib.PurePath(name).name != name or not (folder / name).is_file():
            raise ValueError(f"{place}: names the file {name!r}, which does not lie beside it; copy the whole folder again")
    return _joined([folder / name for name in names], str(folder))


def _json(place: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: not read: it is damaged ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{place}: not read: expected a JSON object")
    return found


def _joined(files: Sequence[pathlib.Path], origin: str) -> Table:
    pa = arrow()
    schema, blocks = None, []
    for file in files:
        try:
            found, more = _opened(file, pa)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{file}: not read: {_reason(file, error)}") from error
        if schema is not None and not schema.equals(found):
            differ = next((f"{a} where the first has {b}" for a, b in zip(found, schema, strict=False) if not a.equals(b)), "other columns")
            raise ValueError(f"{file}: has {differ}; expected files of the same columns (the first is {files[0].name})")
        schema = schema or found
        blocks += more
    table = Table(schema, blocks, origin)
    if not table.n:
        raise ValueError(f"{origin}: the table has no rows")
    return table


def _opened(file: pathlib.Path, pa: Any) -> tuple["pyarrow.Schema", list[_Block]]:
    match file.suffix.lower():
        case ".parquet":
            held = pa.parquet.ParquetFile(file)
            meta = held.metadata

            def group(k: int) -> Callable[[str], Any]:  # a reader of its own each time: one is not for several threads
                return lambda name: pa.parquet.ParquetFile(file, metadata=meta).read_row_group(k, columns=[name]).column(0)

            return held.schema_arrow, [_Block(meta.row_group(k).num_rows, group(k)) for k in range(meta.num_row_groups)]
        case ".arrow":
            with pa.memory_map(str(file)) as source:  # arrays keep the map alive
                try:
                    table = pa.ipc.open_stream(source).read_all()
                except pa.ArrowInvalid:
                    table = pa.ipc.open_file(source).read_all()
            table.validate()
        case _:
            table = _read_csv(file, pa)
    return table.schema, [_Block(batch.num_rows, batch.column) for batch in table.to_batches()]


def _read_csv(file: pathlib.Path, pa: Any) -> "pyarrow.Table":
    """A CSV file in memory; columns are called by the first line, or by their numbers if that has numbers only."""
    with open(file, encoding="utf-8-sig", newline="") as text:
        first = text.readline().strip()
    if not first or "\0" in first:
        raise ValueError(f"{file}: not read: it is no CSV file but {kind_of_file(file)}")
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ";" if ";" in first and "," not in first else ","
    cells = [cell.strip().strip('"') for cell in first.split(delimiter)]
    named = None if not all(map(_is_number, cells)) else [str(k) for k in range(len(cells))]
    table = pa.csv.read_csv(
        file, read_options=pa.csv.ReadOptions(column_names=named), parse_options=pa.csv.ParseOptions(delimiter=delimiter)
    )
    twice = next((name for name in table.column_names if table.column_names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{file}: two columns are called {twice!r}; give each a name of its own")
    return table.combine_chunks()


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _reason(file: pathlib.Path, error: Exception) -> str:
    kind, suffix = kind_of_file(file), file.suffix.lower()
    is_own = kind.startswith({".parquet": "a Parquet", ".arrow": "an Arrow", ".csv": "text", ".tsv": "text"}[suffix])
    if suffix == ".arrow" and kind == "of an unknown format":  # Arrow's streams have no mark
        is_own = True
    return f"it is cut short or damaged ({first_line(error, 200)})" if is_own else f"it is no {suffix} file but {kind}"
