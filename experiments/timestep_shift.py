"""Which timestep shift samples best, and does the one that the turning point advises come near it?

    python -m experiments.timestep_shift                                       # digits; trains its model first
    python -m experiments.timestep_shift --config.model.path=runs/train        # a model of experiments.train, on its own data
    python -m experiments.timestep_shift --config.model.factory=my_model:make --config.data.path=FILE   # of your own: docs/your-model.md
    python -m experiments.timestep_shift --config=experiments/configs/timestep_shift.py:imagenet_vavae \\
        --config.model.path=CHECKPOINT.pt --config.data.path=FOLDER_OF_SHARDS

Table 2 of arXiv 2512.02826. Samples with grids of few steps, shifted towards noise (s < 1) or towards data (s > 1), are scored by their
Fréchet distance from held-out data, on the same noise for every shift. Marked beside the best is the advice of `flowjax.stages`, whose
constant comes from the paper's ImageNet: how far from the best it lands, here, is the test of it. Writes config.json, summary.json,
shift.csv, shift.md, figures/ and report.html to --workdir (runs/timestep_shift), and as it goes models/ and cells/: `--resume` trains
nothing and samples nothing again.
"""

import dataclasses
import time
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.common import app
from experiments.common.frechet_scores import NEAR, Scores, check, turn_and_advice
from experiments.common.trained_models import CELLS, MODELS, about_data, about_model, obtain, own_data, strength
from flowjax.analysis.paired_scores import PairedScores, percent
from flowjax.analysis.statistics import Interval
from flowjax.analysis.verdict import Verdict, judge
from flowjax.reporting import analysis_figures
from flowjax.reporting.page import Section, beside_the_paper
from flowjax.reporting.workdir import WorkDir
from flowjax.schedules import shift, uniform_timesteps

LIVE = (MODELS, CELLS)
FREE = app.ANY
PUBLISHED = {1.0: 12.99, 0.7: 12.46, 0.5: 12.23, 0.1: 19.91}
"""Table 2: s to gFID, 50 steps, ImageNet 256², turning point about 0.1."""


def run(config: ConfigDict, workdir: WorkDir) -> str:
    """The whole experiment; returns the sentence to take away."""
    started = time.perf_counter()
    check(config)
    shifts = _shifts(config)
    flow = obtain(config.model, workdir)
    training, _ = own_data(flow, config.data)
    turn, settings = turn_and_advice(flow, training, workdir, config.seed)
    advised = settings.shift.value
    shifts = sorted({*shifts, *([] if advised is None else [advised])})
    scores = Scores(config, flow, workdir)
    cells = [(n, s) for n in config.num_steps for s in shifts]
    found = {(n, s): scores({"model": flow.digest}, flow.field, shift(uniform_timesteps(n), s)) for n, s in app.progress("cells")(cells)}
    contests = {n: PairedScores(np.stack([found[n, s] for s in shifts])) for n in config.num_steps}
    results = {n: _result(paired, shifts, advised, n, turn.measured) for n, paired in contests.items()}
    verdict = _verdict(contests, shifts, results, strength(flow)["enough"])

    takeaway = _takeaway(training.name, results, advised, verdict)
    origin = app.provenance("timestep_shift", config, started)
    rows = [_row(s, shifts.index(s), shifts.index(1.0), contests, turn.measured, advised) for s in shifts]
    workdir.write_table("shift", rows)
    workdir.write_json(
        "summary.json",
        {
            **about_data(training),
            "model": about_model(flow),
            "turning_point": dataclasses.asdict(turn),
            "advice": dataclasses.asdict(settings.shift),
            "num_samples": config.num_samples,
            "num_seeds": config.num_seeds,
            "by_steps": results,
            "verdict": dataclasses.asdict(verdict),
            "takeaway": takeaway,
            "units": {"frechet": f"squared, in {config.quality.features} features", "t": "0 = noise, 1 = data"},
            **origin,
        },
    )
    figure = analysis_figures.shift_figure(np.array(shifts), contests, settings.shift, PUBLISHED)
    sections = [
        Section(
            "Fréchet distance against the shift",
            f"Left: here, {config.num_samples:,} samples on each of {config.num_seeds} seeds; bands: 95 % of the difference from "
            "s = 1 on the same noise. The advice is marked with its range. Right: the paper's.",
            workdir.save_figure("shift", figure),
            alt="Fréchet distance against the timestep shift",
        ),
        Section("Table 2, here and in the paper", _TABLE, table=rows),
        Section(
            "How far from the best the advice lands",
            "On each seed the best is the one of the other seeds. " + settings.shift.evidence,
            table=[{"steps": n, **_flat(result)} for n, result in results.items()],
        ),
        beside_the_paper(_PAPER, verdict),
    ]
    workdir.write_report("Which timestep shift samples best", takeaway, sections, origin)
    return takeaway


