"""The user's own arrays, from `.npy`, `.npz`, `.safetensors` and `.pt` files."""

import os
import pathlib
from typing import NamedTuple

import ml_dtypes
import numpy as np

from flowjax.data.labels import LABEL_NAMES, NAME_IT, as_labels
from flowjax.data.normalization import array_scaling
from flowjax.data.records import Records, said
from flowjax.data.sources.labels_file import Labels, chosen_array, described, first_called, labels_in_file, labels_of_values, read_arrays

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
    held = read_arrays(path)
    name = chosen_array(path, held, array, DATA_NAMES, "array")
    samples = held[name]
    found = _labels(path, held, name, labels, label_array)
    unread = set(held) - {name, found.array}
    if samples.dtype.kind not in "buif" and samples.dtype != ml_dtypes.bfloat16:
        raise ValueError(f"{path}: the values are {samples.dtype}, expected real numbers")
    scaling, value_range = array_scaling(normalize, multiplier, samples.dtype)
    return Records(
        name=path.stem,
        rows=samples,
        labels=found.held.labels,
        class_names=found.held.class_names,
        normalization=scaling,
        value_range=value_range,
        provenance={
            "source": "arrays",
            "path": str(path),
            "labels": None if found.path is None else str(found.path),
            "dtype": str(samples.dtype),
            **said(label_mapping=found.held.mapping, not_read=described(held, sorted(unread))),
        },
    )


class _Found(NamedTuple):
    """The labels of samples, and their origin: a file, or an array in the samples' own file."""

    held: Labels = Labels()
    path: pathlib.Path | None = None
    array: str | None = None


def _labels(path: pathlib.Path, held: dict[str, np.ndarray], name: str, labels: str | os.PathLike | None, label_array: str) -> _Found:
    samples = held[name]
    if label_array == "none" or not samples.shape:
        return _Found()
    if labels:
        apart = pathlib.Path(labels).expanduser()
        return _Found(labels_in_file(apart, len(samples), label_array, known=_label_names(name)), apart)
    beside = _beside(held, name, len(samples), label_array, path)
    if beside is None:
        return _Found()
    try:
        found = labels_of_values(held[beside], len(samples), f"{path}, array {beside!r}", f"array {beside}")
    except ValueError as error:
        raise ValueError(f"{error}; to read the samples alone set {NAME_IT}=none") from error
    return _Found(found, path, beside)


def _label_names(data: str) -> tuple[str, ...]:
    """Names of the labels that belong to samples of some name: `y_train` to `x_train`, `labels` to `images`, or labels in general."""
    own = "_".join(_LABELS_OF.get(part, part) for part in data.lower().split("_"))
    return (*([own] if own != data.lower() else []), *LABEL_NAMES)


def _beside(held: dict[str, np.ndarray], data: str, n: int, wanted: str, path: pathlib.Path) -> str | None:
    """The name of the labels that stand beside samples."""
    if wanted:
        return chosen_array(path, held, wanted, (), "label_array")
    others = {name: values for name, values in held.items() if name != data}
    found = first_called(others, _label_names(data))
    if found is None and data == "arr_0" and _NUMBERED in others:
        try:
            as_labels(others[_NUMBERED], n, "")
        except ValueError:
            return None
        return _NUMBERED
    return found
