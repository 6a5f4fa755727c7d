"""The samples as the CPU engine reads them: NumPy arrays on this host, with norms in float64."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from kernels.posterior.cpu import numba_kernels
from kernels.posterior.cpu.threads import on_every_core, share
from kernels.posterior.cpu.tuning import TUNING
from kernels.posterior.types import Samples

UNCOUNTED = -1e30
"""Log prior of a sample that does not count: finite, so that sums with it are numbers."""


@dataclasses.dataclass(frozen=True, eq=False)
class HostSamples:
    """`N` samples on the host. Where there are classes, the rows of each lie together."""

    rows: Shaped[np.ndarray, "N D"]
    """The samples, float32 or uint8."""
    center: Float[np.ndarray, " D"]
    """About their mean, float64: scores are taken about it."""
    square_norms: Float[np.ndarray, " N"]
    """‖y - center‖², float64."""
    log_prior: Float[np.ndarray, " N"]
    """log of how often each sample counts; `UNCOUNTED`: never."""
    original: Int[np.ndarray, " N"]
    """The caller's index of each row."""
    classes: dict[int, slice]
    """The rows of each class; empty for data without labels."""

    @classmethod
    def of(cls, samples: Samples) -> "HostSamples":
        """From prepared samples on this host. Dtypes other than float32 and uint8 are copied to float32."""
        rows = np.asarray(samples.values)
        if rows.dtype not in (np.float32, np.uint8):
            rows = rows.astype(np.float32)
        center = np.asarray(samples.center, np.float64)
        norms = np.empty(len(rows))
        on_every_core(lambda core: numba_kernels.square_distances(rows, center, *share(len(rows), core), norms))
        prior = np.zeros(len(rows)) if samples.log_prior is None else np.maximum(np.asarray(samples.log_prior, np.float64), UNCOUNTED)
        original = np.arange(len(rows), dtype=np.int32) if samples.index is None else np.asarray(samples.index)
        labels = np.asarray(samples.labels) if samples.labels is not None and samples.by_class else None
        return cls(rows, center, norms, prior, original, {} if labels is None else _classes(labels))

    @property
    def n(self) -> int:
        """Number of samples."""
        return self.rows.shape[0]

    @property
    def d(self) -> int:
        """Numbers in each sample."""
        return self.rows.shape[1]

    @functools.cached_property
    def mean_square(self) -> float:
        """Mean of ‖y - center‖²."""
        return float(self.square_norms.mean())

    @functools.cached_property
    def radius(self) -> float:
        """max ‖y - center‖."""
        return float(np.sqrt(self.square_norms.max()))

    @functools.cached_property
    def largest_prior(self) -> float:
        """max |log prior| of the samples that count."""
        return float(np.abs(self.log_prior[self.log_prior > UNCOUNTED]).max(initial=0.0))

    @functools.cached_property
    def far(self) -> bool:
        """Whether the data lie so far from the origin that float32 products of them as they are would lose the differences."""
        return bool(np.sum(self.center**2) > TUNING.far_center * self.mean_square)

    @functools.cached_property
    def has_near_copies(self) -> bool:
        """`near_copies` among some thousand samples."""
        return near_copies(self.rows[:: max(1, self.n // TUNING.near_copy_samples)], self.center)

    @functools.cached_property
    def shift(self) -> Float[np.ndarray, " D"]:
        """float32: subtracted from the samples before a product; 0 unless they are `far`."""
        return (self.center if self.far else np.zeros(self.d)).astype(np.float32)

    @functools.cached_property
    def centred(self) -> Float[np.ndarray, "N D"]:
        """y - center, float64: for small data."""
        return self.rows - self.center

    @functools.cached_property
    def centred32(self) -> Float[np.ndarray, "N D"]:
        """`centred`, rounded to float32."""
        return self.centred.astype(np.float32)

    def part(self, label: int) -> slice:
        """The rows of a class; -1: all."""
        return slice(0, self.n) if label < 0 else self.classes[label]

    def size(self, label: int) -> int:
        """Number of samples of a class; -1: of all."""
        part = self.part(label)
        return part.stop - part.start

    def has_class(self, label: Int[np.ndarray, " B"]) -> Bool[np.ndarray, " B"]:
        """Whether there are samples of these classes that count; -1: all."""
        if len(label) and (label == label[0]).all():
            return np.full(len(label), max(int(label[0]), -1) in self._counted)
        return np.isin(np.maximum(label, -1), list(self._counted))

    @functools.cached_property
    def _counted(self) -> set[int]:
        """The classes of which a sample counts, and -1."""
        parts = {-1: slice(0, self.n), **self.classes}
        return {label for label, part in parts.items() if (self.log_prior[part] > UNCOUNTED).any()}

    @functools.cached_property
    def _log_mass(self) -> dict[int, float]:
        return {}

    def log_masses(self, label: Int[np.ndarray, " B"]) -> Float[np.ndarray, " B"]:
        """log Σ prior of the samples of each class, -1: of all; NaN where none counts."""
        same = len(label) > 0 and (label == label[0]).all()
        classes, own = (label[:1], np.zeros(len(label), int)) if same else np.unique(label, return_inverse=True)
        for one in np.maximum(classes, -1).tolist():
            if one not in self._log_mass:
                known = one in self._counted
                self._log_mass[one] = float(np.log(np.exp(self.log_prior[self.part(one)]).sum())) if known else np.nan
        return np.array([self._log_mass[one] for one in np.maximum(classes, -1).tolist()])[own]


def _classes(labels: Int[np.ndarray, " N"]) -> dict[int, slice]:
    known, first = np.unique(labels, return_index=True)
    ends = [*first[1:], len(labels)]
    return {int(label): slice(int(a), int(b)) for label, a, b in zip(known, first, ends, strict=True)}


def near_copies(rows: Shaped[np.ndarray, "n D"], center: Float[np.ndarray, " D"]) -> bool:
    """Whether a good part of the samples are copies of others, but for differences that float32 products round away.

    Decided by two random projections: near-copies lie close in both, other pairs hardly ever.
    """
    if len(rows) < 2:
        return False
    directions = np.random.default_rng(0).standard_normal((rows.shape[1], 2))
    along = (rows - center) @ directions
    gaps = np.abs(np.diff(along[along[:, 0].argsort()], axis=0)).max(axis=1)
    return bool(np.mean(gaps <= TUNING.near_copy * np.abs(along).max()) > TUNING.near_copies)
