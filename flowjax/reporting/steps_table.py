"""Shifts and guidance intervals as sliders have them: what each framework makes of every setting, for a page that computes nothing."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from flowjax.conventions import CONVENTIONS, Convention, direction, told
from flowjax.schedules import shift, uniform_timesteps
from flowjax.stages import Advice

PLAIN = "flowjax"
"""The name under which t itself is told: of the steps and the interval as they are here."""
SHIFTS = np.geomspace(0.1, 4, 16)
ENDS = np.linspace(0, 1, 21)


def settings(advised: Advice) -> tuple[list[float], list[float]]:
    """The shifts and the ends of intervals that sliders offer, rising; those that are advised, and no shift at all, among them."""
    shifts = [*SHIFTS, 1.0] + ([] if advised.shift.value is None else [advised.shift.value])
    ends = [*ENDS, *(advised.guidance_interval.value or ())]
    return sorted({round(float(s), 4) for s in shifts}), sorted({round(float(end), 4) for end in ends})


def offered(name: str, shifts: Sequence[float], ends: Sequence[float], num_steps: int) -> dict[str, Any]:
    """A framework's steps and lines for every setting.

    Args:
      name: of `CONVENTIONS`, or `PLAIN`.
      num_steps: what the framework is given for the number of steps.

    Returns:
      `title`, `time`, `note`; `steps`, for each shift the t at which steps begin; `shift_lines`, for each shift, "" where it has none;
      `interval_lines`, and `interval_of`: for each shift the place among them of each pair of ends, low below high, in the order of
      `itertools.combinations`. In `steps` and `interval_of` one row serves all shifts where they do not matter.
    """
    if name == PLAIN:
        return _plain(shifts, ends, num_steps)
    convention: Convention = CONVENTIONS[name]
    pairs = list(itertools.combinations(ends, 2))

    def lines(s: float) -> list[str]:
        return [str(told(name, s, pair, num_steps)["interval_line"]) for pair in pairs]

    rows = [lines(shifts[0]), lines(shifts[-1])]
    if rows[0] != rows[1]:  # else they are alike for every shift
        rows = [rows[0], *map(lines, shifts[1:-1]), rows[1]]
    return {
        "title": convention.title,
        "time": convention.time,
        "note": convention.note,
        "steps": _once([_rounded(convention.times(s, num_steps)[:-1]) for s in shifts]),
        "shift_lines": [told(name, s, None, num_steps)["shift_line"] for s in shifts],
        **_numbered(rows),
    }


def _plain(shifts: Sequence[float], ends: Sequence[float], num_steps: int) -> dict[str, Any]:
    return {
        "title": "flowjax, t itself",
        "time": "t = 0 is noise, 1 is data",
        "note": "",
        "steps": [_rounded(shift(uniform_timesteps(num_steps), s)[:-1]) for s in shifts],
        "shift_lines": [f"t = flowjax.shift(flowjax.uniform_timesteps({num_steps}), {s:.6g})" for s in shifts],
        **_numbered(
            [[f"field = flowjax.guided(field, scale=W, interval=({low:.6g}, {high:.6g}))" for low, high in itertools.combinations(ends, 2)]]
        ),
    }


def _numbered(lines: Sequence[Sequence[str]]) -> Mapping[str, Any]:
    """Each line once, and the rows as places among them; a single row where all rows are alike."""
    rows = [lines[0]] if all(row == lines[0] for row in lines) else lines
    places: dict[str, int] = {}
    numbered = [[places.setdefault(line, len(places)) for line in row] for row in rows]
    return {"interval_lines": list(places), "interval_of": numbered}


def directions(shifts: Sequence[float]) -> list[str]:
    """Where each shift moves the steps, in words."""
    return [direction(s) for s in shifts]


def _once(rows: list[list[float]]) -> list[list[float]]:
    """A single row where all are alike."""
    return rows[:1] if all(row == rows[0] for row in rows) else rows


def _rounded(times: Float[np.ndarray, " S"]) -> list[float]:
    return np.round(times, 5).tolist()
