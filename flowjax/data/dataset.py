"""The record of a data set: its samples, its labels, and where they came from."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import ml_dtypes
import numpy as np

MOST_UNUSED = 2**17  # classes of a model, whether their labels occur or not


@runtime_checkable
class Rows(Protocol):
    """Samples that can be read some at a time: a NumPy array, a memory map, shards on disk.

    Attributes:
      shape: `[N, *shape]`.
      dtype: as stored.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __getitem__(self, index: np.ndarray, /) -> np.ndarray:
        """The rows `index` `[M]` (integers, any order, repeats allowed) as an array `[M, *shape]` of its own."""


class SampleSet:
    """Sizes and labels of N samples, whether they are in memory or on disk."""

    name: str
    labels: np.ndarray | None
    class_names: tuple[str, ...] | None

    def _kept(self) -> Rows:
        """The samples as they are kept, `[N, *shape]`."""
        raise NotImplementedError

    @property
    def n(self) -> int:
        """N, the number of samples."""
        return self._kept().shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self._kept().shape[1:])

    @property
    def d(self) -> int:
        """D, the number of values in one sample."""
        return int(np.prod(self.shape))

    @property
    def num_classes(self) -> int | None:
        """One more than the greatest label (or the number of class names); None without labels."""
        if self.labels is None:
            return None
        return len(self.class_names) if self.class_names is not None else int(self.labels.max()) + 1

    def num_embedded(self) -> int:
        """How many classes a model tells apart that holds values for each number from 0 to `num_classes` - 1; 0 without labels.

        Raises:
          ValueError: most of so many numbers are no label of a sample.
        """
        most, there = self.num_classes or 0, 0 if self.labels is None else len(np.unique(self.labels))
        if most > max(MOST_UNUSED, 10 * there):
            raise ValueError(
                f"{self.name}: labels reach {most - 1:,}, and {there:,} occur; a model holds values for each number below: number the "
                "classes from 0 (numpy.unique(labels, return_inverse=True)[1])"
            )
        return most


@dataclasses.dataclass(frozen=True, eq=False)
class DataSet(SampleSet):
    """A finite set of samples x_1^(i), i = 1..N, held in memory.

    Attributes:
      name: for titles.
      data: `[N, *shape]` float32 or bfloat16, finite, N >= 1 and D = Π shape >= 1.
      labels: `[N]` int32 >= 0, or None. Any integer dtype is taken and kept as int32.
      class_names: one for each label 0..num_classes - 1, or None.
      value_range: (low, high) that the values lie in, for showing them; None takes the least and the greatest value.
      provenance: plain JSON values that say where the data came from (`source`, `path`, `scaling`, ...). `sha256`, the
        fingerprint of `data` as little-endian float32 in C order, and `duplicates`, the number of samples that repeat an
        earlier one exactly, are added here, so that they always describe this very array.

    Raises:
      ValueError: if any of this does not hold; it names the count and the first place of values that are not finite.
    """

    name: str
    data: np.ndarray  # shapes and types are checked below, where what is wrong can be named
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    value_range: tuple[float, float] | None = None
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_data(self.name, self.data)
        low, high = float(self.data.min()), float(self.data.max())
        if self.value_range is None:
            object.__setattr__(self, "value_range", (low, high))
        elif not self.value_range[0] <= low <= high <= self.value_range[1]:
            raise ValueError(f"{self.name}: the values span [{low:g}, {high:g}], outside of value_range={self.value_range}")
        object.__setattr__(self, "labels", checked_labels(self.name, self.labels, len(self.data), self.class_names))
        sha256, duplicates = _fingerprint(self.data)
        object.__setattr__(self, "provenance", {**self.provenance, "sha256": sha256, "duplicates": duplicates})

    def _kept(self) -> Rows:
        return self.data

    @property
    def digest(self) -> str:
        """SHA-256 of all rows' digests, in their order: that of a `DistributedDataSet` of the same samples, over however many processes."""
        return digest_of(row_digests(self.data))

    def split(self, heldout_fraction: float, seed: int) -> tuple["DataSet", "DataSet"]:
        """Splits into (train, heldout), the same for the same seed; samples keep their order.

        Each class gives its share, rounded to the nearest whole number, and keeps at least one sample for training: an
        oracle by class built on `train` can then be asked about every held-out label.

        Raises:
          ValueError: `heldout_fraction` outside (0, 1), or so small that nothing would be held out.
        """
        heldout = heldout_rows(self.name, self.n, self.labels, heldout_fraction, seed)
        return self._part("train", ~heldout, heldout_fraction, seed), self._part("heldout", heldout, heldout_fraction, seed)

    def _part(self, part: str, rows: np.ndarray, heldout_fraction: float, seed: int) -> "DataSet":
        return dataclasses.replace(
            self,
            data=self.data[rows],
            labels=None if self.labels is None else self.labels[rows],
            provenance={**self.provenance, "split": part, "heldout_fraction": heldout_fraction, "split_seed": seed},
        )


