"""The user's own arrays, from `.npy`, `.npz` and `.safetensors` files."""

import os
import pathlib

import ml_dtypes
import numpy as np

from flowjax.data.normalization import BYTES, IDENTITY, Normalization
from flowjax.data.numpy_file import read_numpy
from flowjax.data.records import Records
from flowjax.data.safetensors_file import read_safetensors

DATA_KEYS = ("data", "images", "latents", "x", "arr_0")
LABEL_KEYS = ("labels", "y")


def records(path: str | os.PathLike, labels: str | os.PathLike | None = None, normalize: str = "auto", multiplier: float = 0.0) -> Records:
    """Samples `[N, *shape]`, and labels `[N]` if there are any.

    Nothing is ever unpickled: a file that holds Python objects is refused. Large `.npy` and all `.safetensors` files are memory-mapped.

    Args:
      path: `.npy`, or `.npz` or `.safetensors` whose samples stand under the first of `DATA_KEYS` that it has, or in its only array. Images
        keep their layout: `[H, W]`, `[H, W, C]` or any other.
      labels: a file with whole numbers from 0, under `LABEL_KEYS` or in its only array. None takes them from `path`, if that
        has them under `LABEL_KEYS`.
      normalize: "auto" scales uint8 by `x / 127.5 - 1` to [-1, 1] and leaves other types as they are; "none" leaves all as
        they are.
      multiplier: of values that are not scaled otherwise, like 0.18215 of latents of SD-VAE; 0 is 1.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a file that is empty, cut short, pickled or of another format; no array under a known key; values that are no
        real numbers; labels that do not fit.
    """
    if normalize not in ("auto", "none"):
        raise ValueError(f'normalize={normalize!r}: expected "auto" or "none"')
    path = pathlib.Path(path).expanduser()
    label_path = pathlib.Path(labels).expanduser() if labels else path
    samples, beside = read_array(path, DATA_KEYS)
    found = read_array(label_path, LABEL_KEYS)[0] if labels else beside
    if samples.dtype.kind not in "buif" and samples.dtype != ml_dtypes.bfloat16:
        raise ValueError(f"{path}: the values are {samples.dtype}, expected real numbers")
    scaled = normalize == "auto" and samples.dtype == np.uint8
    scale = Normalization(multiplier=multiplier, formula=f"x * {multiplier:g}") if multiplier else IDENTITY
    return Records(
        name=path.stem,
        rows=samples,
        labels=found,
        normalization=BYTES if scaled else scale,
        value_range=(-1.0, 1.0) if scaled else None,
        provenance={
            "source": "arrays",
            "path": str(path),
            "labels": None if found is None else str(label_path),
            "dtype": str(samples.dtype),
        },
    )


def read_array(path: pathlib.Path, keys: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray | None]:
    """The array under the first of `keys`, or the only one that there is; and the labels that stand beside it.

    Raises:
      FileNotFoundError, ValueError: as `records`.
    """
    held = read_safetensors(path) if path.suffix == ".safetensors" else read_numpy(path)
    names = list(held)
    key = names[0] if len(names) == 1 else next((key for key in keys if key in names), None)
    if key is None:
        raise ValueError(f"{path}: holds the arrays {', '.join(names) or '(none)'}; expected one called {', '.join(keys)}")
    beside = next((name for name in LABEL_KEYS if name in names and name != key), None)
    return held[key], None if beside is None else held[beside]
