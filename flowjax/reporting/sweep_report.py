"""The report of an oracle sweep: its tables, its figures, its summary and the sentence to take away."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from flowjax import stages
from flowjax.analysis.data_sweep import ClassPoint, DataSweep
from flowjax.analysis.regime_times import RegimeTimes
from flowjax.analysis.sweep import COLUMNS
from flowjax.reporting import figures
from flowjax.reporting.page import Section
from flowjax.reporting.strip import strip_figure
from flowjax.reporting.workdir import WorkDir
from flowjax.schedules import shown_time


def takeaway(found: DataSweep, query: str) -> str:
    """The sentence to take away.

    Args:
      query: where the queries come from; "train" is not named.
    """
    samples, turn = found.samples, found.turning_point
    subject = f"{samples.name} (N = {samples.n:,}, D = {samples.d:,}{', by class' if found.by_class else ''})"
    if turn.measured is None:
        return f"On {subject} no turning point was found: {turn.reason}."
    where = "" if query == "train" else f" for queries from {query}"
    remark = "" if turn.remark is None else f" But {turn.remark}."
    return (
        f"On {subject} flow matching turns from navigation to refinement at t = {shown_time(turn.measured)} (95 %: "
        f"{shown_time(turn.ci_low)} to {shown_time(turn.ci_high)}){where}: before it many samples shape the velocity, after it one does."
        f"{remark}"
    )


def summary(found: DataSweep, query: Mapping[str, Any], said: str, implementation: str) -> dict[str, Any]:
    """`summary.json`, but for the run's provenance.

    Args:
      query: what the queries were, by key.
      said: the sentence to take away.
    """
    samples, prediction = found.samples, found.predictions.from_data
    return {
        "dataset": samples.name,
        "n": samples.n,
        "d": samples.d,
        "num_classes": samples.num_classes,
        "by_class": found.by_class,
        **query,
        "turning_point": dataclasses.asdict(found.turning_point)
        | {
            "predicted": prediction.t,
            "predicted_low": prediction.low,
            "predicted_high": prediction.high,
            "prediction_unsure": prediction.unsure,
            "predicted_from_spectrum": found.predictions.from_spectrum,
        },
        "advice": _advice(found.advice),
        "verdict": None if found.verdict is None else dataclasses.asdict(found.verdict),
        "takeaway": said,
        "units": {"t": "0 = noise, 1 = data", "cfm_gap": "squared data units, summed over D", "entropy": "nats"},
        "implementation": implementation,
        "provenance": dict(samples.provenance),
    }


def _advice(settings: stages.Advice) -> dict[str, Any]:
    return {
        "shift": settings.shift.value,
        "shift_range": settings.shift.range,
        "shift_evidence": settings.shift.evidence,
        "guidance_interval": settings.guidance_interval.value,
        "guidance_interval_range": settings.guidance_interval.range,
        "guidance_interval_evidence": settings.guidance_interval.evidence,
    }


def write_tables(workdir: WorkDir, found: DataSweep) -> None:
    """`sweep.csv`, a row for each t; and `classes.csv` where there are classes."""
    workdir.write_csv("sweep.csv", [_row(found, i) for i in range(len(found.times))])
    if found.classes:
        workdir.write_csv("classes.csv", [_class_row(point) for point in found.classes])


def _row(found: DataSweep, i: int) -> dict[str, float]:
    row = {"t": float(found.times[i])}
    for name in COLUMNS:
        mean, low, high = (float(part[i]) for part in found.curves[name])
        row |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    return row


def _class_row(point: ClassPoint) -> dict[str, Any]:
    low, high = point.interval or (None, None)
    return {"class": point.name, "measured": point.measured, "ci_low": low, "ci_high": high, "predicted": point.predicted}


def _predicted(found: DataSweep) -> dict[str, float]:
    return {"from the data": found.predictions.from_data.t, "from the spectrum": found.predictions.from_spectrum}


def regimes_section(regimes: RegimeTimes, turning_point: float | None) -> Section:
    """Speciation and collapse beside the turning point, in a table."""
    decided = regimes.classes_decided
    rows = [{"transition": "speciation: ρ² Λ = 1", "t": regimes.speciation, "95 % from": None, "to": None}]
    if decided is not None:
        rows.append({"transition": "half of the classes decided", "t": decided.t, "95 % from": decided.low, "to": decided.high})
    collapse = regimes.collapse
    rows += [
        {"transition": "turning point, measured", "t": turning_point, "95 % from": None, "to": None},
        {"transition": "collapse: excess entropy 0", "t": collapse.t, "95 % from": collapse.low, "to": collapse.high},
    ]
    if regimes.gaussian_collapse is not None:
        rows.append({"transition": "collapse of a Gaussian of this covariance", "t": regimes.gaussian_collapse})
    return Section("Speciation and collapse", f"{regimes.sentence()} docs/analysis.md has the criteria.", table=rows)


def _regime_marks(regimes: RegimeTimes | None) -> dict[str, float | None]:
    return {} if regimes is None else {"speciation": regimes.speciation, "collapse": regimes.collapse.t}


def figure_sections(workdir: WorkDir, found: DataSweep, regimes: RegimeTimes | None = None) -> list[Section]:
    """The figures, drawn into the workdir, each with what it shows; speciation and collapse are marked where they are given."""
    samples, times, curves, turn = found.samples, found.times, found.curves, found.turning_point.measured
    low, high = found.turning_point.ci_low, found.turning_point.ci_high
    interval = None if low is None or high is None else (low, high)
    even = np.flatnonzero(found.even)
    shown = even[np.unique(np.linspace(0, len(even) - 1, min(12, len(even))).round().astype(int))]
    assert samples.value_range is not None
    classes = samples.labels if found.classes and samples.labels is not None else None
    competing = samples.n if classes is None else float(np.unique_counts(classes).counts.max())
    drawings = {
        "top1": (
            figures.top1_figure(times, curves["top1_weight"], turn, interval, _predicted(found)),
            "Weight of the likeliest sample",
            "The mean posterior weight of the likeliest sample. Where it crosses one half the stages meet; both predictions are marked.",
        ),
        "gap": (
            figures.gap_figure(times, curves["monte_carlo_gap"], curves["cfm_gap"], turn),
            "How far the training target lies from the oracle",
            "E‖u_cond - u*‖², by Monte Carlo over the queries and as A² tr Cov[x_1 | x_t]: two estimates of one number. Only in navigation "
            "does the CFM target differ from the velocity that the model is to learn.",
        ),
        "entropy": (
            figures.entropy_figure(
                times, curves["entropy"], curves["effective_samples"], float(np.log(competing)), turn, _regime_marks(regimes)
            ),
            "How many samples compete",
            "Entropy of the posterior weights, and effective samples 1 / Σ γ²; speciation and collapse of Biroli et al. are marked.",
        ),
        "strip": (
            strip_figure(times[shown], found.sweep.x_t[:, shown], found.sweep.one_step[:, shown], samples.value_range, turn),
            "What the oracle sees, and what it makes of it",
            "Above: x_t. Below: one Euler step from t to 1 along the oracle. The mean of all that competes turns into a single sample.",
        ),
    }
    if found.classes:
        drawings["classes"] = (
            figures.classes_figure(found.classes, turn),
            "Class by class",
            "The turning point of each class, from its own queries; the prediction is from its own samples.",
        )
    return [
        Section(heading, text, workdir.save_figure(name, figure), alt=f"{heading}: {text}")
        for name, (figure, heading, text) in drawings.items()
    ]


def table_sections(found: DataSweep) -> list[Section]:
    """The tables: the turning point, what follows, some of the times, the data."""
    turn, prediction, settings = found.turning_point, found.predictions.from_data, found.advice
    turning = [{"turning point": "measured", "t": turn.measured, "95 % from": turn.ci_low, "to": turn.ci_high}]
    spans = {"from the data": (prediction.low, prediction.high)}
    for how, t in _predicted(found).items():
        low, high = spans.get(how, (None, None))
        turning.append({"turning point": f"predicted {how}", "t": t, "95 % from": low, "to": high})
    said = ["The t at which the mean top-1 weight crosses one half."]
    said += [f"None was found: {turn.reason}."] if turn.reason else [f"But {turn.remark}."] if turn.remark else []
    said += [f"The prediction from the data is unsure: {prediction.unsure}."] if prediction.unsure else []
    advised = [
        {"setting": "timestep shift s", "value": _shown(settings.shift.value), "range": _shown(settings.shift.range)},
        {
            "setting": "guidance interval in t",
            "value": _shown(settings.guidance_interval.value),
            "range": _shown(settings.guidance_interval.range),
        },
    ]
    every = max(1, len(found.times) // 12)
    rows = [
        {"t": float(t)} | {name: float(found.curves[name].mean[i]) for name in COLUMNS} for i, t in enumerate(found.times) if i % every == 0
    ]
    data = [{"key": k, "value": str(v)} for k, v in found.samples.provenance.items()]
    return [
        Section("The turning point", " ".join(said), table=turning),
        Section("What follows", " ".join(dict.fromkeys((settings.shift.evidence, settings.guidance_interval.evidence))), table=advised),
        Section("The sweep", "Means over queries; all times, with intervals, are in sweep.csv.", table=rows),
        Section("The data", "Where they came from.", table=data),
    ]


def _shown(value: Any) -> str:
    """A number, an interval or a range of intervals, for a table."""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return " to ".join(stages.interval_in_words(part) if isinstance(part, tuple) else _shown(part) for part in value)
    return f"{value:.3g}"
