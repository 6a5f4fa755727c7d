"""Tables with a row for each sample: Parquet, Hugging Face's saved data sets, CSV; images, arrays, or a number in each column."""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flowjax.data.cache import stamp
from flowjax.data.formats.decoding import Encoded, image_rows
from flowjax.data.formats.table_file import Table, arrow, open_table
from flowjax.data.labels import LABEL_NAMES, NAME_IT, ROW_NUMBERS
from flowjax.data.normalization import array_scaling
from flowjax.data.records import Progress, Records, said
from flowjax.data.sources.labels_file import Labels, labels_in_file, labels_of_values

if TYPE_CHECKING:
    import pyarrow

_SAMPLES = ("image", "images", "img", "latent", "latents", "data", "x", "array", "pixels", "features")
"""What columns of samples are called, where there are several of one kind; the first that there is."""


# Its parameters are more than eight: they are the settings of this source as a configuration names them, which open_records looks up.
def records(
    path: str | os.PathLike,
    split: str = "",
    array: str = "",
    label_array: str = "",
    normalize: str = "auto",
    multiplier: float = 0.0,
    resolution: int = 0,
    cache_dir: str = "",
    labels: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> Records:
    """The samples of a table: its column of images, else its column of arrays, else all its columns of numbers, side by side.

    Images are decoded once and kept; arrays are read when they are asked for, whole row groups of Parquet at a time; plain numbers are read
    at once. Columns that are not read stand in `provenance["not_read"]`.

    Args:
      path: `.parquet`, `.arrow`, `.csv` or `.tsv`; a folder of `.parquet` files; what `datasets.save_to_disk` wrote.
      split: which, where the files are called by splits; "" is train.
      array: the column of the samples; of plain numbers several, `x,y,z`.
      label_array: the column of the labels; "" is one of `labels.LABEL_NAMES`, or Hugging Face's first ClassLabel; "none": no labels.
      normalize, multiplier: as `flowjax.data.normalization.array_scaling`.
      resolution, cache_dir: of images, as in `image_folder.records`.
      labels: a file with a label for each row, as `labels_file.labels_in_file`; `label_array` then names what is in it.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a damaged file, or another than its name says; no column of samples; rows without a value or of several shapes; labels
        that do not fit.
    """
    path = pathlib.Path(path).expanduser()
    table, split, left = open_table(path, split)
    origin = {"source": "table", "path": str(path), **({"split": split} if split else {})}
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    settings = Settings(array, label_array, normalize, multiplier, resolution, cache_dir, labels)
    return records_of(Source(table, str(path), path.stem, origin, stamp(path, files)), settings, left, progress)


class Settings(NamedTuple):
    """How a table is read: see `records`."""

    array: str = ""
    label_array: str = ""
    normalize: str = "auto"
    multiplier: float = 0.0
    resolution: int = 0
    cache_dir: str = ""
    labels: str | os.PathLike | None = None


class Source(NamedTuple):
    """A table and where it is from.

    Attributes:
      table: opened.
      place: begins an error.
      name: of the data set.
      provenance: of the records.
      stamp: changes when the table does: `flowjax.data.cache.stamp`.
    """

    table: Table
    place: str
    name: str
    provenance: dict[str, Any]
    stamp: str


def records_of(source: Source, settings: Settings, not_read: str, progress: Progress | None) -> Records:
    """The records of an opened table; see `records`."""
    table = source.table
    columns = _columns(table.schema)
    apart = settings.labels
    label = _label_column(source.place, columns, "none" if apart else settings.label_array)
    kind, samples = _sample_columns(source.place, columns, label, settings.array)
    unread = [f"{name} {column.described}" for name, column in columns.items() if name not in (*samples, label)]
    rows, scaling = _rows(source, kind, samples, settings, progress)
    if apart:
        found = labels_in_file(apart, table.n, settings.label_array)
    else:
        found = Labels() if label is None else _labels(source.place, table, columns[label], label)
    normalization, value_range = scaling
    left = ", ".join(filter(None, [*unread, not_read]))
    return Records(
        name=source.name,
        rows=rows,
        labels=found.labels,
        class_names=found.class_names,
        normalization=normalization,
        value_range=value_range,
        provenance={
            **source.provenance,
            "taken_for": f"a table of {kind}s: column{'s' * (len(samples) > 1)} {_few(samples)}",
            **said(label_mapping=found.mapping, not_read=left),
        },
    )


class _Column(NamedTuple):
    """What a column of a table holds: an "image", an "array", a "number", or something else; and the names of its classes."""

    kind: str
    described: str
    class_names: tuple[str, ...] | None = None


def _columns(schema: "pyarrow.Schema") -> dict[str, _Column]:
    features = _features(schema)
    return {field.name: _column(field.type, features.get(field.name)) for field in schema}


def _features(schema: "pyarrow.Schema") -> dict[str, Any]:
    """What Hugging Face says of the columns, by their names."""
    try:
        found = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {name: feature for name, feature in found.items() if isinstance(feature, dict)} if isinstance(found, dict) else {}


def _column(kind: Any, feature: dict[str, Any] | None) -> _Column:
    pa = arrow()
    types, shown = pa.types, str(kind)[:60]
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    names = feature.get("names") if feature and feature.get("_type") == "ClassLabel" else None
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return _Column("number", f"{shown}, {len(names)} classes", tuple(names))
    if types.is_struct(kind):
        held = {field.name: field.type for field in kind}
        is_image = "bytes" in held and _is_binary(held["bytes"]) and (feature or {}).get("_type", "Image") == "Image"
        return _Column("image" if is_image else "other", shown)
    if _is_binary(kind):
        return _Column("image", shown)
    leaf = kind
    while types.is_list(leaf) or types.is_large_list(leaf) or types.is_fixed_size_list(leaf):
        leaf = leaf.value_type
    if types.is_integer(leaf) or types.is_floating(leaf) or types.is_boolean(leaf):
        return _Column("number" if leaf == kind else "array", shown)
    return _Column("other", shown)


def _is_binary(kind: Any) -> bool:
    types = arrow().types
    return types.is_binary(kind) or types.is_large_binary(kind)


def _label_column(place: str, columns: dict[str, _Column], wanted: str) -> str | None:
    if wanted == "none":
        return None
    if wanted:
        if wanted not in columns:
            raise ValueError(f"{place}: has no column {wanted!r}; it has {_described(columns)}")
        return wanted
    named = [name for one in LABEL_NAMES for name in columns if name.lower() == one]
    return next(iter([*named, *(name for name, column in columns.items() if column.class_names is not None)]), None)


def _sample_columns(place: str, columns: dict[str, _Column], label: str | None, wanted: str) -> tuple[str, list[str]]:
    """The kind of the samples, and the columns that hold them."""
    chosen = [wanted] if wanted in columns else [name.strip() for name in wanted.split(",") if name.strip()]
    missing = next((name for name in chosen if name not in columns), None)
    if missing is not None:
        raise ValueError(f"{place}: has no column {missing!r}; it has {_described(columns)}")
    left = {name: columns[name] for name in chosen} or {name: column for name, column in columns.items() if name != label}
    for kind in ("image", "array"):
        found = [name for name, column in left.items() if column.kind == kind]
        if len(found) > 1 and not chosen:
            known = [name for one in _SAMPLES for name in found if name.lower() == one]
            if not known:
                raise ValueError(f"{place}: has {len(found)} columns of {kind}s, {_few(found)}; name one, --config.data.array=NAME")
            found = known[:1]
        if len(found) == 1:
            return kind, found
    found = [name for name, column in left.items() if column.kind == "number" and (chosen or not _numbers_rows(name))]
    if not found or (chosen and len(found) < len(chosen)):
        raise ValueError(f"{place}: no column of images, arrays or numbers; it has {_described(columns)}")
    return "number", found


def _numbers_rows(name: str) -> bool:
    return name.lower() in ROW_NUMBERS or name.startswith(("Unnamed: ", "__index_level_"))


def _rows(source: Source, kind: str, samples: list[str], settings: Settings, progress: Progress | None) -> tuple[Any, Any]:
    """The rows, and how they are scaled."""
    table = source.table
    if kind == "image":
        encoded = _encoded(source, samples[0])
        rows = image_rows(encoded, settings.resolution, settings.cache_dir, source.name, progress)
    elif kind == "array":
        rows = ArrayColumn(table, samples[0], source.place)
    else:
        rows = np.stack([table.column(name).to_numpy(zero_copy_only=False) for name in samples], axis=1)
    return rows, array_scaling(settings.normalize, settings.multiplier, rows.dtype)


def _encoded(source: Source, name: str) -> Encoded:
    pa, table = arrow(), source.table

    def fetch(index: np.ndarray) -> tuple[list[bytes], None]:
        found = table.take(name, index)
        found = found.field("bytes") if pa.types.is_struct(found.type) else found
        if found.null_count:
            row = int(index[int(np.argmax(found.is_null().to_numpy(zero_copy_only=False)))])
            raise ValueError(
                f"{source.place}: row {row} has no bytes of its image in the column {name!r}, only a file's name, which is not followed; "
                "save the data set with its images in it (save_to_disk and to_parquet do so)"
            )
        return found.to_pylist(), None

    def named(i: int) -> str:
        return f"{source.place}: row {i}, column {name!r}"

    return Encoded(fetch, table.n, named, {"table": source.stamp, "column": name, "split": source.provenance.get("split", "")})


def _labels(place: str, table: Table, column: _Column, name: str) -> Labels:
    """The labels in a column."""
    held = table.column(name)
    origin = f"{place}, column {name!r}"
    values = ArrayColumn(table, name, place)[np.arange(table.n)] if column.kind == "array" else np.array(held.to_pylist())
    if column.class_names is not None:
        if (values == -1).all():
            return Labels(None, None, f"column {name}: all are -1, which is none")
        if values.min() < 0 or values.max() >= len(column.class_names):
            wrong = int(np.argmax((values < 0) | (values >= len(column.class_names))))
            raise ValueError(
                f"{origin}: row {wrong} has label {values[wrong]}, expected 0 to {len(column.class_names) - 1}; to read the samples alone "
                f"set {NAME_IT}=none"
            )
        return Labels(values, column.class_names, f"column {name}: whole numbers, as they are, with Hugging Face's names of the classes")
    try:
        return labels_of_values(values, table.n, origin, f"column {name}")
    except ValueError as error:
        raise ValueError(f"{error}; to read the samples alone set {NAME_IT}=none") from error


class ArrayColumn:
    """A column of arrays of one shape as rows; as `flowjax.data.dataset.Rows`.

    Raises:
      ValueError: when read: rows of several shapes, values that are missing.
    """

    def __init__(self, table: Table, name: str, place: str):
        self._table, self._name, self._place = table, name, place
        values, self._row_shape = self._flat(np.arange(1))
        declared = getattr(table.schema.field(name).type, "shape", None)  # of Hugging Face's and Arrow's own arrays of fixed shape
        if declared is not None and all(declared) and int(np.prod(declared)) == values.size:
            self._row_shape = tuple(declared)
        self.shape, self.dtype = (table.n, *self._row_shape), values.dtype

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        if not len(index):
            return np.empty((0, *self._row_shape), self.dtype)
        values, shape = self._flat(index)
        if int(np.prod(shape)) * len(index) != values.size or int(np.prod(shape)) != int(np.prod(self._row_shape)):
            raise self._uneven(shape)
        return values.reshape(len(index), *self._row_shape)

    def _flat(self, index: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
        """The values of some rows, one after the other, and the shape of each."""
        pa = arrow()
        held = self._table.take(self._name, index)
        shape: list[Any] = []
        while not pa.types.is_primitive(held.type):
            lengths = pa.compute.list_value_length(held)
            least_most = pa.compute.min_max(lengths).as_py()
            if least_most["min"] != least_most["max"] or held.null_count:
                raise self._uneven((*shape, f"{least_most['min']} to {least_most['max']}"))
            shape.append(least_most["max"])
            held = held.flatten()
        if held.null_count:
            raise ValueError(f"{self._place}: values are missing in the column {self._name!r}")
        return held.to_numpy(zero_copy_only=False), tuple(shape)

    def _uneven(self, shape: Sequence[Any]) -> ValueError:
        return ValueError(f"{self._place}: rows of several shapes in the column {self._name!r}: {tuple(shape)}; expected one")


def _described(columns: dict[str, _Column]) -> str:
    return _few([f"{name} {column.described}" for name, column in columns.items()])


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + f", ... ({len(names)} in all)" * (len(names) > 8)
