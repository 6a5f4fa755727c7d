"""Labels in a file of their own, beside samples of any source: in the order of the samples, or by the names of their files."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from flowjax.data.formats.numpy_file import read_numpy
from flowjax.data.formats.safetensors_file import read_safetensors
from flowjax.data.formats.torch_file import read_torch_arrays
from flowjax.data.labels import LABEL_NAMES, TEXT_SUFFIXES, as_labels, labels_by_name, mapping_in_words, read_text_labels


class Labels(NamedTuple):
    """Labels as `Records` takes them, and how they were numbered, in words; nothing where there are none."""

    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    mapping: str = ""


def labels_of_values(values: np.ndarray, n: int, origin: str, told: str = "") -> Labels:
    """`as_labels`, and how they were numbered.

    Args:
      origin: begins an error.
      told: where they are from, for the reader; "": origin.

    Raises:
      ValueError: as `as_labels`.
    """
    labels, names = as_labels(values, n, origin)
    return Labels(labels, names, f"{told or origin}: {mapping_in_words(np.asarray(values), names)}")


def labels_of_folders(sizes: Mapping[str, int]) -> Labels:
    """The labels of samples that lie in a folder for each class, one after the other: of the folders' names and numbers of samples."""
    names = tuple(sizes)
    labels = np.repeat(np.arange(len(names), dtype=np.int32), list(sizes.values()))
    return Labels(labels, names, f"folders: {mapping_in_words(np.array(names), names)}")


def labels_in_file(
    path: str | os.PathLike, n: int, column: str = "", *, files: Sequence[str] = (), known: Sequence[str] = LABEL_NAMES
) -> Labels:
    """The labels of n samples in a file.

    Args:
      path: `.npy`, `.npz`, `.safetensors` or `.pt`, with an array of labels in the samples' order; `.txt` with one on each line; `.csv` or
        `.tsv`.
      column: the array's or the column's name, or the column's number from 0; "": the only one, or one of `known`.
      files: the names of the samples' files below their folder. A CSV file with a column of them is matched by name, whatever its order.
      known: what labels are called.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a damaged file, no such array or column, another number of labels, values that are no labels.
    """
    path = pathlib.Path(path).expanduser()
    if path.suffix.lower() in TEXT_SUFFIXES:
        by_name = labels_by_name(path, files, column) if files else None
        if by_name is not None:
            return labels_of_values(by_name, n, str(path), f"{path.name}, by the names of the files")
        return labels_of_values(read_text_labels(path, n, column), n, str(path), path.name)
    held = read_arrays(path)
    return labels_of_values(held[chosen_array(path, held, column, known, "label_array")], n, str(path), path.name)


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays in a file, by name; "" for that of a `.npy` file. Raises as the reader of its format."""
    match path.suffix.lower():
        case ".safetensors":
            return read_safetensors(path)
        case ".pt" | ".pth":
            return read_torch_arrays(path)
        case _:
            return read_numpy(path)


def chosen_array(path: pathlib.Path, held: dict[str, np.ndarray], wanted: str, known: Sequence[str], setting: str) -> str:
    """The array called `wanted`, or else the only one, or the first with a known name.

    Raises:
      ValueError: there is none; it says how to name one by `setting`.
    """
    if wanted in held:
        return wanted
    there = described(held, list(held)) or "(none)"
    if wanted:
        raise ValueError(f"{path}: holds no array {wanted!r}; it has {there}")
    found = next(iter(held)) if len(held) == 1 else first_called(held, known)
    if found is None:
        raise ValueError(
            f"{path}: holds the arrays {there}, of which none is called {', '.join(known)}; name one, --config.data.{setting}=NAME"
        )
    return found


def first_called(held: dict[str, np.ndarray], known: Sequence[str]) -> str | None:
    """The array with the first of some names, in capitals or not."""
    return next((name for one in known for name in held if name.lower() == one), None)


def described(held: dict[str, np.ndarray], names: Sequence[str]) -> str:
    """Arrays in words: names, dtypes, shapes."""
    return ", ".join(f"{name} {held[name].dtype} {list(held[name].shape)}" for name in names)
