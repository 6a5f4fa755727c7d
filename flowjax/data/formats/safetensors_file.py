"""`.safetensors` files, memory-mapped: an array costs nothing until its rows are read.

The safetensors library reads whole tensors or slices; shuffled training reads single rows from everywhere, which NumPy does on a map.
"""

import json
import math
import os
import pathlib

import ml_dtypes
import numpy as np

_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_METADATA = "__metadata__"
_LONGEST_HEADER = 100_000_000  # bytes, the format's own limit


def read_safetensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a file by name, read-only and memory-mapped.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a file that is cut short, damaged or of another format, or a type that is not known here.

    Source: the format's description, https://github.com/huggingface/safetensors
    """
    path = pathlib.Path(path).expanduser()
    header, begin = _header(path)
    try:
        entries = {name: _entry(entry) for name, entry in header.items() if name != _METADATA}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not read: its header is damaged ({str(error).splitlines()[0]})") from error
    size = path.stat().st_size
    expected = begin + max((end for *_, end in entries.values()), default=0)
    if size != expected:
        state = "cut short" if size < expected else "too long"
        raise ValueError(f"{path}: not read: it is {state}, {size:,} bytes where its header describes {expected:,}; copy or write it again")
    if size == begin:
        return {name: np.zeros(shape, dtype) for name, (dtype, shape, *_) in entries.items()}
    data = np.memmap(path, np.uint8, "r", begin)
    return {name: data[start:end].view(np.ndarray).view(dtype).reshape(shape) for name, (dtype, shape, start, end) in entries.items()}


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """The metadata of a file, text by name; most files have none.

    Raises:
      FileNotFoundError, ValueError: as `read_safetensors`.
    """
    found = _header(pathlib.Path(path).expanduser())[0].get(_METADATA, {})
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _header(path: pathlib.Path) -> tuple[dict, int]:
    """The header of a file, and where its arrays begin."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a .safetensors file")
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(size - 8, _LONGEST_HEADER):
            raise ValueError(f"{path}: not read: {'the file is empty' if not size else 'it is no .safetensors file, or cut short'}")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: not read: its header is damaged ({str(error).splitlines()[0]})") from error
    if not isinstance(header, dict):
        raise ValueError(f"{path}: not read: its header is damaged (it is no JSON object)")
    return header, 8 + length


def _entry(entry: dict) -> tuple[np.dtype, tuple[int, ...], int, int]:
    """Type, shape and place of one array in the data."""
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"the type {entry['dtype']!r} is not known here")
    dtype, shape, (start, end) = _DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
    if not all(isinstance(n, int) and n >= 0 for n in (*shape, start, end)) or end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"a {entry['dtype']} array of shape {shape} does not take the bytes {start} to {end}")
    return dtype, shape, start, end
