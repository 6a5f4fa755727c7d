"""`experiments.hybrid_sampling --config.start=heldout`: is refinement faithful to samples that the model was never trained on?"""

import dataclasses
import time
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments.common import app
from experiments.common.trained_models import (
    about_data,
    about_model,
    obtain,
    own_oracle,
    own_turning_point,
    strength,
    told_classes,
    training_and_unseen,
)
from flowjax import data, stages
from flowjax.analysis.hybrid import Steps
from flowjax.analysis.resumed import Baseline, Faithful, Originals, baseline_of, faithfulness, resumed_samples
from flowjax.analysis.statistics import Interval, bootstrap_interval, mean_curve, share
from flowjax.analysis.sweep import draw_pairs
from flowjax.analysis.verdict import Verdict, judge
from flowjax.metrics.neighbours import NeighbourSearch, Rows
from flowjax.models.flow import Flow
from flowjax.reporting import resumed_figures
from flowjax.reporting.page import Section, beside_the_paper
from flowjax.reporting.workdir import WorkDir
from flowjax.sampling import Solver
from flowjax.schedules import uniform_timesteps
from flowjax.stages import TurningPoint

FARTHER = 0.1
"""By how much the way back to held-out originals may be longer than to training ones for the model to be as faithful to both."""


class Resumed(NamedTuple):
    """Samples resumed from originals of one kind, and how faithful they are."""

    originals: Originals
    samples: np.ndarray
    found: Faithful


class Told(NamedTuple):
    """What the verdict is about: means over the t_switch of refinement, with intervals over originals."""

    kept: Interval
    copies: Interval
    farther: Interval
    """The distance from held-out originals over that from training ones, less 1."""


def run(config: ConfigDict, workdir: WorkDir, switches: np.ndarray) -> str:
    """The whole experiment; returns the sentence to take away."""
    started = time.perf_counter()
    solver = Solver(config.solver)
    flow = obtain(config.model, workdir)
    training, heldout = training_and_unseen(flow, config)
    steps = Steps(uniform_timesteps(config.num_steps) * flow.path.t_max, switches)
    look = NeighbourSearch(Rows.of(training.data))
    base = baseline_of(look, heldout.data)
    runs = {name: _resumed(config, flow, solver, steps, part, look, base) for name, part in (("held-out", heldout), ("training", training))}
    target = own_turning_point(own_oracle(flow, training), config.seed)
    unseen = runs["held-out"].found
    faithful = stages.turning_point_of_curve(steps.t_switch, unseen.kept.astype(np.float64), seed=config.seed)
    told = _told(runs, steps.t_switch, target, config.seed)
    verdict = _verdict(told, target, base, strength(flow)["enough"])

    takeaway = _takeaway(training.name, target, faithful, told, verdict)
    origin = app.provenance("hybrid_sampling", config, started)
    rows = _rows(steps.t_switch, runs)
    workdir.write_csv("resumed.csv", rows)
    workdir.write_json(
        "summary.json",
        {
            **about_data(training),
            "n_heldout": heldout.n,
            "num_classes": training.num_classes,
            "model": about_model(flow),
            "start": config.start,
            "num_samples": {name: len(part.originals.x_1) for name, part in runs.items()},
            "target_turning_point": dataclasses.asdict(target),
            "faithful_from": dataclasses.asdict(faithful),
            "in_refinement": None if told is None else {name: part._asdict() for name, part in told._asdict().items()},
            "heldout_copies": base.copies._asdict(),
            "verdict": dataclasses.asdict(verdict),
            "takeaway": takeaway,
            "units": {"t": "0 = noise, 1 = data", "distances": "1 = mean distance of a held-out sample from its nearest training sample"},
            **origin,
        },
    )
    drawn = [
        *_drawn(config, workdir, runs, steps.t_switch, training, target, faithful, base),
        beside_the_paper(_PAPER, verdict),
        Section("In numbers", "All are in resumed.csv.", table=rows),
    ]
    workdir.write_report("Resumed from noised held-out samples", takeaway, drawn, origin)
    return takeaway


def _resumed(
    config: ConfigDict, flow: Flow, solver: Solver, steps: Steps, part: data.DataSet, look: NeighbourSearch, base: Baseline
) -> Resumed:
    """Resume from noised samples of one set, each drawn once at most."""
    labels = part.labels if told_classes(flow, part) else None
    pairs = draw_pairs(part.data, min(config.num_samples, part.n), config.seed, labels=labels, exhaust=True)
    originals = Originals(np.asarray(pairs.x_1), np.asarray(pairs.x_0), None if pairs.labels is None else np.asarray(pairs.labels))
    samples = resumed_samples(
        flow.field, flow.path, originals, steps, solver=solver, batch_size=config.batch_size, progress=app.progress("t_switch")
    )
    near = look(originals.x_1.reshape(len(originals.x_1), -1), 1)
    own_row = np.where(near.distance[:, 0] == 0, near.row[:, 0], -1)  # of training originals, and of duplicates of held-out ones
    return Resumed(originals, samples, faithfulness(samples, originals.x_1, look, base.unit, own_row))


