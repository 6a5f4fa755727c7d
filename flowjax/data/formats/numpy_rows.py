"""One `.npy` for each sample, as rows that are read when they are asked for."""

from collections.abc import Callable

import numpy as np

from flowjax.data.formats.numpy_file import array_of


class NumpyRows:
    """The arrays of many `.npy` files, one a row; as `flowjax.data.dataset.Rows`.

    Args:
      fetch: gives the content of some files.
      n: how many there are.
      named: names a file in an error.

    Raises:
      ValueError: a file that is no `.npy`, is cut short or holds no real numbers; when read, one of another shape or dtype than the first.
    """

    def __init__(self, fetch: Callable[[np.ndarray], list[bytes]], n: int, named: Callable[[int], str]):
        self._fetch, self._named = fetch, named
        first = self._array(0, fetch(np.arange(1))[0])
        if first.dtype.kind not in "buif":
            raise ValueError(f"{named(0)}: the values are {first.dtype}, expected real numbers")
        self.shape, self.dtype = (n, *(first.shape or (1,))), first.dtype

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        out = np.empty((len(index), *self.shape[1:]), self.dtype)
        for k, content in enumerate(self._fetch(index)):
            found = self._array(int(index[k]), content)
            if found.dtype != self.dtype or (found.shape or (1,)) != self.shape[1:]:
                raise ValueError(
                    f"{self._named(int(index[k]))}: {found.dtype} of shape {found.shape}, the first {self.dtype} of {self.shape[1:]}; "
                    "expected one shape and dtype"
                )
            out[k] = found
        return out

    def _array(self, i: int, content: bytes) -> np.ndarray:
        try:
            return array_of(content)
        except ValueError as error:
            raise ValueError(f"{self._named(i)}: not read: {error}") from error
