"""`explore.html`: one page that stands by itself, on which sliders move t, the timestep shift and the guidance interval.

What is shown at every setting was computed before, and lies in the page as JSON; its script only chooses.
"""

import base64
import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from flowjax import stages
from flowjax.analysis.exploration import Exploration
from flowjax.analysis.statistics import Curve
from flowjax.reporting import steps_table
from flowjax.reporting.pictures import look_of, pictures, sheets
from flowjax.reporting.templating import rendered, verbatim
from flowjax.schedules import shown_time

PAGE = "explore.html"
BUDGET = 6_000_000
"""Characters for the pictures, so that the page stays below 8 MB."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """The data set that is explored.

    Attributes:
      name: of the data set.
      data: `[N, *shape]`, distinct samples; `counts`: how often each is there.
      labels, class_names: as a `DataSet` has them; None: without.
      by_class: each query competes within its own class.
      value_range: (low, high), shown as black and white.
      model: what the model is called; None: without one.
    """

    name: str
    data: Float[np.ndarray, "N *shape"]
    labels: Int[np.ndarray, " N"] | None
    class_names: tuple[str, ...] | None
    by_class: bool
    value_range: tuple[float, float]
    model: str | None = None

    def class_of(self, row: int) -> str | None:
        """The name of a sample's class."""
        if self.labels is None:
            return None
        label = int(self.labels[row])
        return str(label) if self.class_names is None else self.class_names[label]


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured on many queries.

    Attributes:
      num_queries: how many.
      top1: the mean top-1 weight at the times that are explored.
      turn, advice: the turning point, and what follows from it.
    """

    num_queries: int
    top1: Curve
    turn: stages.TurningPoint
    advice: stages.Advice


def takeaway(subject: Subject, found: stages.TurningPoint) -> str:
    """The sentence to take away."""
    where = f"{subject.name} (N = {len(subject.data):,}, D = {subject.data[0].size:,}{', by class' if subject.by_class else ''})"
    if found.measured is None:
        return f"On {where} no turning point was found: {found.reason}."
    remark = f" But {found.remark}." if found.remark else ""
    return (
        f"On {where} flow matching turns at t = {shown_time(found.measured)}: before it many samples share the oracle's velocity, after it "
        f"one sample has it alone.{remark}"
    )


def page_data(
    subject: Subject, found: Exploration, rows: Int[np.ndarray, " Q"], measured: Measured, frameworks: Sequence[str], num_steps: int
) -> dict[str, Any]:
    """What the script of the page reads; plain JSON.

    Args:
      rows: of the subject's data, the samples that the queries are made of.
      frameworks: names of `flowjax.conventions.CONVENTIONS`, or `steps_table.PLAIN`; the first is told first.
      num_steps: of a sampler.
    """
    shown, place = np.unique(found.heaviest.sample, return_inverse=True)
    look, ndim = look_of(subject.data, subject.value_range), subject.data.ndim - 1
    series = {"x_t": found.x_t} | found.one_step
    drawn = {name: pictures(values, look, ndim).swapaxes(0, 1) for name, values in series.items()}
    samples = pictures(subject.data[shown].astype(np.float32), look, ndim)
    columns = int(np.ceil(np.sqrt(len(samples))))
    padded = np.concatenate([samples, np.zeros((-len(samples) % columns, *samples.shape[1:]), np.uint8)])
    drawn["samples"] = padded.reshape(-1, columns, *padded.shape[1:])
    height, width = samples.shape[1:3]
    shifts, ends = steps_table.settings(measured.advice)
    turn, interval = measured.turn, measured.advice.guidance_interval.value
    return {
        "dataset": subject.name,
        "n": len(subject.data),
        "num_queries": measured.num_queries,
        "t": np.round(found.t, 6).tolist(),
        "top1": {name: np.round(values, 5).tolist() for name, values in measured.top1._asdict().items()},
        "turn": None if turn.measured is None else {"t": turn.measured, "low": turn.ci_low, "high": turn.ci_high},
        "advised": {
            "shift": None if measured.advice.shift.value is None else shifts.index(round(measured.advice.shift.value, 4)),
            "interval": None if interval is None else [ends.index(round(end, 4)) for end in interval],
        },
        "pictures": {"height": height, "width": width, "columns": columns, "sheets": sheets(drawn, BUDGET)},
        "samples": [{"row": int(row), "class": subject.class_of(int(row))} for row in shown],
        "queries": [{"row": int(row), "class": subject.class_of(int(row))} for row in rows],
        "competitors": _competitors(subject, rows).tolist(),
        "heaviest": place.reshape(found.heaviest.sample.shape).tolist(),
        "weights": _digits(found.heaviest.weight).tolist(),
        "effective": _digits(found.effective_samples).tolist(),
        "shifts": shifts,
        "directions": steps_table.directions(shifts),
        "ends": ends,
        "frameworks": [steps_table.offered(name, shifts, ends, num_steps) for name in frameworks],
    }


def write_page(path: pathlib.Path, data: Mapping[str, Any], subject: Subject, said: str, metadata: Mapping[str, Any]) -> None:
    """Writes the page to `path`.

    Args:
      data: of `page_data`.
      said: the sentence to take away.
      metadata: how it was made, printed at the foot.
    """
    script = verbatim("explorer.js")
    text = rendered(
        "explorer.html.j2",
        data=data,
        script=script,
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        curve=_curve(data),
        look=look_of(subject.data, subject.value_range).words,
        kinds=["x_t", "oracle", *(["model"] if subject.model is not None else [])],
        subject=subject,
        takeaway=said,
        metadata=metadata,
    )
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def _curve(data: Mapping[str, Any]) -> dict[str, str]:
    """The curve of the top-1 weight and its interval, as paths in a unit square whose y points down."""
    t, top1 = data["t"], data["top1"]
    line = " L".join(f"{x:.4f} {1 - y:.4f}" for x, y in zip(t, top1["mean"], strict=True))
    there = [f"{x:.4f} {1 - y:.4f}" for x, y in zip(t, top1["high"], strict=True)]
    back = [f"{x:.4f} {1 - y:.4f}" for x, y in zip(t, top1["low"], strict=True)]
    return {"mean": f"M{line}", "interval": "M" + " L".join(there + back[::-1]) + " Z"}


def _competitors(subject: Subject, rows: Int[np.ndarray, " Q"]) -> Int[np.ndarray, " Q"]:
    """Among how many samples the weight of each query is shared."""
    if subject.labels is None or not subject.by_class:
        return np.full(len(rows), len(subject.data))
    return (subject.labels[rows][:, None] == subject.labels).sum(1)


def _digits(values: np.ndarray) -> np.ndarray:
    """To four significant digits."""
    size = 10.0 ** (3 - np.floor(np.log10(np.maximum(np.abs(values), 1e-12))))
    return np.round(values * size) / size
