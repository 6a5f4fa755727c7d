"""What your data say before you train: where flow matching will turn on them, and the settings that follow.

    python -m experiments.advise                                            # digits, in seconds
    python -m experiments.advise --config.data.path=FILE_OR_FOLDER          # yours: docs/data.md
    python -m experiments.advise --config.data.path=LATENTS --config.by_class=False     # for a model that is not told the class
    python -m experiments.advise --config.for=diffusers     # or sd3, flux, lightningdit, ddt, sit, rae, repa, jit, edm, comfyui

The turning point is predicted from the data and measured; from it and the spectrum follow the share of steps before it, a timestep shift
and a guidance interval, each with the evidence there is for the rule, which is thin: docs/results.md. Both are told as a line to paste, in
the units of each framework in which models are trained, and beside the shifts that people set by rule. Writes config.json, summary.json,
advice.csv, frameworks.csv, rules.csv, figures/ and report.html to --workdir (runs/advise).
"""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.common import app
from experiments.common.data import load_data
from flowjax import data, stages
from flowjax.analysis.rules_of_thumb import rules_of_thumb
from flowjax.conventions import CONVENTIONS, direction, told
from flowjax.oracle import Oracle
from flowjax.path import RectifiedFlow, path_by_name
from flowjax.reporting.advice_figure import advice_figure
from flowjax.reporting.page import Section
from flowjax.reporting.workdir import WorkDir
from flowjax.schedules import shift, shown_time, uniform_timesteps
from flowjax.stages import Advice, Prediction, TurningPoint


def run(config: ConfigDict, workdir: WorkDir) -> str:
    """The whole experiment; returns the sentence to take away."""
    started = time.perf_counter()
    grid = uniform_timesteps(config.num_steps)
    path = path_by_name(config.path)
    names = _names(config)
    samples = load_data(config.data)
    labels = samples.labels if config.by_class else None
    oracle = Oracle(samples.data, labels, path=path)
    predicted = stages.predict_turning_point_with_interval(samples.data, labels, path)
    found = stages.measure_turning_point(oracle, label=None if labels is None else "own", num_queries=config.num_queries, seed=config.seed)
    eigenvalues = stages.covariance_spectrum(samples.data)
    settings = stages.advice(found.measured, eigenvalues, share=None, path=path)
    rows = _rows(samples, labels is not None, found, predicted, settings, grid)
    for row in rows:
        print(f"{row['what']:<40}{row['value']}")
    units = {name: told(name, settings.shift.value, settings.guidance_interval.value, config.num_steps) for name in names}
    for unit in units.values():
        _print_unit(unit)
    rules = _rules(samples, found, settings)

    takeaway = _takeaway(samples, labels is not None, found, predicted, settings)
    origin = app.provenance("advise", config, started)
    workdir.write_csv("advice.csv", rows)
    workdir.write_csv("frameworks.csv", [{"for": name, **unit} for name, unit in units.items()])
    workdir.write_csv("rules.csv", rules)
    workdir.write_json(
        "summary.json",
        {
            "dataset": samples.name,
            "n": samples.n,
            "d": samples.d,
            "by_class": labels is not None,
            "turning_point": dataclasses.asdict(found)
            | {
                "predicted": predicted.t,
                "predicted_low": predicted.low,
                "predicted_high": predicted.high,
                "prediction_unsure": predicted.unsure,
                "near_duplicates": predicted.near_duplicates,
            },
            "advice": dataclasses.asdict(settings),
            "frameworks": units,
            "rules_of_thumb": rules,
            "takeaway": takeaway,
            "units": {"t": "0 = noise, 1 = data"},
            "provenance": dict(samples.provenance),
            **origin,
        },
    )
    sections = [
        Section("What follows", "Ranges are those that the evidence allows.", table=rows),
        Section(
            "On the axis of time",
            f"Where {config.num_steps} steps of a sampler lie, as they are and shifted as advised; and over which t guidance is advised.",
            workdir.save_figure("advice", advice_figure(found, predicted.t, settings, grid)),
            alt="Stages, sampling steps and guidance interval on the axis of t",
        ),
        *_unit_sections(units, config.num_steps),
        Section("Beside the rules in use", _RULES, table=rules),
    ]
    workdir.write_report("Before you train", takeaway, sections, origin)
    return takeaway


_RULES = (
    "The shift that each rule sets for samples of this shape, in the same units as the advice: below 1 more of the steps lie near noise. "
    "None of them looks at the data. What they cost on digits and Fashion-MNIST: docs/results.md."
)
_UNITS = (
    "The same advice as a line for each framework's configuration or call. The shift moves the steps in the direction that is named, "
    "however the framework counts its time; the interval is meant with that shift in use, and {num_steps} steps."
)


def _names(config: ConfigDict) -> list[str]:
    """Whose units are told."""
    asked = config.for_
    if asked != "all":
        told(asked, None, None, config.num_steps)
    if path_by_name(config.path) != RectifiedFlow():
        if asked != "all":
            raise ValueError(
                f"for = {asked!r}, path = {config.path!r}: frameworks' units are those of rectified_flow; leave one of them out"
            )
        return []
    return list(CONVENTIONS) if asked == "all" else [asked]


