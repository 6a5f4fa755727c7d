"""Inspection of a data set before training: ranges, statistics, duplicates, and warnings of frequent mistakes."""

import dataclasses
import hashlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from flowjax.analysis.spectrum import covariance_spectrum
from flowjax.data.records import Progress, Records

NEAR = 0.02
"""Samples nearer than this share of 2 tr Cov, the mean squared distance of two samples, are near duplicates: a seventh of the distance."""
SD_VAE_STD = 1 / 0.18215  # the inverse of Stable Diffusion's multiplier
FAR_FROM_1 = 20
"""Above this standard deviation, or with all values below its inverse, values are not scaled for a model."""
_BLOCK_BYTES = 2**25
_GLANCED_VALUES = 2**22  # values of samples that each binary inspects


@dataclasses.dataclass(frozen=True)
class Inspection:
    """Statistics and findings of an inspection. Values are those a model sees, after normalisation; statistics are over all samples."""

    n: int
    shape: tuple[int, ...]
    low: float
    high: float
    mean: Float[np.ndarray, " C"]
    """By channel: the last axis of `[H, W, C]`; of other shapes, of all values together."""
    std: Float[np.ndarray, " C"]
    stored_dtype: str
    as_stored: bool
    """Whether the values are the stored ones, neither scaled nor normalised."""
    num_classes: int | None
    """One more than the greatest label."""
    classes: Int[np.ndarray, " K"] | None
    """The labels that occur, rising."""
    class_counts: Int[np.ndarray, " K"] | None
    """How many samples each of them has."""
    classes_chosen: bool
    """Whether only some classes were selected, so that the others are empty by choice."""
    duplicates: int
    """Samples that repeat an earlier one exactly."""
    duplicates_across_classes: int
    """Duplicates whose label differs from the earlier sample's."""
    digest: str
    """SHA-256 of the samples, the same for any order, container and classes."""
    eigenvalues: Float[np.ndarray, " E"]
    """Eigenvalues of the covariance of `compared` samples, falling."""
    compared: int
    nearest: Float[np.ndarray, " Q"]
    """Squared distance of some samples to the nearest other that is not equal, over 2 tr Cov."""
    nearest_pairs: Int[np.ndarray, "Q 2"]
    """The samples of `nearest`, and the nearest sample of each."""

    @property
    def d(self) -> int:
        """D, the number of values in one sample."""
        return int(np.prod(self.shape))

    @property
    def effective_dimension(self) -> float:
        """(Σλ)² / Σλ² of the distribution, the participation ratio: D for a unit Gaussian; 0 if all samples are equal.

        The eigenvalues of a finite sample spread more than the distribution's own, which would make this come out at 1 / (1/D + 1/n) for a
        Gaussian: their Σλ² is corrected by its expected excess (unbiased for Gaussians; Srivastava 2005).
        """
        total, square, freedom = float(self.eigenvalues.sum()), float((self.eigenvalues**2).sum()), self.compared - 1
        if total == 0 or freedom < 2:
            return 0.0 if total == 0 else 1.0
        corrected = freedom**2 / ((freedom - 1) * (freedom + 2)) * (square - total**2 / freedom)
        return float(np.clip(total**2 / max(corrected, total**2 / self.d), 1, self.d))

    def components_for(self, share: float) -> int:
        """How many principal components hold this share of the variance."""
        held = np.cumsum(self.eigenvalues)
        return int(np.searchsorted(held, share * held[-1] * (1 - 1e-9)) + 1) if len(held) and held[-1] > 0 else 0

    @property
    def near_duplicates(self) -> float:
        """The share of the compared samples that have another within `NEAR`."""
        return float(np.mean(self.nearest < NEAR)) if len(self.nearest) else 0.0

    @property
    def warnings(self) -> list[str]:
        """Likely mistakes, each in one sentence with the remedy."""
        return [text for text in (*self._of_values(), *self._of_labels(), *self._of_samples()) if text]

    def _of_values(self) -> list[str]:
        channels, spread, found = self.shape[0 if _looks_channels_first(self.shape) else -1], float(np.sqrt(np.mean(self.std**2))), []
        whole = np.dtype(self.stored_dtype).kind in "bui"
        latents = len(self.shape) == 3 and channels not in (1, 3) and not whole
        if latents and channels == 4 and 0.7 * SD_VAE_STD < spread < 1.4 * SD_VAE_STD:
            found.append(
                f"the standard deviation is {spread:.2f}, near 1/0.18215: SD-VAE's latents without their multiplier; set multiplier=0.18215"
            )
        elif latents and spread < 0.5:
            found.append(
                f"the standard deviation is {spread:.3f}, far below 1: a multiplier on top of normalised latents? "
                "LightningDiT's is 1 with statistics, 0.18215 without"
            )
        elif latents and (spread > 2 or (np.abs(self.mean) > 0.5 * self.std + 0.25).any()):
            worst = int(np.argmax(np.abs(self.mean)))
            found.append(
                f"latents look un-normalised: standard deviation {spread:.2f}, mean of channel {worst} {self.mean[worst]:.2f}; "
                "give their statistics (stats=...), or let them be computed (normalize=auto)"
            )
        if not latents and ((whole and self.as_stored) or spread > FAR_FROM_1) and spread > 2:
            found.append(f"values span [{self.low:g}, {self.high:g}]{self._scale()}")
        if not latents and not whole and 0 < max(-self.low, self.high) < 1 / FAR_FROM_1:
            found.append(f"values span [{self.low:.2g}, {self.high:.2g}], far below 1: divided twice? Models are trained on [-1, 1]")
        if not latents and self.low >= 0 and 0.5 < self.high <= 1:
            found.append(f"values span [{self.low:g}, {self.high:g}]: models are trained on [-1, 1]; use 2 x - 1 (normalize=0-1)")
        if _looks_channels_first(self.shape):
            found.append(
                f"samples of shape {self.shape} look channels-first; [H, W, C] is expected here, and flips mirror the second axis; "
                "set layout=channels_first"
            )
        constant = np.flatnonzero(self.std == 0)
        if constant.size:
            found.append(f"channel {constant[0]} has the same value everywhere")
        return found

    def _of_labels(self) -> list[str]:
        if self.class_counts is None:
            return []
        assert self.classes is not None
        assert self.num_classes is not None
        there, found = self.class_counts, []
        empty = self.num_classes - len(self.classes)
        if empty and not self.classes_chosen:
            few = np.setdiff1d(np.arange(min(self.num_classes, len(self.classes) + 5)), self.classes)[:5]
            hint = "; labels count from 0" if empty == 1 and few[0] == 0 else "; number the classes from 0" if empty > 10 * self.n else ""
            listed = ", ".join(map(str, few)) + (", ..." if empty > 5 else "")
            found.append(f"{empty:,} of {self.num_classes:,} classes have no sample: {listed}{hint}")
        if len(there) == 1 and not self.classes_chosen:
            found.append("all samples have one label: a model cannot be guided by it")
        if len(there) > 1 and there.mean() < 2:
            found.append(f"{len(there):,} labels for {self.n:,} samples: are they indices instead of classes?")
        elif there.max() > 20 * there.min():
            found.append(f"classes are of very different sizes, {there.min():,} to {there.max():,} samples")
        return found

    def _scale(self) -> str:
        """The likely kind of values far from [-1, 1], and the remedy."""
        if self.low >= 0 and self.high <= 255:
            return ", grey levels as they are: store them as uint8, which is scaled to [-1, 1], or set normalize=0-255"
        if self.low >= -128 and self.high <= 127 and np.dtype(self.stored_dtype).kind in "bui":
            return f", signed bytes as they are ({self.stored_dtype}): store x + 128 as uint8, which is scaled to [-1, 1]"
        if self.low >= 0 and self.high <= 65535:
            return f", levels of 16 bits as they are ({self.stored_dtype}): store x / 32767.5 - 1 as float32; models are trained on [-1, 1]"
        return f", as they are ({self.stored_dtype}): models are trained on [-1, 1]; scale them, and store float32"

    def _of_samples(self) -> list[str]:
        found = []
        if self.duplicates:
            found.append(
                f"{self.duplicates:,} samples repeat an earlier one exactly: what a model memorises is then a matter of counts "
                "(oracle_sweep merges them)"
            )
        if self.duplicates_across_classes:
            found.append(f"{self.duplicates_across_classes:,} samples are equal to one of another class")
        if self.near_duplicates > 0.01:
            found.append(f"{self.near_duplicates:.1%} of samples have a near duplicate: memorisation is to be judged against those too")
        return found


