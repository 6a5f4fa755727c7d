"""NumPy's `.npy` and `.npz` files. Nothing is ever unpickled."""

import pathlib
import zipfile
import zlib

import numpy as np

from flowjax.data.file_kind import kind_of_file

_MAPPED_FROM = 2**26  # bytes; a larger .npy stays on disk until it is read
# What NumPy and zipfile raise for a file that is cut short, damaged, or something else altogether.
_UNREADABLE = (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, MemoryError, SyntaxError)


def read_numpy(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name; that of a `.npy`, memory-mapped if it is large, is called "".

    Raises:
      FileNotFoundError: no such file.
      ValueError: a file that is empty, cut short, damaged, pickled or not of NumPy's.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; give the path of a .npy, .npz or .safetensors file, relative to {pathlib.Path.cwd()}"
        )
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")
    try:
        with open(path, "rb") as file:  # opened here, so that it is closed whatever NumPy makes of it
            if file.read(6) == b"\x93NUMPY" and path.stat().st_size >= _MAPPED_FROM:
                return {"": np.lib.format.open_memmap(path, mode="r")}
            file.seek(0)
            loaded = np.load(file, allow_pickle=False)
            return {"": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except _UNREADABLE as error:
        kind = kind_of_file(path)
        if "Object arrays" in str(error):
            reason = "it holds pickled Python objects (dtype object), and nothing is unpickled here"
        elif "pickle" in str(error) or "Python objects" in str(error):
            reason = f"it is no NumPy file but {kind}" + ", and nothing is unpickled here" * ("pickle" in kind)
        else:
            reason = f"it is cut short or damaged ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        raise ValueError(f"{path}: not readable: {reason}; write plain numbers with numpy.save") from error
