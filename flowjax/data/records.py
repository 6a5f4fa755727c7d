"""Samples as a source stores them: read some rows at a time, in their own dtype, with what turns them into a model's values."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Shaped

from flowjax.data.normalization import IDENTITY, Normalization
from flowjax.data.record import DataSet, Rows, SampleSet, checked_labels


@dataclasses.dataclass(frozen=True, eq=False)
class Records(SampleSet):
    """N samples as stored, which need not fit in memory.

    Attributes:
      name: what a reader calls it, for titles.
      rows: `[N, *shape]` in the dtype of the source; images are `[H, W, C]` or `[H, W]`.
      labels: `[N]` int32 >= 0, or None.
      class_names: one for each label 0..num_classes - 1, or None.
      normalization: from stored values to a model's.
      mirrored: the stored mirror image of each row, where an encoder made it; None: mirroring reverses the width.
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
    mirrored: Rows | None = None
    value_range: tuple[float, float] | None = None
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.rows.shape) < 2 or 0 in self.rows.shape:
            shape = tuple(self.rows.shape)
            raise ValueError(f"{self.name}: data have shape {shape}, expected [N, *shape] with at least one sample of at least one value")
        if self.mirrored is not None and self.mirrored.shape != self.rows.shape:
            raise ValueError(
                f"{self.name}: mirror images have shape {self.mirrored.shape}, expected that of the samples, {self.rows.shape}"
            )
        object.__setattr__(self, "labels", checked_labels(self.name, self.labels, self.n, self.class_names))

    def _kept(self) -> Rows:
        return self.rows

    @classmethod
    def of(cls, data: DataSet) -> "Records":
        """A data set in memory as records: its values are the model's already."""
        return cls(data.name, data.data, data.labels, data.class_names, value_range=data.value_range, provenance=data.provenance)

    @property
    def can_mirror(self) -> bool:
        """Whether there are mirror images: stored ones, or samples that have a width."""
        return self.mirrored is not None or len(self.shape) in (2, 3)

    def read(self, index: Int[np.ndarray, " M"], mirror: Bool[np.ndarray, " M"] | None = None) -> Shaped[np.ndarray, "M ..."]:
        """The stored rows `index`, `[M, *shape]` in the dtype of the source; where `mirror` is set, their mirror images.

        Raises:
          ValueError: mirror images of samples that have neither a width nor stored ones.
        """
        if mirror is None or not mirror.any():
            return self.rows[index]
        if not self.can_mirror:
            raise ValueError(f"{self.name}: samples of shape {self.shape} have no mirror image: expected [H, W] or [H, W, C]")
        if self.mirrored is None:
            found = self.rows[index]
            width = 2  # of [M, H, W, ...]
            found[mirror] = np.flip(found[mirror], width)
            return found
        found = np.empty((len(index), *self.shape), self.rows.dtype)
        found[~mirror] = self.rows[index[~mirror]]
        found[mirror] = self.mirrored[index[mirror]]
        return found