def inspect(
    records: Records, *, max_compared: int = 20_000, num_queries: int = 512, seed: int = 0, progress: Progress | None = None
) -> Inspection:
    """Reads all samples once for ranges, statistics and exact duplicates, and some of them for spectrum and near duplicates.

    Args:
      max_compared: samples that enter the spectrum, and among which nearest neighbours are searched.
      num_queries: samples whose nearest neighbour is searched.
      seed: of both draws.

    Raises:
      ValueError: NaN or infinity; fewer than two samples.
    """
    if records.n < 2:
        raise ValueError(f"{records.name}: one sample; expected at least two to compare")
    read = _read_all(records, progress)
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(records.n, min(records.n, max_compared), replace=False))
    rows = records.normalization(records.read(chosen)).reshape(len(chosen), -1)
    eigenvalues = covariance_spectrum(rows)
    distinct = np.flatnonzero(np.isin(chosen, read.distinct))
    queries = rng.choice(len(distinct), min(len(distinct), num_queries), replace=False)
    distances, pairs = _nearest(rows[distinct], queries, 2 * float(eigenvalues.sum()))
    return _found(records, read, eigenvalues, len(chosen), distances, chosen[distinct[pairs]])


def glance(records: Records) -> list[str]:
    """Warnings from some evenly spread samples, which each binary prints before it begins.

    They are those of `Inspection.warnings` about values and labels; only `inspect` searches for duplicates.

    Raises:
      ValueError: NaN or infinity in one of those samples.
    """
    count = min(records.n, int(np.clip(_GLANCED_VALUES // records.d, 16, 256)))
    read = _read_all(records, None, np.linspace(0, records.n - 1, count).astype(np.int64))
    found = _found(records, read, np.zeros(0), 0, np.zeros(0), np.zeros((0, 2), np.int64))
    return [text for text in (*found._of_values(), *found._of_labels()) if text]


def value_scale(records: Records, found: Inspection) -> str:
    """The scale that the values were taken to have, whether it was guessed, and the setting of another."""
    dtype, formula = records.rows.dtype, records.normalization.formula
    if not found.as_stored:
        return f"stored as {dtype}, scaled by {formula}; normalize=none leaves them as they are"
    if records.normalization.is_identity and np.dtype(dtype).kind in "bui":
        return f"{dtype}, as they are; normalize=0-255 takes 0 to 255 to [-1, 1]"
    low, high, spread = found.low, found.high, float(np.sqrt(np.mean(found.std**2)))
    if -1.01 <= low < -0.5 and 0.5 < high <= 1.01:
        return "from -1 to 1, as they are"
    if low >= 0 and high <= 1:
        return "look like 0 to 1 (a guess), as they are; normalize=0-1 takes them to [-1, 1]"
    if low >= 0 and 1 < high <= 255:
        return "look like 0 to 255 (a guess), as they are; normalize=0-255 takes them to [-1, 1]"
    if 0.5 < spread < 2 and (np.abs(found.mean) < 0.5).all():
        return f"look standardised (a guess: standard deviation {spread:.2f}), as they are"
    return "of no usual scale, as they are"


def layout(records: Records) -> str:
    """The axes that the samples were taken to have, whether they were guessed, and the setting of others."""
    shape, set_to = records.shape, records.provenance.get("layout")
    if len(shape) != 3:
        return {1: "vectors", 2: "[H, W]"}.get(len(shape), f"{len(shape)} axes, whose meaning is not used")
    if set_to:
        return f"[H, W, C], stored {str(set_to).replace('_', ' ')} as set"
    if _looks_channels_first(shape):
        return "read as [H, W, C] as they are, but looks like [C, H, W] (a guess); set layout=channels_first"
    return "[H, W, C], channels last (by the shape; layout=channels_first if they are stored otherwise)"


def _looks_channels_first(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and (shape[1] == shape[2] > shape[0] or (shape[0] in (1, 3) and min(shape[1:]) > 8))


# Its parameters are the statistics that its two callers compute differently.
def _found(
    records: Records, read: "_Read", eigenvalues: np.ndarray, compared: int, nearest: np.ndarray, nearest_pairs: np.ndarray
) -> Inspection:
    classes, counts = (None, None) if records.labels is None else np.unique(records.labels, return_counts=True)
    return Inspection(
        n=records.n,
        shape=records.shape,
        low=read.low,
        high=read.high,
        mean=read.mean,
        std=read.std,
        stored_dtype=str(records.rows.dtype),
        as_stored=records.normalization.is_identity,
        num_classes=records.num_classes,
        classes=classes,
        class_counts=counts,
        classes_chosen=bool(records.provenance.get("classes")),
        duplicates=read.duplicates,
        duplicates_across_classes=read.across,
        digest=read.digest,
        eigenvalues=eigenvalues,
        compared=compared,
        nearest=nearest,
        nearest_pairs=nearest_pairs,
    )


class _Read(NamedTuple):
    """Results of one pass over all samples; see `Inspection`."""

    low: float
    high: float
    mean: np.ndarray
    std: np.ndarray
    distinct: list[int]
    """Each sample that repeats no earlier one."""
    duplicates: int
    across: int
    digest: str


def _read_all(records: Records, progress: Progress | None, index: Int[np.ndarray, " M"] | None = None) -> _Read:
    """One pass over all samples, or over those of `index`."""
    index = np.arange(records.n) if index is None else index
    channels = records.shape[-1] if len(records.shape) == 3 else 1
    low, high, total, square = np.inf, -np.inf, np.zeros(channels), np.zeros(channels)
    first: dict[bytes, int] = {}
    duplicates = across = 0
    step = max(1, _BLOCK_BYTES // (8 * records.d))
    center = None
    digests: list[bytes] = []
    starts = range(0, len(index), step)
    for start in progress("reading")(starts) if progress else starts:
        rows = index[start : start + step]
        stored = records.read(rows)
        values = records.normalization(stored)
        finite = np.isfinite(values.reshape(len(values), -1)).all(1)
        if not finite.all():
            bad = int(np.argmin(finite))
            there = np.isfinite(np.asarray(stored[bad], np.float64)).all()
            what = "values too large for float32: scale the data" if there else "NaN or infinity: leave it out, or repair it"
            raise ValueError(f"{records.name}: sample {rows[bad]} has {what}")
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        flat = values.reshape(-1, channels).astype(np.float64)
        center = flat.mean(0) if center is None else center  # so that squares do not cancel
        total, square = total + (flat - center).sum(0), square + ((flat - center) ** 2).sum(0)
        for i, row in zip(rows.tolist(), values, strict=True):
            digest = hashlib.blake2b((row + 0).tobytes(), digest_size=16).digest()  # + 0: -0.0 equals 0.0
            digests.append(digest)
            earlier = first.setdefault(digest, i)
            if earlier != i:
                duplicates += 1
                across += records.labels is not None and records.labels[i] != records.labels[earlier]
    count = len(index) * records.d // channels
    assert center is not None
    std = np.sqrt(np.maximum(square - total**2 / count, 0) / max(count - 1, 1))
    return _Read(
        low,
        high,
        center + total / count,
        std,
        list(first.values()),
        duplicates,
        int(across),
        hashlib.sha256(b"".join(sorted(digests))).hexdigest(),
    )


def _nearest(
    rows: Float[np.ndarray, "N D"], queries: Int[np.ndarray, " Q"], scale: float
) -> tuple[Float[np.ndarray, " R"], Int[np.ndarray, "R 2"]]:
    """Each query's squared distance to the nearest other of some distinct rows, over `scale`, rising; and which two they are."""
    if len(rows) < 2:
        return np.zeros(0), np.zeros((0, 2), np.int64)
    centred = rows - rows.mean(0, dtype=np.float64).astype(np.float32)
    norms = np.einsum("nd,nd->n", centred, centred, dtype=np.float64)
    squares = norms[queries, None] - 2 * (centred[queries] @ centred.T) + norms
    squares[np.arange(len(queries)), queries] = np.inf
    # Expanded distances are right to rounding only: those of the nearest few are computed anew from differences.
    few = np.argpartition(squares, min(8, len(rows) - 1) - 1, axis=1)[:, : min(8, len(rows) - 1)]
    exact = np.stack([np.sum((rows[few[:, k]].astype(np.float64) - rows[queries]) ** 2, axis=1) for k in range(few.shape[1])], 1)
    best = exact.argmin(1)
    each = np.arange(len(queries))
    found = exact[each, best] / (scale or 1.0)
    order = np.argsort(found)
    return found[order], np.stack([queries, few[each, best]], 1)[order]