def _check_data(name: str, data: np.ndarray) -> None:
    if data.dtype not in (np.float32, ml_dtypes.bfloat16):
        raise ValueError(f"{name}: data are {data.dtype}, expected float32 or bfloat16")
    if data.ndim < 2 or data.size == 0:
        raise ValueError(f"{name}: data have shape {data.shape}, expected [N, *shape] with at least one sample of at least one value")
    step = max(1, 2**26 // (data.size // len(data)))
    for start in range(0, len(data), step):  # in blocks, so that no mask is as large as the data
        finite = np.isfinite(data[start : start + step])
        if not finite.all():
            first = tuple(int(i) for i in np.unravel_index(np.argmin(finite), finite.shape))
            count = sum(data[s : s + step].size - np.count_nonzero(np.isfinite(data[s : s + step])) for s in range(start, len(data), step))
            raise ValueError(
                f"{name}: {count} values are NaN or infinite (in float32), the first at index {(start + first[0], *first[1:])}"
            )


def checked_labels(name: str, labels: np.ndarray | None, n: int, class_names: tuple[str, ...] | None) -> np.ndarray | None:
    """The labels of `n` samples as int32, or None; a ValueError that begins with `name` says what does not fit."""
    if labels is not None:
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"{name}: labels are {labels.dtype}, expected whole numbers of an integer dtype")
        if labels.shape != (n,):
            raise ValueError(f"{name}: labels have shape {labels.shape}, expected ({n},), one for each sample")
        if labels.min() < 0 or labels.max() >= np.iinfo(np.int32).max:  # num_classes is an int32 too
            raise ValueError(
                f"{name}: labels span [{labels.min()}, {labels.max()}], expected 0 to {np.iinfo(np.int32).max - 1}; number classes from 0 "
                "(numpy.unique(labels, return_inverse=True)[1])"
            )
        labels = labels.astype(np.int32, copy=False)
    if class_names is not None and (labels is None or len(class_names) <= labels.max()):
        most = "none" if labels is None else int(labels.max())
        raise ValueError(f"{name}: {len(class_names)} class_names do not fit the labels (the greatest is {most})")
    return labels


def heldout_rows(name: str, n: int, labels: np.ndarray | None, heldout_fraction: float, seed: int) -> np.ndarray:
    """Which of n samples `DataSet.split` holds out, `[n]` bool; it raises this function's errors, which begin with `name`."""
    if not 0 < heldout_fraction < 1:
        raise ValueError(f"heldout_fraction={heldout_fraction}: give a share between 0 and 1, neither included")
    rng = np.random.default_rng(seed)
    heldout = np.zeros(n, bool)
    groups = np.zeros(n, np.int32) if labels is None else labels
    for group in np.unique(groups):
        members = rng.permutation(np.flatnonzero(groups == group))
        heldout[members[: min(round(heldout_fraction * len(members)), len(members) - 1)]] = True
    if not heldout.any():
        raise ValueError(f"heldout_fraction={heldout_fraction} holds out none of the {n} samples of {name}: give a larger one")
    return heldout


def row_digests(data: np.ndarray) -> np.ndarray:
    """`[N]` of 16 bytes each: equal for equal rows, -0.0 being 0.0."""
    return np.array([_digest(np.ascontiguousarray(row, "<f4")) for row in data], "V16")


def digest_of(rows: np.ndarray) -> str:
    """See `DataSet.digest`."""
    return hashlib.sha256(rows.tobytes()).hexdigest()


def _digest(values: np.ndarray) -> bytes:
    return hashlib.blake2b((values + 0).tobytes(), digest_size=16).digest()  # + 0: -0.0 equals 0.0, and its bytes do not


def _fingerprint(data: np.ndarray) -> tuple[str, int]:
    """SHA-256 of the array in hexadecimal, and how many rows repeat an earlier one."""
    whole, rows = hashlib.sha256(), set()
    for row in data:
        values = np.ascontiguousarray(row, "<f4")
        whole.update(values.tobytes())
        rows.add(_digest(values))
    return whole.hexdigest(), len(data) - len(rows)