_PAPER = (
    "ImageNet 256², LightningDiT (project page, Fig. 6): resumed from noised validation latents at t >= 0.2, sampling gives back the "
    "validation image; the data turn at 0.1."
)


def _told(runs: dict[str, Resumed], t_switch: np.ndarray, target: TurningPoint, seed: int) -> Told | None:
    """None where there is no refinement to speak of."""
    late = np.zeros(len(t_switch), bool) if target.measured is None else (t_switch >= target.measured) & (t_switch < 1)
    if not late.any():
        return None
    unseen, seen = runs["held-out"].found, runs["training"].found
    mean = lambda values: bootstrap_interval(np.mean, values[late].mean(0), seed=seed)  # noqa: E731
    farther = bootstrap_interval(
        lambda one, other: one.mean() / other.mean() - 1, unseen.own[late].mean(0), seen.own[late].mean(0), seed=seed
    )
    return Told(mean(unseen.kept), mean(unseen.copies), farther)


def _verdict(told: Told | None, target: TurningPoint, base: Baseline, enough: bool | None) -> Verdict:
    if told is None:
        return judge({f"the data turn ({target.reason or 'after every t_switch'})": False}, model_strong_enough=enough)
    kept, copies, farther = told
    return judge(
        {
            "resumed in refinement, most samples are nearer to their held-out original than to any training sample "
            f"({kept.value:.1%}, 95 %: {kept.low:.1%} to {kept.high:.1%})": kept.low > 0.5,
            f"no more of them are copies than held-out data hold ({copies.value:.1%}, 95 % from {copies.low:.1%}; "
            f"held-out data {base.copies.value:.1%}, up to {base.copies.high:.1%})": copies.low <= base.copies.high,
            f"the model is as faithful to held-out samples as to those it was trained on, within {FARTHER:.0%} (distance from the original "
            f"{farther.value:+.1%}, 95 %: {farther.low:+.1%} to {farther.high:+.1%})": farther.high <= FARTHER,
        },
        model_strong_enough=enough,
    )


def _takeaway(name: str, target: TurningPoint, faithful: TurningPoint, told: Told | None, verdict: Verdict) -> str:
    if faithful.measured is None:
        where = f"there is no t_switch at which it becomes faithful to them: {faithful.reason}"
    else:
        where = (
            f"half of the samples are nearer to their original than to any training sample from t = {faithful.measured:.2f} on "
            f"(95 %: {faithful.ci_low:.2f} to {faithful.ci_high:.2f})"
        )
    beside = "" if target.measured is None else f"; the target turns at t = {target.measured:.2f}"
    share_late = "" if told is None else f", and over refinement {told.kept.value:.0%} are"
    return f"On {name}, resumed from noised held-out samples, {where}{share_late}{beside}. {verdict.outcome.capitalize()}."


def _rows(t_switch: np.ndarray, runs: dict[str, Resumed]) -> list[dict[str, Any]]:
    rows = []
    for name, (_, _, found) in runs.items():
        own, other = mean_curve(found.own), mean_curve(found.other)
        for i, (switch, part, copied) in enumerate(zip(t_switch, found.shares(), found.copies, strict=True)):
            rows.append(
                {
                    "originals": name,
                    "t_switch": float(switch),
                    "nearest to the original": part.value,
                    "low": part.low,
                    "high": part.high,
                    "copies": share(copied).value,
                    **{
                        f"distance to {what}{end}": float(values[i])
                        for what, curve in (("original", own), ("nearest other", other))
                        for end, values in (("", curve.mean), (", low", curve.low), (", high", curve.high))
                    },
                }
            )
    return rows


def _drawn(
    config: ConfigDict,
    workdir: WorkDir,
    runs: dict[str, Resumed],
    t_switch: np.ndarray,
    training: data.DataSet,
    target: TurningPoint,
    faithful: TurningPoint,
    base: Baseline,
) -> list[Section]:
    """The figures."""
    found = {name: part.found for name, part in runs.items()}
    unseen = runs["held-out"]
    return [
        Section(
            "How faithful it is",
            "Left: the share of samples nearer to their original than to any other training sample, and of copies. Right: the mean "
            "distance to the original and, dashed, to the nearest other training sample. Originals are held out from training, or of it; "
            "bands are of 95 % over originals.",
            workdir.save_figure("faithfulness", resumed_figures.faithfulness_figure(t_switch, found, target, faithful, base.copies)),
            alt="Share nearer to the original, and distances, against t_switch",
        ),
        Section(
            "What they look like",
            "The first row has held-out originals. Each row below resumes from them at another t_switch; to the right of each sample "
            "is its nearest training sample.",
            workdir.save_figure(
                "samples",
                resumed_figures.resumed_figure(t_switch, unseen.originals.x_1, unseen.samples, unseen.found, training, config.show),
            ),
            alt="Held-out originals, and samples resumed from them",
        ),
    ]
