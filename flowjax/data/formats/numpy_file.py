"""NumPy's `.npy` and `.npz` files. Nothing is ever unpickled, and headers are read by a parser of our own.

NumPy reads headers by `ast.literal_eval`. In CPython 3.11 two threads that do so at once can fail with `SystemError: AST constructor
recursion depth mismatch` (https://github.com/python/cpython/issues/106905), and latents with one file per sample are read by several.
"""

import io
import math
import pathlib
import re
import zipfile
import zlib
from typing import Literal, cast

import numpy as np

from flowjax.data.formats.file_kind import kind_of

_MAPPED_FROM = 2**26  # bytes; a larger .npy stays on disk until it is read
_MAGIC = b"\x93NUMPY"
_LENGTHS = {1: 2, 2: 4, 3: 4}  # bytes that hold the length of the header, by the format's major version
_LONGEST_HEADER = 10_000  # bytes, NumPy's own limit
# A header is a dictionary of three entries, as Python writes it: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
_SHAPE = r"\s*(?:(?:\d+L?\s*,\s*)+(?:\d+L?\s*)?)?"  # of a tuple: no number, or one and a comma, or several; Python 2 wrote 3L
_ENTRY = re.compile(
    rf"""\s*(['"])(?P<key>\w+)\1\s*:\s*(?:(['"])(?P<text>[^'"]*)\3|(?P<truth>True|False)|\((?P<shape>{_SHAPE})\))\s*(?:,|$)"""
)
_PLAIN = re.compile(r"[<>|=]?[a-zA-Z?]\d*(\[\w+\])?")  # a dtype that is no record of several
# Errors that zipfile raises for a file that is cut short, damaged or encrypted; MemoryError: of a header that describes more than fits.
_UNREADABLE = (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, MemoryError)


def read_numpy(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name; that of a `.npy`, memory-mapped if it is large, is called "". Other members of a `.npz` are left out.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a file that is empty, cut short, damaged, pickled or not of NumPy's.

    Source: the format's description, https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; give the path of a .npy, .npz or .safetensors file, relative to {pathlib.Path.cwd()}"
        )
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")
    with open(path, "rb") as file:
        try:
            return _arrays(file, path)
        except _UNREADABLE as error:
            told = str(error).splitlines()[0] if str(error) else type(error).__name__
            reason = told if isinstance(error, ValueError) else f"it is cut short or damaged ({told})"
            raise ValueError(f"{path}: not readable: {reason}; write plain numbers with numpy.save") from error


def array_of(content: bytes) -> np.ndarray:
    """The array of a whole `.npy` in memory.

    Raises:
      ValueError: bytes that are none, are cut short, or hold pickled objects.
    """
    try:
        return _array(io.BytesIO(content), len(content))
    except MemoryError as error:
        raise ValueError("it is damaged: its header describes more than fits into memory") from error


def _arrays(file: io.BufferedIOBase, path: pathlib.Path) -> dict[str, np.ndarray]:
    begin = file.read(64)
    if begin.startswith(_MAGIC):
        file.seek(0)
        return {"": _array(file, path.stat().st_size, path)}
    if not zipfile.is_zipfile(file):
        kind = kind_of(begin)
        raise ValueError(f"it is no NumPy file but {kind}" + ", and nothing is unpickled here" * ("pickle" in kind))
    with zipfile.ZipFile(file) as archive:
        members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
        return {member.filename.removesuffix(".npy"): _member(archive, member) for member in members}


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        return _array(cast(io.BufferedIOBase, file), member.file_size)


def _array(file: io.BufferedIOBase, size: int, path: pathlib.Path | None = None) -> np.ndarray:
    """The array of a `.npy` of `size` bytes; mapped if it is large and lies at `path`."""
    shape, order, dtype, offset = _header(file)
    count = math.prod(shape)
    if size - offset < count * dtype.itemsize:
        raise ValueError(f"it is cut short: it has {size:,} bytes where its header describes {offset + count * dtype.itemsize:,}")
    if path is not None and count and dtype.itemsize and size >= _MAPPED_FROM:
        return np.memmap(path, dtype, "r", offset, shape, order)
    values = np.empty(count, dtype)
    left = values.view(np.uint8).data if values.nbytes else memoryview(b"")
    while left:
        read = file.readinto(left)
        if not read:
            raise ValueError("it is cut short")
        left = left[read:]
    file.read(1)  # at its end a member of a .npz is held to its checksum
    return values.reshape(shape, order=order)


def _header(file: io.BufferedIOBase) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype, int]:
    """Shape, order ("C" or "F") and dtype of a `.npy`, and where its values begin."""
    begin = file.read(len(_MAGIC) + 2)
    if len(begin) < len(_MAGIC) + 2 or not begin.startswith(_MAGIC) or begin[-2] not in _LENGTHS:
        raise ValueError("it is cut short or damaged: its first bytes are not those of a .npy file")
    width = _LENGTHS[begin[-2]]
    length = int.from_bytes(file.read(width), "little")
    text = file.read(min(length, _LONGEST_HEADER + 1))
    if len(text) < length:
        raise ValueError("it is cut short or damaged: its header does not end")
    entries = _entries(text.decode("latin1"))
    shape = tuple(map(int, re.findall(r"\d+", entries["shape"])))
    kind = entries["text"]
    if kind.lstrip("<>|=").startswith("O"):
        raise ValueError("it holds pickled Python objects, and nothing is unpickled here")
    if not _PLAIN.fullmatch(kind):
        raise ValueError(f"its dtype {kind!r} is not one of plain numbers")
    try:
        return shape, "F" if entries["truth"] == "True" else "C", np.dtype(kind), len(begin) + width + length
    except TypeError as error:
        raise ValueError(f"its dtype {kind!r} is not known") from error


def _entries(header: str) -> dict[str, str]:
    """The text of the three entries of a header by their kinds: `text` of the dtype, `truth` of Fortran's order, `shape`."""
    found: dict[str, str] = {}
    inner = header.strip()
    body = inner[1:-1].rstrip() if inner.startswith("{") and inner.endswith("}") else ""
    kinds = {"descr": "text", "fortran_order": "truth", "shape": "shape"}
    if re.search(r"""['"]descr['"]\s*:\s*\[""", body):
        raise ValueError("it holds records of several fields, expected plain numbers")
    position = 0
    while position < len(body):
        match = _ENTRY.match(body, position)
        kind = kinds.pop(match["key"], None) if match else None
        if match is None or kind is None or match[kind] is None:
            break
        found[kind], position = match[kind], match.end()
    if len(found) != 3 or position < len(body):
        raise ValueError(f"it is damaged: its header is {header.strip()[:80]!r}")
    return found
