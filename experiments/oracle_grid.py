"""The turning point of unit Gaussians over a grid of D and N, measured and predicted: preset `gaussian_grid` of `oracle_sweep`."""

import dataclasses
import time
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.common import app
from flowjax import data, stages
from flowjax.analysis.statistics import mean_interval
from flowjax.analysis.verdict import PREDICTED_WITHIN, Verdict, judge
from flowjax.oracle import Oracle
from flowjax.path import Path, path_by_name
from flowjax.reporting.page import Section
from flowjax.reporting.workdir import WorkDir

OTHER = 10_000
"""From the seed of a draw to that of its queries: of one seed noise and data can be the same numbers."""


def run(config: ConfigDict, workdir: WorkDir) -> str:
    """Measure every pair of D and N over several draws of the data; returns the sentence to take away."""
    from flowjax.reporting import figures

    started = time.perf_counter()
    path = path_by_name(config.path)
    cells = [(int(d), int(n)) for d in config.grid.d for n in config.grid.n]
    rows = [_cell(config, d, n, path) for d, n in app.progress("cells")(cells)]
    points = [figures.GridPoint(row["d"], row["n"], row["predicted"], row["measured"], (row["ci_low"], row["ci_high"])) for row in rows]
    furthest = max(abs(row["predicted_over_measured"] - 1) for row in rows)
    takeaway = (
        f"On unit Gaussians the turning point falls with D and rises with N; the prediction is within {furthest:.1%} "
        f"of the mean over {config.grid.draws} draws in each of {len(rows)} cells."
    )
    origin = app.provenance("oracle_sweep", config, started)
    workdir.write_csv("sweep.csv", rows)
    reason = "a grid has a turning point in every cell: see sweep.csv"
    workdir.write_json(
        "summary.json",
        {
            "dataset": "unit Gaussians",
            "n": list(config.grid.n),
            "d": list(config.grid.d),
            "num_classes": None,
            "turning_point": {"measured": None, "ci_low": None, "ci_high": None, "predicted": None, "reason": reason},
            "advice": {"shift": None, "guidance_interval": None, "reason": reason},
            "cells": rows,
            "verdict": dataclasses.asdict(_verdict(rows)),
            "takeaway": takeaway,
            "units": {"t": "0 = noise, 1 = data"},
            "implementation": Oracle(np.zeros((1, 1), np.float32)).implementation,
            **origin,
        },
    )
    figure = workdir.save_figure("grid", figures.grid_figure(points))
    sections = [
        Section(
            "Turning point over D and N",
            "Points: measured, mean over draws with its 95 % interval. Lines: predicted from the sample covariance spectrum and N alone.",
            figure,
            alt="Turning point against N, one line for each D",
        ),
        Section("Every cell", "'annealed' is the criterion of infinite N, ½ Σ log(1 + ρ²λ) = log N.", table=rows),
    ]
    workdir.write_report("Where unit Gaussians turn", takeaway, sections, origin)
    return takeaway


def _verdict(rows: list[dict[str, Any]]) -> Verdict:
    def monotonic(along: str, across: str, sign: int) -> bool:
        """Whether the turning point moves one way along every row or column of the grid."""
        lines = [
            [row["measured"] for row in sorted(rows, key=lambda row: row[along]) if row[across] == at]
            for at in {row[across] for row in rows}
        ]
        return all((sign * np.diff(line) > 0).all() for line in lines)

    furthest = max(abs(row["predicted_over_measured"] - 1) for row in rows)
    return judge(
        {
            "the turning point falls with D for every N": monotonic("d", "n", -1),
            "it rises with N for every D": monotonic("n", "d", 1),
            f"it is predicted within {PREDICTED_WITHIN:.0%} in every cell ({furthest:.1%})": furthest <= PREDICTED_WITHIN,
        }
    )


def _cell(config: ConfigDict, d: int, n: int, path: Path) -> dict[str, Any]:
    draws = [data.load("gaussian", n=n, d=d, seed=config.seed + draw) for draw in range(config.grid.draws)]
    eigenvalues = stages.covariance_spectrum(draws[0].data)  # of the first draw: it hardly differs between draws
    predicted = stages.predict_turning_point(eigenvalues, n, path)
    # The measurement covers a wide window about the prediction, on a grid of its own.
    times = np.unique(np.clip(predicted * np.linspace(0.5, 1.6, config.grid.num_t), 0, 0.995))
    found = [
        stages.measure_turning_point(Oracle(draw.data, path=path), times, num_queries=config.num_queries, seed=config.seed + OTHER + i)
        for i, draw in enumerate(draws)
    ]
    missed = next((point.reason for point in found if point.measured is None), None)
    if missed is not None:
        raise ValueError(f"grid cell d={d}, n={n}: no turning point within {times[0]:.3f} to {times[-1]:.3f}: {missed}")
    mean, low, high = mean_interval(np.array([point.measured for point in found], float))
    return {
        "d": d,
        "n": n,
        "measured": mean,
        "ci_low": low,
        "ci_high": high,
        "predicted": predicted,
        "annealed": stages.annealed_turning_point(eigenvalues, n, path),
        "predicted_over_measured": predicted / mean,
    }
