"""Normalisation: from values on disk to the values that a model sees."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Normalization:
    """`x = (stored - mean) / std * multiplier`, LightningDiT's form, which uint8 images take too.

    A NumPy array gives a NumPy array, float32; a JAX array, under jit too, is computed on the device. Both agree to
    float32 rounding. The identity returns the values untouched, in float32.

    Attributes:
      mean, std: a number, or one for each channel, the last axis; std > 0.
      multiplier: factor of the standardised values; not 0.
      formula: the same as text, for reports.

    Raises:
      ValueError: values that are not finite, a std that is not above 0, a multiplier of 0.
    """

    mean: float | np.ndarray = 0.0
    std: float | np.ndarray = 1.0
    multiplier: float = 1.0
    formula: str = "none"

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            value = np.asarray(getattr(self, name), np.float32)
            if value.ndim > 1 or not np.isfinite(value).all() or (name == "std" and not (value > 0).all()):
                raise ValueError(
                    f"{name}={getattr(self, name)}: expected a finite number{' above 0' * (name == 'std')}, or one per channel"
                )
            object.__setattr__(self, name, value)
        if not np.isfinite(self.multiplier) or self.multiplier == 0:
            raise ValueError(f"multiplier={self.multiplier}: expected a finite number other than 0")

    @property
    def is_identity(self) -> bool:
        """Whether values stay as they are."""
        return bool(np.all(self.mean == 0) and np.all(self.std == 1) and self.multiplier == 1)

    def for_noise(self, noise_scale: float) -> "Normalization":
        """The values divided by c: data of a model whose noise is c times the unit one. See `Records.for_noise`."""
        formula = f"({self.formula}) / {noise_scale:g}" if self.formula != "none" else f"x / {noise_scale:g}"
        return dataclasses.replace(self, multiplier=self.multiplier / noise_scale, formula=formula)

    def __call__(self, stored: Any) -> Any:
        """Stored values `[..., C]` of any real dtype, as float32 values of the model."""
        with np.errstate(over="ignore"):  # what is too large for float32 is infinite, and refused by name where data are looked at
            values = stored.astype(np.float32)
        return values if self.is_identity else (values - self.mean) / self.std * np.float32(self.multiplier)

    def inverse(self, values: Any) -> Any:
        """The model's values `[..., C]` on the scale of the stored ones, float32: what a decoder is given."""
        values = values.astype(np.float32)
        return values if self.is_identity else values / np.float32(self.multiplier) * self.std + self.mean


IDENTITY = Normalization()
BYTES = Normalization(127.5, 127.5, formula="x / 127.5 - 1")
"""uint8 to [-1, 1]."""
UNIT = Normalization(0.5, 0.5, formula="2 x - 1")
"""0 to 1 to [-1, 1]."""
SCALES = ("auto", "none", "0-255", "0-1")
"""Values of `normalize` for arrays."""


def array_scaling(normalize: str, multiplier: float, dtype: np.dtype) -> tuple[Normalization, tuple[float, float] | None]:
    """The normalisation of arrays, and the range of the normalised values where it is known.

    Args:
      normalize: "auto" takes uint8 from 0 to 255 to [-1, 1] and leaves other dtypes as they are; "none" leaves all; "0-255" and "0-1" take
        values of any dtype from that range to [-1, 1].
      multiplier: of values that are not scaled otherwise; 0 is 1.

    Raises:
      ValueError: another `normalize`.
    """
    if normalize not in SCALES:
        raise ValueError(f"normalize={normalize!r}: expected {', '.join(map(repr, SCALES))}")
    scaled = {"0-255": BYTES, "0-1": UNIT, "auto": BYTES if dtype == np.uint8 else None, "none": None}[normalize]
    if scaled is not None:
        return scaled, (-1.0, 1.0) if dtype == np.uint8 and scaled is BYTES else None
    return Normalization(multiplier=multiplier, formula=f"x * {multiplier:g}") if multiplier else IDENTITY, None
