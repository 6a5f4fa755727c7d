"""The timestep shifts that people set by rule, for samples of a given shape: to stand beside what the data say."""

import dataclasses
import math
from collections.abc import Sequence

from flowjax.conventions import RAE

LIGHTNINGDIT_SHIFT = 0.3
SD3_SHIFT = 3.0
BASE_POSITIONS = 32 * 32
"""Of the latents of images of 256 x 256 by an autoencoder of factor 8: what a shift by resolution is taken to be relative to."""
FLUX_TOKENS = (256, 4096)
FLUX_MU = (0.5, 1.15)


@dataclasses.dataclass(frozen=True)
class Rule:
    """A rule in use.

    Attributes:
      name: whose it is.
      formula: in the terms of its authors, with what it is applied to.
      s: the shift, in ours (`flowjax.schedules.shift`).
    """

    name: str
    formula: str
    s: float


def flux_mu(tokens: float) -> float:
    """`μ = 0.5 + 0.65 (L - 256) / 3840` for L tokens: Flux's, on the line through its two ends."""
    (few, many), (least, most) = FLUX_TOKENS, FLUX_MU
    return least + (most - least) * (tokens - few) / (many - few)


def rules_of_thumb(shape: Sequence[int]) -> list[Rule]:
    """The rules in use, for samples of a shape.

    - none: s = 1.
    - LightningDiT: s = 0.3, whatever the data.
    - SD3, diffusers: σ shifted by 3, s = 1/3, whatever the data.
    - RAE: σ shifted by α = √(D / 4096), D values in a sample: s = 1/α. RAE itself refuses α < 1; there the rule is extrapolated.
    - By resolution (SD3's derivation): σ shifted by √(m / n), m positions of a sample, n = 32 x 32; s = √(n / m). Of images only.
    - Flux: σ shifted by e^μ, μ linear in the number of tokens, patches of 2 x 2 positions: s = e^-μ. Of images only.

    Args:
      shape: of one sample; images are `[H, W]` or `[H, W, C]`.

    References:
      Esser et al. 2024, equation 23; Zheng et al. 2025 (RAE), section 4; the sources that `flowjax.conventions` names.
    """
    values = math.prod(shape)
    found = [
        Rule("none", "no shift", 1.0),
        Rule("LightningDiT", f"{LIGHTNINGDIT_SHIFT}, fixed", LIGHTNINGDIT_SHIFT),
        Rule("SD3, diffusers", f"{SD3_SHIFT:g}, fixed", 1 / SD3_SHIFT),
        Rule(
            "RAE",
            f"√(D / 4096), D = {values:,}" + (" (extrapolated: RAE refuses it below 1)" if values < 4096 else ""),
            RAE.shift.to_s(values) if RAE.shift else 1.0,
        ),
    ]
    if len(shape) in (2, 3):
        positions = shape[0] * shape[1]
        mu = flux_mu(positions / 4)
        found += [
            Rule("by resolution", f"√(m / n), m = {shape[0]} x {shape[1]}, n = 32 x 32", math.sqrt(BASE_POSITIONS / positions)),
            Rule("Flux", f"e^μ, μ = {mu:.3g} at {positions / 4:,.4g} tokens of 2 x 2", math.exp(-mu)),
        ]
    return found
