"""Rows of a file, read by position, not mapped: pages of a map count as the process's memory, and a file cut short would kill it."""

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int, Num

from flowjax.data.records import ChosenRows, Records
from flowjax.data.sources.latents import ShardedRows

BLOCK_BYTES = 2**22  # of stored values that are read and normalised at once: it stays in a cache
KEPT_DTYPES = ("float32", "bfloat16", "uint8")
"""Dtypes that the oracle reads without conversion; others become float32."""


class FlatFile:
    """`[N, *shape]` values in a file, one after the other from an offset. Indexed as `flowjax.data.dataset.Rows`."""

    def __init__(self, path: pathlib.Path, offset: int, shape: tuple[int, ...], dtype: np.dtype):
        self._path, self._offset = path, offset
        self.shape, self.dtype = shape, np.dtype(dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Int[np.ndarray, " M"] | slice) -> np.ndarray:
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        unique, inverse = np.unique(index, return_inverse=True)
        out = np.empty((len(unique), *self.shape[1:]), self.dtype)
        self.read_into(unique, out)
        return out if len(unique) == len(index) and (unique == index).all() else out[inverse]

    def read_into(self, index: Int[np.ndarray, " M"], out: np.ndarray) -> None:
        """The rows `index`, ascending, in as few reads as there are runs of them.

        Raises:
          ValueError: a file that ends before.
        """
        size = out.nbytes // max(1, len(index))
        into = out.reshape(-1).view(np.uint8).data
        with open(self._path, "rb", buffering=0) as file:
            for start, stop in runs(index):
                file.seek(self._offset + int(index[start]) * size)
                left = into[start * size : stop * size]
                while left:
                    count = file.readinto(left)
                    if not count:
                        end = self._offset + self.shape[0] * size
                        raise ValueError(
                            f"{self._path}: cut short: it ends at byte {file.tell():,} where {end:,} were; copy or write it again"
                        )
                    left = left[count:]


def runs(index: Int[np.ndarray, " M"]) -> Iterator[tuple[int, int]]:
    """First and last position of each run of consecutive numbers, in ascending numbers."""
    ends = [*np.flatnonzero(np.diff(index) != 1) + 1, len(index)] if len(index) else []
    return zip([0, *ends[:-1]], ends, strict=False)


def unmapped(rows: Any) -> Any:
    """`rows` with every memory map in it replaced by a reader of its file. Maps that may be written to copies stay what they are."""
    if isinstance(rows, ShardedRows | ChosenRows):
        return rows.over_arrays(unmapped)
    if not isinstance(rows, np.ndarray) or not rows.flags.c_contiguous:
        return rows
    base: Any = rows
    while isinstance(base.base, np.ndarray):
        base = base.base
    if not isinstance(base, np.memmap) or base.filename is None or base.mode == "c":
        return rows
    return FlatFile(pathlib.Path(base.filename), base.offset + rows.ctypes.data - base.ctypes.data, rows.shape, rows.dtype)


class RecordSource:
    """Records as `kernels.posterior.out_of_core.source.Source`: the model's values, float32, flat."""

    def __init__(self, records: Records):
        self._rows, self._normalization = unmapped(records.rows), records.normalization
        self.shape, self.dtype = (records.n, records.d), np.dtype(np.float32)

    def read(self, index: Int[np.ndarray, " M"], out: Num[np.ndarray, "M D"]) -> None:
        if self._normalization.is_identity and _same(self._rows, out):
            self._rows.read_into(index, out)
            return
        step = max(1, BLOCK_BYTES // (self.shape[1] * self._rows.dtype.itemsize))
        for start in range(0, len(index), step):
            part = slice(start, start + step)
            with np.errstate(over="ignore"):  # what overflows is found by the pass that prepares the data
                out[part] = self._normalization(self._rows[index[part]]).reshape(-1, self.shape[1])


class ArraySource:
    """An object with a shape, a dtype and slices of rows, as `kernels.posterior.out_of_core.source.Source`: a memory map, an HDF5 data set.

    Raises:
      ValueError: not such a thing; no samples, or no real numbers.
    """

    def __init__(self, array: Any):
        if not all(hasattr(array, name) for name in ("shape", "dtype", "__getitem__")):
            raise ValueError(f"source must be a path, Records or an array-like with shape, dtype and slices; got {type(array).__name__}")
        dtype, shape = np.dtype(array.dtype), tuple(array.shape)
        if (dtype.kind not in "buif" and dtype.name != "bfloat16") or len(shape) < 2 or 0 in shape:
            raise ValueError(f"source must hold real numbers [N, *shape], at least one; got {dtype} of shape {shape}")
        self._rows = unmapped(array)
        self.shape, self.dtype = (shape[0], int(np.prod(shape[1:]))), dtype if dtype.name in KEPT_DTYPES else np.dtype(np.float32)

    def read(self, index: Int[np.ndarray, " M"], out: Num[np.ndarray, "M D"]) -> None:
        if _same(self._rows, out):
            self._rows.read_into(index, out)
            return
        for start, stop in runs(index):
            found = np.asarray(self._rows[int(index[start]) : int(index[stop - 1]) + 1])
            if found.size != out[start:stop].size:
                raise ValueError(
                    f"source gave {found.shape} for rows {index[start]} to {index[stop - 1]}, {stop - start} x {self.shape[1]} expected"
                )
            with np.errstate(over="ignore"):
                out[start:stop] = found.reshape(-1, self.shape[1])


def _same(rows: Any, out: np.ndarray) -> bool:
    """Whether a file holds the rows in the dtype of `out`, byte for byte."""
    return isinstance(rows, FlatFile) and rows.dtype == out.dtype
