"""Verdict of an experiment on a finding: one of four outcomes, and the reason."""

import dataclasses
from typing import Literal

PREDICTED_WITHIN = 0.08
"""Largest relative error of a predicted turning point that counts as agreement."""
Outcome = Literal["reproduced", "partly", "not on this data", "model too weak"]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """An outcome, and the sentence that gives the reason with its numbers."""

    outcome: Outcome
    why: str

    def __str__(self) -> str:
        return f"{self.outcome[0].upper()}{self.outcome[1:]}: {self.why}"


def judge(checks: dict[str, bool], *, model_strong_enough: bool | None = True) -> Verdict:
    """The outcome of the checks that make up a finding: all hold, some, none.

    Args:
      checks: what must hold, in words with its numbers, and whether it does.
      model_strong_enough: False: nothing can be concluded; None: not known, which the reason says.
    """
    held = [text for text, holds in checks.items() if holds]
    failed = [text for text, holds in checks.items() if not holds]
    parts = (["; ".join(held)] if held else []) + ([f"{'Not' if held else 'not'} so: {'; '.join(failed)}"] if failed else [])
    if model_strong_enough is None:
        parts.append("how good the model is has not been measured")
    why = ". ".join(parts)
    if model_strong_enough is False:
        return Verdict("model too weak", why)
    return Verdict("reproduced" if not failed else "partly" if held else "not on this data", why)
