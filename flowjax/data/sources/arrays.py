"""The user's own arrays, from `.npy`, `.npz`, `.safetensors` and `.pt` files."""

import os
import pathlib
from typing import NamedTuple

import ml_dtypes
import numpy as np

from flowjax.data.formats.numpy_file import read_numpy
from flowjax.data.formats.safetensors_file import read_safetensors
from flowjax.data.formats.torch_file import read_torch_arrays
from flowjax.data.labels import LABEL_NAMES, NAME_IT, TEXT_SUFFIXES, as_labels, read_text_labels
from flowjax.data.normalization import array_scaling
from flowjax.data.records import Records

DATA_NAMES = ("data", "images", "image", "imgs", "latents", "samples", "x", "x_train", "train_images", "train_data", "arr_0")
"""Names of the samples in a file of several arrays; the first one present is taken."""
_LABELS_OF = {"images": "labels", "image": "label", "imgs": "labels", "data": "labels", "x": "y"}  # part by part: x_train has y_train
_NUMBERED = "arr_1"  # the second array of numpy.savez: ADM's labels, or anything


def records(
    path: str | os.PathLike,
    labels: str | os.PathLike | None = None,
    normalize: str = "auto",
    multiplier: float = 0.0,
    array: str = "",
    label_array: str = "",
) -> Records:
    """Samples `[N, *shape]`, and labels `[N]` if there are any.

    Nothing is ever unpickled: a file that holds Python objects is refused. Large `.npy` and all `.safetensors` files are memory-mapped.

    Args:
      path: `.npy`, or `.npz`, `.safetensors` or `.pt` whose samples stand under the first of `DATA_NAMES` that it has, or its only array.
        Images keep their layout: `[H, W]`, `[H, W, C]` or any other.
      labels: a file with whole numbers from 0, one-hot rows or names (`flowjax.data.labels.as_labels`): `.npy`, `.npz` or `.safetensors`,
        `.txt`, `.csv` or `.tsv`. None takes them from `path`, if that has any: `y_train` beside `x_train`, `arr_1` beside `arr_0` if it
        fits, or one of `labels.LABEL_NAMES`.
      normalize, multiplier: as `flowjax.data.normalization.array_scaling`; 0.18215 is the multiplier of latents of SD-VAE.
      array, label_array: the names of the samples and of the labels in a file of several arrays, or of the labels' column in a CSV
        file; "": as above. label_array="none": no labels.

    Arrays that were not read stand in `provenance["not_read"]`.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a file that is empty, cut short, pickled or of another format; no array under a known name; values that are
        no real numbers; labels that do not fit.
    """
    if labels and label_array == "none":
        raise ValueError(f"labels={labels}, label_array='none': set one of them")
    path = pathlib.Path(path).expanduser()
    held = _read(path)
    name = _name_of(path, held, array, DATA_NAMES, "array")
    samples = held[name]
    found = _labels(path, held, name, labels, label_array)
    unread = set(held) - {name, found.array}
    if samples.dtype.kind not in "buif" and samples.dtype != ml_dtypes.bfloat16:
        raise ValueError(f"{path}: the values are {samples.dtype}, expected real numbers")
    scaling, value_range = array_scaling(normalize, multiplier, samples.dtype)
    return Records(
        name=path.stem,
        rows=samples,
        labels=found.labels,
        class_names=found.class_names,
        normalization=scaling,
        value_range=value_range,
        provenance={
            "source": "arrays",
            "path": str(path),
            "labels": None if found.path is None else str(found.path),
            "dtype": str(samples.dtype),
            **({"not_read": _described(held, sorted(unread))} if unread else {}),
        },
    )


class _Labels(NamedTuple):
    """The labels of samples, and their origin: a file, or an array in the samples' own file."""

    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    path: pathlib.Path | None = None
    array: str | None = None


def _labels(path: pathlib.Path, held: dict[str, np.ndarray], name: str, labels: str | os.PathLike | None, label_array: str) -> _Labels:
    samples = held[name]
    if label_array == "none" or not samples.shape:
        return _Labels()
    if labels:
        apart = pathlib.Path(labels).expanduser()
        return _Labels(*_labels_in(apart, name, len(samples), label_array), apart)
    beside = _beside(held, name, len(samples), label_array, path)
    if beside is None:
        return _Labels()
    return _Labels(*_fitting(held[beside], len(samples), f"{path}, array {beside!r}"), path, beside)


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    match path.suffix.lower():
        case ".safetensors":
            return read_safetensors(path)
        case ".pt" | ".pth":
            return read_torch_arrays(path)
        case _:
            return read_numpy(path)


def _described(held: dict[str, np.ndarray], names: list[str]) -> str:
    return ", ".join(f"{name} {held[name].dtype} {list(held[name].shape)}" for name in names)


def _name_of(path: pathlib.Path, held: dict[str, np.ndarray], wanted: str, known: tuple[str, ...], setting: str) -> str:
    """The array called `wanted`, or else the only one, or the first with a known name."""
    if wanted in held:
        return wanted
    there = _described(held, list(held)) or "(none)"
    if wanted:
        raise ValueError(f"{path}: holds no array {wanted!r}; it has {there}")
    found = next(iter(held)) if len(held) == 1 else _first(held, known)
    if found is None:
        raise ValueError(
            f"{path}: holds the arrays {there}, of which none is called {', '.join(known)}; name one, --config.data.{setting}=NAME"
        )
    return found


def _first(held: dict[str, np.ndarray], known: tuple[str, ...]) -> str | None:
    """The array with the first of some names, in capitals or not."""
    return next((name for one in known for name in held if name.lower() == one), None)


def _label_names(data: str) -> tuple[str, ...]:
    """Names of the labels that belong to samples of some name: `y_train` to `x_train`, `labels` to `images`, or labels in general."""
    own = "_".join(_LABELS_OF.get(part, part) for part in data.lower().split("_"))
    return (*([own] if own != data.lower() else []), *LABEL_NAMES)


def _beside(held: dict[str, np.ndarray], data: str, n: int, wanted: str, path: pathlib.Path) -> str | None:
    """The name of the labels that stand beside samples."""
    if wanted:
        return _name_of(path, held, wanted, (), "label_array")
    others = {name: values for name, values in held.items() if name != data}
    found = _first(others, _label_names(data))
    if found is None and data == "arr_0" and _NUMBERED in others:
        try:
            as_labels(others[_NUMBERED], n, "")
        except ValueError:
            return None
        return _NUMBERED
    return found


def _labels_in(path: pathlib.Path, data: str, n: int, wanted: str) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """The labels in a file of their own."""
    if path.suffix.lower() in TEXT_SUFFIXES:
        return as_labels(read_text_labels(path, n, wanted), n, str(path))
    held = _read(path)
    return as_labels(held[_name_of(path, held, wanted, _label_names(data), "label_array")], n, str(path))


def _fitting(values: np.ndarray, n: int, origin: str) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """`as_labels` of an array that was found beside the samples."""
    try:
        return as_labels(values, n, origin)
    except ValueError as error:
        raise ValueError(f"{error}; to read the samples alone set {NAME_IT}=none") from error
