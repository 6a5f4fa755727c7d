"""`Records`: samples as a source stores them, read some rows at a time, with their normalisation to a model's values."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import ml_dtypes
import numpy as np
from jaxtyping import Bool, Int, Shaped

from flowjax.data.dataset import DataSet, Rows, SampleSet, checked_labels
from flowjax.data.normalization import IDENTITY, Normalization

Progress = Callable[[str], Callable[[Iterable[Any]], Iterable[Any]]]
"""Makes a progress bar of a label: a function that wraps an iterable."""

BLOCK_BYTES = 2**24  # of stored values that are read and normalised at once
KEPT_DTYPES = {"float32": np.dtype("f4"), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


@dataclasses.dataclass(frozen=True, eq=False)
class Records(SampleSet):
    """N samples as stored, which need not fit in memory.

    Attributes:
      name: for titles.
      rows: `[N, *shape]` in the dtype of the source; images are `[H, W, C]` or `[H, W]`.
      labels: `[N]` int32 >= 0, or None.
      class_names: one for each label 0..num_classes - 1, or None.
      normalization: from stored values to a model's.
      mirrored: the mirror image of each row: "by width", the row with its width reversed; or stored ones, where an encoder made them (the
        latent of a mirrored image is not the mirrored latent); None: there are none.
      value_range: (low, high) of the model's values, or None for their own.
      provenance: plain JSON values that say where the data came from.

    Raises:
      ValueError: no samples, no values, or labels or mirror images that do not fit.
    """

    name: str
    rows: Rows
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    normalization: Normalization = IDENTITY
    mirrored: Rows | Literal["by width"] | None = "by width"
    value_range: tuple[float, float] | None = None
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.rows.shape) < 2 or 0 in self.rows.shape:
            shape = tuple(self.rows.shape)
            raise ValueError(f"{self.name}: data have shape {shape}, expected [N, *shape] with at least one sample of at least one value")
        stored = None if isinstance(self.mirrored, str) else self.mirrored
        if stored is not None and stored.shape != self.rows.shape:
            raise ValueError(f"{self.name}: mirror images have shape {stored.shape}, expected that of the samples, {self.rows.shape}")
        object.__setattr__(self, "labels", checked_labels(self.name, self.labels, self.n, self.class_names))

    def _kept(self) -> Rows:
        return self.rows

    @classmethod
    def of(cls, data: DataSet) -> "Records":
        """A data set in memory as records: its values are the model's already."""
        return cls(data.name, data.data, data.labels, data.class_names, value_range=data.value_range, provenance=data.provenance)

    @property
    def can_mirror(self) -> bool:
        """Whether there are mirror images: stored ones, or samples that have a width to reverse."""
        return len(self.shape) in (2, 3) if isinstance(self.mirrored, str) else self.mirrored is not None

    def check_can_mirror(self) -> None:
        """A ValueError that says why, if there are no mirror images."""
        if not self.can_mirror:
            without = (
                "latents without stored mirror images" if self.mirrored is None else f"of shape {self.shape}, neither [H, W] nor [H, W, C]"
            )
            raise ValueError(f"flips: samples of {self.name} are {without}; set it to False")

    def read(self, index: Int[np.ndarray, " M"], mirror: Bool[np.ndarray, " M"] | None = None) -> Shaped[np.ndarray, "M ..."]:
        """The stored rows `index`, `[M, *shape]` in the dtype of the source; where `mirror` is set, their mirror images.

        Raises:
          ValueError: mirror images of samples that have neither a width nor stored ones.
        """
        if mirror is None or not mirror.any():
            return self.rows[index]
        self.check_can_mirror()
        assert self.mirrored is not None
        if isinstance(self.mirrored, str):
            found = self.rows[index]
            width = 2  # of [M, H, W, ...]
            found[mirror] = np.flip(found[mirror], width)
            return found
        found = np.empty((len(index), *self.shape), self.rows.dtype)
        found[~mirror] = self.rows[index[~mirror]]
        found[mirror] = self.mirrored[index[mirror]]
        return found

    def fingerprint(self) -> dict[str, Any]:
        """Plain JSON values that tell these samples from others without reading them all: a checksum of labels and of 16 rows."""
        seen = hashlib.sha256(np.ascontiguousarray(self.rows[np.linspace(0, self.n - 1, 16).astype(int)]).tobytes())
        labels = None if self.labels is None else hashlib.sha256(self.labels.tobytes()).hexdigest()[:12]
        shape = {"name": self.name, "n": self.n, "shape": list(self.shape), "dtype": str(self.rows.dtype)}
        return {**shape, "labels": labels, "rows": seen.hexdigest()[:12], "scaling": self.normalization.formula}

    def subset(self, classes: Sequence[int] = (), max_samples: int = 0, seed: int = 0) -> "Records":
        """The samples of some classes, or some samples at random, in their order; labels and class names stay as they are.

        Args:
          classes: labels to keep; none: all.
          max_samples: keep as many of those, drawn without replacement; 0: all.
          seed: of the draw.

        Raises:
          ValueError: classes of data without labels, a class without samples, a negative number.
        """
        index = np.arange(self.n)
        if len(classes):
            if self.labels is None:
                raise ValueError(f"classes={tuple(classes)}: {self.name} has no labels")
            missing = np.setdiff1d(classes, self.labels)
            if missing.size:
                raise ValueError(f"classes={tuple(classes)}: {self.name} has no samples of class {missing[0]}")
            index = np.flatnonzero(np.isin(self.labels, classes))
        if max_samples < 0:
            raise ValueError(f"max_samples={max_samples}: expected a whole number, 0 for all")
        if 0 < max_samples < len(index):
            index = np.sort(np.random.default_rng(seed).choice(index, max_samples, replace=False))
        if len(index) == self.n:
            return self
        return dataclasses.replace(
            self,
            rows=ChosenRows(self.rows, index),
            mirrored=self.mirrored if self.mirrored is None or isinstance(self.mirrored, str) else ChosenRows(self.mirrored, index),
            labels=None if self.labels is None else self.labels[index],
            provenance={**self.provenance, "classes": [int(label) for label in classes] or None, "max_samples": max_samples or None},
        )

    def in_layout(self, layout: str) -> "Records":
        """The samples as `[H, W, C]`, where they are stored as `layout` says.

        Args:
          layout: "channels_first": stored as `[C, H, W]`; "channels_last", or "": as they are.

        Raises:
          ValueError: another layout; "channels_first" for samples of other than three axes, or of a source that gives `[H, W, C]` itself.
        """
        if layout not in ("", "channels_first", "channels_last"):
            raise ValueError(f"layout={layout!r}: expected channels_first, channels_last or nothing, for as they are stored")
        if layout != "channels_first":
            return dataclasses.replace(self, provenance={**self.provenance, "layout": layout}) if layout else self
        if len(self.shape) != 3 or self.mirrored != "by width" or np.ndim(self.normalization.mean) or np.ndim(self.normalization.std):
            raise ValueError(f"layout={layout!r}: samples of {self.name} have shape {self.shape}, expected [C, H, W] that are stored so")
        rows = np.moveaxis(self.rows, 1, -1) if isinstance(self.rows, np.ndarray) else ChannelsLast(self.rows)
        return dataclasses.replace(self, rows=rows, provenance={**self.provenance, "layout": layout})

    def for_noise(self, noise_scale: float) -> "Records":
        """The samples divided by c, for a model that is trained on `z = α x_1 + c σ x_0`, as JiT is.

        z / c is a noisy point of these samples with noise of unit variance, at the model's own t. Its oracle's weights and turning
        point are those of z, and c times its velocity at z / c is the velocity at z. Of any path.

        Args:
          noise_scale: c; 1 changes nothing.

        Raises:
          ValueError: c is not a finite number above 0.
        """
        if not 0 < noise_scale < float("inf"):
            raise ValueError(f"noise_scale={noise_scale}: expected a number above 0; 1 is noise of unit variance")
        if noise_scale == 1:
            return self
        ends = np.asarray(self.value_range or (0, 0), np.float32) / np.float32(
            noise_scale
        )  # and one unit further, which the samples may round to
        return dataclasses.replace(
            self,
            normalization=self.normalization.for_noise(noise_scale),
            value_range=self.value_range and (float(np.nextafter(ends[0], -np.inf)), float(np.nextafter(ends[1], np.inf))),
            provenance={**self.provenance, "noise_scale": noise_scale},
        )

    def load(
        self,
        index: Int[np.ndarray, " M"] | None = None,
        *,
        flips: bool = False,
        mirror: Bool[np.ndarray, " M"] | None = None,
        dtype: str = "float32",
        threads: int = 4,
        progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    ) -> DataSet:
        """The model's values of all samples, in memory: the empirical set that an oracle is about.

        Args:
          index: `[M]`, those samples only: on each of several processes, `rows_of_process(n, mesh)`. None: all.
          flips: the mirror images too, after the samples: training that mirrors at random has 2N samples.
          mirror: `[M]`, which of `index` to read mirrored, where not all are wanted both ways.
          dtype: "float32", or "bfloat16", which takes half the memory; the oracle is exact about the rounded values.
          threads: that read and normalise.
          progress: wraps the blocks, for a progress bar.

        Raises:
          ValueError: values that are NaN or infinite; mirror images that cannot be; another dtype.
        """
        if dtype not in KEPT_DTYPES:
            raise ValueError(f"dtype={dtype!r}: expected {' or '.join(KEPT_DTYPES)}")
        index = np.arange(self.n) if index is None else np.asarray(index)
        whole = np.concatenate([index, index]) if flips else index
        mirror = np.arange(len(whole)) >= len(index) if mirror is None else mirror
        data = np.empty((len(whole), *self.shape), KEPT_DTYPES[dtype])
        size = max(1, BLOCK_BYTES // (self.d * self.rows.dtype.itemsize))

        def fill(start: int) -> None:
            part = slice(start, start + size)
            with np.errstate(over="ignore"):  # DataSet says where a value is too large
                data[part] = self.normalization(self.read(whole[part], mirror[part]))

        starts = range(0, len(whole), size)
        with ThreadPoolExecutor(threads) as pool:
            for _ in zip(progress(starts), pool.map(fill, starts), strict=True):
                pass
        return DataSet(
            self.name,
            data,
            None if self.labels is None else self.labels[whole],
            self.class_names,
            self.value_range,
            {**self.provenance, "scaling": self.normalization.formula, "stored_dtype": str(self.rows.dtype), "flips": flips},
        )


class ChosenRows:
    """A selection of the rows of another `Rows`."""

    def __init__(self, rows: Rows, index: np.ndarray):
        self._rows, self._index = rows, index
        self.shape, self.dtype = (len(index), *rows.shape[1:]), rows.dtype

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        return self._rows[self._index[index]]

    def over_arrays(self, f: Callable[[Any], Any]) -> "ChosenRows":
        """The same selection of `f` of the other rows."""
        return ChosenRows(f(self._rows), self._index)


class ChannelsLast:
    """Rows `[C, H, W]` as `[H, W, C]`."""

    def __init__(self, rows: Rows):
        self._rows = rows
        self.shape, self.dtype = (rows.shape[0], *rows.shape[2:], rows.shape[1]), rows.dtype

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        return np.moveaxis(self._rows[index], 1, -1)