_PAPER = (
    "ImageNet 256², LightningDiT, 50 steps: s = 0.7 and 0.5 are better than no shift, s = 0.1, which spends 72 % of the steps at t <= 0.2, "
    "is worse. Its turning point lies at about 0.1."
)
_TABLE = "The share of 50 steps at t <= 0.2, which is how the paper tells a shift, and of all steps before this data set's turning point."


def _shifts(config: ConfigDict) -> list[float]:
    found = [float(s) for s in config.shifts]
    if len(found) < 2 or not config.num_steps:
        raise ValueError(f"shifts = {config.shifts}, num_steps = {config.num_steps}: expected at least two shifts and one number of steps")
    for s in found:
        shift(0.5, s)
    for n in config.num_steps:
        uniform_timesteps(n)
    return sorted({*found, 1.0})


def _result(paired: PairedScores, shifts: list[float], advised: float | None, n: int, turning_point: float | None) -> dict[str, Any]:
    """The numbers for one number of steps."""
    best, none = paired.best, shifts.index(1.0)
    found: dict[str, Any] = {
        "best": shifts[best],
        "best_share_before_turn": None if turning_point is None else _share(shifts[best], n, turning_point),
        "frechet": {"best": paired.score(best)._asdict(), "none": paired.score(none)._asdict()},
        "none_regret": paired.regret(none)._asdict(),
    }
    if advised is not None:
        index = shifts.index(advised)
        found["frechet"]["advised"] = paired.score(index)._asdict()
        found["advised_regret"] = paired.regret(index)._asdict()
        found["advised_against_none"] = paired.change(index, none)._asdict()
    return found


def _verdict(contests: dict[int, PairedScores], shifts: list[float], results: dict[int, dict[str, Any]], enough: bool | None) -> Verdict:
    checks = {}
    none = shifts.index(1.0)
    for n, paired in contests.items():
        mild = [(s, paired.change(shifts.index(s), none)) for s in (0.7, 0.5) if s in shifts]
        if mild:
            s, change = min(mild, key=lambda one: one[1].value)
            checks[f"{n} steps: a mild shift towards noise helps (s = {s:g}: {percent(change)})"] = change.high < 0
        if 0.1 in shifts:
            change = paired.change(shifts.index(0.1), none)
            checks[f"{n} steps: a strong one hurts (s = 0.1: {percent(change)})"] = change.low > 0
        if "advised_regret" in results[n]:
            regret = Interval(**results[n]["advised_regret"])
            checks[f"{n} steps: the advised shift lands within {NEAR:.0%} of the best ({percent(regret)})"] = regret.value <= NEAR
    return judge(checks, model_strong_enough=enough)


def _takeaway(name: str, results: dict[int, dict[str, Any]], advised: float | None, verdict: Verdict) -> str:
    told = "; ".join(
        f"at {n} steps the best shift is s = {found['best']:.3g}"
        + (f", and the advised {advised:.3g} lands {percent(Interval(**found['advised_regret']))} from it" if advised else "")
        for n, found in results.items()
    )
    return f"On {name}, {told}. {verdict.outcome.capitalize()}."


def _row(
    s: float, index: int, none: int, contests: dict[int, PairedScores], turning_point: float | None, advised: float | None
) -> dict[str, Any]:
    row: dict[str, Any] = {"s": s, "": "advised" if s == advised else "", "steps at t <= 0.2": _share(s, 50, 0.2)}
    if turning_point is not None:
        row["steps before the turn"] = _share(s, 1000, turning_point)
    for n, paired in contests.items():
        change = paired.change(index, none)
        row |= {f"Fréchet, {n} steps": paired.score(index).value, f"{n} steps, against s = 1": change.value}
        row |= {f"{n} steps, low": change.low, f"{n} steps, high": change.high}
    return row | {"paper, gFID": PUBLISHED.get(s)}


def _share(s: float, n: int, t: float) -> float:
    """Of n steps, those that begin at or before t."""
    return float(np.mean(shift(uniform_timesteps(n)[:-1], s) <= t + 1e-12))


def _flat(result: dict[str, Any]) -> dict[str, Any]:
    regret = result.get("advised_regret", {})
    return {
        "best s": result["best"],
        "steps before the turn": result["best_share_before_turn"],
        "advice from the best": regret.get("value"),
        "low": regret.get("low"),
        "high": regret.get("high"),
        "s = 1 from the best": result["none_regret"]["value"],
    }


if __name__ == "__main__":
    app.main("timestep_shift", run, live=LIVE, free=FREE)
