"""What your data say before you train: where flow matching will turn on them, and the settings that follow.

    python -m experiments.advise                                            # digits, in seconds
    python -m experiments.advise --config.data.path=FILE_OR_FOLDER          # yours: docs/data.md
    python -m experiments.advise --config.data.path=LATENTS --config.by_class=False     # for a model that is not told the class

The turning point is predicted from the data and measured; from it and the spectrum follow the share of steps before it, a timestep shift
and a guidance interval, each with the evidence there is for the rule, which is thin: docs/results.md. Writes config.json, summary.json,
advice.csv, figures/ and report.html to --workdir (runs/advise).
"""

import dataclasses
import time
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.data_flags import load_data
from flowjax import data, stages
from flowjax.oracle import Oracle
from flowjax.path import path_by_name
from flowjax.reporting.advice_figure import advice_figure
from flowjax.reporting.page import Section
from flowjax.reporting.workdir import WorkDir
from flowjax.schedules import shift, uniform_timesteps
from flowjax.stages import Advice, TurningPoint

COST_TIMES = np.linspace(0.01, 0.99, 50)
"""Of the sweep whose cost is told."""


def run(config: ConfigDict, workdir: WorkDir) -> str:
    """The whole experiment; returns the sentence to take away."""
    started = time.perf_counter()
    grid = uniform_timesteps(config.num_steps)
    path = path_by_name(config.path)
    samples = load_data(config.data)
    labels = samples.labels if config.by_class else None
    oracle = Oracle(samples.data, labels, path=path)
    predicted = stages.predict_turning_point_from_data(samples.data, labels, path)
    found = stages.measure_turning_point(oracle, label=None if labels is None else "own", num_queries=config.num_queries, seed=config.seed)
    eigenvalues = stages.covariance_spectrum(samples.data)
    settings = stages.advice(found.measured, eigenvalues, share=None, path=path)
    cost = oracle.relative_cost(COST_TIMES)
    rows = _rows(samples, labels is not None, found, predicted, settings, cost, grid)
    for row in rows:
        print(f"{row['what']:<40}{row['value']}")

    takeaway = _takeaway(samples, found, predicted, settings)
    origin = runner.provenance("advise", config, started)
    workdir.write_csv("advice.csv", rows)
    workdir.write_json(
        "summary.json",
        {
            "dataset": samples.name,
            "n": samples.n,
            "d": samples.d,
            "by_class": labels is not None,
            "turning_point": dataclasses.asdict(found) | {"predicted": predicted},
            "advice": dataclasses.asdict(settings),
            "relative_cost": {"t": COST_TIMES, "of a dense pass": cost},
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
            workdir.save_figure("advice", advice_figure(found, predicted, settings, grid)),
            alt="Stages, sampling steps and guidance interval on the axis of t",
        ),
    ]
    workdir.write_report("Before you train", takeaway, sections, origin)
    return takeaway


def _rows(
    samples: data.DataSet, by_class: bool, found: TurningPoint, predicted: float, settings: Advice, cost: np.ndarray, grid: np.ndarray
) -> list[dict[str, Any]]:
    """What is told, each with its range and what stands behind it."""
    spread = "" if found.measured is None else f"{found.ci_low:.3f} to {found.ci_high:.3f}"
    rows = [
        {
            "what": "turning point, measured" + (", by class" if by_class else ""),
            "value": "none" if found.measured is None else f"{found.measured:.3f}",
            "range": spread,
            "evidence": found.reason or "the exact oracle of these data; 95 % of a bootstrap over queries",
        },
        {
            "what": "turning point, predicted",
            "value": f"{predicted:.3f}",
            "range": "",
            "evidence": "within 8 % of measured on all whole data sets looked at: docs/exactness.md",
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
    if interval.value is not None and interval.range is not None:
        rows.append(
            {
                "what": "guidance interval in t",
                "value": f"{interval.value[0]:.2f} to {interval.value[1]:.2f}",
                "range": f"upper end {interval.range[0][1]:.2f} to {interval.range[1][1]:.2f}",
                "evidence": interval.evidence,
            }
        )
    return [
        *rows,
        {
            "what": "cost of an oracle sweep on this CPU",
            "value": f"{cost.mean():.0%} of dense passes",
            "range": f"{cost.min():.0%} to 100% by t" if cost.min() < 1 else "",
            "evidence": f"{samples.n:,} samples; as the planner expects (Oracle.relative_cost); what was timed: docs/performance.md",
        },
    ]


def _takeaway(samples: data.DataSet, found: TurningPoint, predicted: float, settings: Advice) -> str:
    if found.measured is None or settings.guidance_interval.value is None:
        return f"{samples.name} has no turning point: {found.reason}."
    low, high = settings.guidance_interval.value
    return (
        f"{samples.name} turns at t = {found.measured:.3f} (95 %: {found.ci_low:.3f} to {found.ci_high:.3f}; predicted {predicted:.3f}). "
        f"Look for the timestep shift near s = {settings.shift.value:.3g}, and for the guidance interval near [{low:.2f}, {high:.2f}]."
    )


if __name__ == "__main__":
    runner.main("advise", run)
