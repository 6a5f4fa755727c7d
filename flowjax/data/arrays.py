"""The user's own arrays, from `.npy` and `.npz` files."""

import os
import pathlib
import zipfile
import zlib

import numpy as np

from flowjax.data.record import DataSet

DATA_KEYS = ("data", "images", "latents", "x", "arr_0")
LABEL_KEYS = ("labels", "y")
# What NumPy and zipfile raise for a file that is cut short, damaged, or something else altogether.
_UNREADABLE = (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, MemoryError, SyntaxError)


def load(path: str | os.PathLike, labels: str | os.PathLike | None = None, normalize: str = "auto") -> DataSet:
    """Reads samples `[N, *shape]`, and labels `[N]` if there are any.

    Nothing is ever unpickled: a file that holds Python objects is refused.

    Args:
      path: `.npy`, or `.npz` whose samples stand under the first of `DATA_KEYS` that it has, or in its only array. Images
        keep their layout: `[H, W]`, `[H, W, C]` or any other.
      labels: `.npy` or `.npz` with whole numbers from 0, the latter under `LABEL_KEYS` or in its only array. None takes them
        from `path`, if that is an `.npz` that has them under `LABEL_KEYS`.
      normalize: "auto" scales uint8 by `x / 127.5 - 1` to [-1, 1] and leaves other types as they are; "none" leaves all as
        they are. Either way the samples are kept as float32.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a file that is empty, cut short, pickled or not of NumPy's; no array under a known key; values that are no
        real numbers, or not finite; labels that do not fit.
    """
    if normalize not in ("auto", "none"):
        raise ValueError(f'normalize={normalize!r}: expected "auto" or "none"')
    path = pathlib.Path(path).expanduser()
    label_path = pathlib.Path(labels).expanduser() if labels else path
    samples, beside = _read(path, DATA_KEYS)
    found = _read(label_path, LABEL_KEYS)[0] if labels else beside
    if samples.dtype.kind not in "buif":
        raise ValueError(f"{path}: the values are {samples.dtype}, expected real numbers")
    scaled = normalize == "auto" and samples.dtype == np.uint8
    with np.errstate(over="ignore"):  # DataSet says where a value is too large for float32
        data = samples.astype(np.float32, copy=False)
    return DataSet(
        name=path.stem,
        data=data / np.float32(127.5) - np.float32(1) if scaled else data,
        labels=found,
        value_range=(-1.0, 1.0) if scaled else None,
        provenance={
            "source": "arrays",
            "path": str(path),
            "labels": None if found is None else str(label_path),
            "dtype": str(samples.dtype),
            "scaling": "x / 127.5 - 1" if scaled else "none",
        },
    )


def _read(path: pathlib.Path, keys: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray | None]:
    """The array under the first of `keys`, or the only one that there is; and the labels that stand beside it in an `.npz`."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give the path of a .npy or .npz file, relative to {pathlib.Path.cwd()}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")
    try:
        with open(path, "rb") as file:  # opened here, so that it is closed whatever NumPy makes of it
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded, None
            names = loaded.files
            key = names[0] if len(names) == 1 else next((key for key in keys if key in names), None)
            beside = next((name for name in LABEL_KEYS if name in names and name != key), None)
            if key is not None:
                return loaded[key], None if beside is None else loaded[beside]
    except _UNREADABLE as error:
        if "pickle" in str(error):
            reason = "it holds pickled Python objects or is no NumPy file, and nothing is unpickled here"
        else:
            reason = f"it is cut short or damaged ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        raise ValueError(f"{path}: not readable: {reason}; write plain numbers with numpy.save") from error
    raise ValueError(f"{path}: holds the arrays {', '.join(names) or '(none)'}; expected one called {', '.join(keys)}")