def _print_unit(unit: Mapping[str, Any]) -> None:
    """The lines to paste."""
    lines = [unit["shift_line"], unit["interval_line"]]
    if any(lines):
        print(f"\n{unit['framework']}{': ' + unit['direction'] if unit['direction'] else ''}")
    for line in filter(None, lines):
        print(f"    {line}")


def _unit_sections(units: Mapping[str, Mapping[str, Any]], num_steps: int) -> list[Section]:
    """The advice in the frameworks' units."""
    rows = [
        {
            "framework": unit["framework"],
            "its time": unit["time"],
            "steps": unit["direction"],
            "shift": unit["shift_line"],
            "guidance interval": unit["interval_line"],
            "to know": unit["note"],
        }
        for unit in units.values()
    ]
    return [Section("In your framework's units", _UNITS.format(num_steps=num_steps), table=rows)] if rows else []


def _rules(samples: data.DataSet, found: TurningPoint, settings: Advice) -> list[dict[str, Any]]:
    """The rules in use, and the advice, as shifts of these data."""
    shifts = [(rule.name, rule.formula, rule.s) for rule in rules_of_thumb(samples.shape)]
    if settings.shift.value is not None:
        shifts.insert(0, ("this advice", "t*^0.8 of the steps before the turning point t*", settings.shift.value))
    steps = uniform_timesteps(1000)[:-1]
    return [
        {
            "rule": name,
            "formula": formula,
            "s": s,
            "direction": direction(s),
            "steps before the turn": None if found.measured is None else float(np.mean(shift(steps, s) < found.measured)),
        }
        for name, formula, s in shifts
    ]


def _rows(
    samples: data.DataSet, by_class: bool, found: TurningPoint, predicted: Prediction, settings: Advice, grid: np.ndarray
) -> list[dict[str, Any]]:
    """Rows of the table: each setting, its range and its evidence."""
    spread = "" if found.measured is None else f"{shown_time(found.ci_low)} to {shown_time(found.ci_high)}"
    measured = "the exact oracle of these data; 95 % of a bootstrap over queries"
    rows = [
        {
            "what": "turning point, measured" + (", by class" if by_class else ""),
            "value": shown_time(found.measured),
            "range": spread,
            "evidence": found.reason or (f"{measured}. But {found.remark}" if found.remark else measured),
        },
        {
            "what": "turning point, predicted",
            "value": shown_time(predicted.t),
            "range": f"{shown_time(predicted.low)} to {shown_time(predicted.high)}",
            "evidence": predicted.unsure
            or predicted.near_duplicates
            or "within 8 % of measured on all whole data sets measured: docs/exactness.md",
        },
    ]
    if found.measured is not None:
        rows.append(
            {
                "what": f"of {len(grid) - 1} uniform steps, before the turn",
                "value": f"{np.mean(grid[:-1] < found.measured):.0%}",
                "range": "",
                "evidence": "arithmetic",
            }
        )
    if settings.shift.value is not None and settings.shift.range is not None and found.measured is not None:
        low, high = settings.shift.range
        before = np.mean(shift(grid[:-1], settings.shift.value) < found.measured)
        rows.append(
            {
                "what": "timestep shift s",
                "value": f"{settings.shift.value:.3g} ({before:.0%} of the steps before the turn)",
                "range": f"{low:.3g} to {high:.3g}",
                "evidence": settings.shift.evidence,
            }
        )
    interval = settings.guidance_interval
    rows.append(
        {
            "what": "guidance interval in t",
            "value": "none" if interval.value is None else stages.interval_in_words(interval.value),
            "range": "" if interval.range is None else " to ".join(stages.interval_in_words(end) for end in interval.range),
            "evidence": interval.evidence,
        }
    )
    return [
        *rows,
    ]


def _takeaway(samples: data.DataSet, by_class: bool, found: TurningPoint, predicted: Prediction, settings: Advice) -> str:
    subject = f"{samples.name}{', by class,' if by_class else ''}"
    if found.measured is None:
        return f"{subject} has no turning point: {found.reason}."
    interval = settings.guidance_interval.value
    guidance = "no guidance interval is advised" if interval is None else f"the guidance interval near {stages.interval_in_words(interval)}"
    return (
        f"{subject} turns at t = {shown_time(found.measured)} (95 %: {shown_time(found.ci_low)} to {shown_time(found.ci_high)}; "
        f"predicted {shown_time(predicted.t)}{', which is unsure' if predicted.unsure else ''}). "
        + (f"But {found.remark}." if found.remark else f"Look for the timestep shift near s = {settings.shift.value:.3g}; {guidance}.")
        + (f" But {predicted.near_duplicates}." if predicted.near_duplicates else "")
    )


if __name__ == "__main__":
    app.main("advise", run)
