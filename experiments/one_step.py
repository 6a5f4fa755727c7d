"""When along a sampling run is the layout decided, and when the details?

    python -m experiments.one_step                                      # digits; trains its model first: some minutes
    python -m experiments.one_step --config.model.path=runs/train       # a model of experiments.train, on its own data
    python -m experiments.one_step --config.model.factory=my_model:make --config.data.path=FILE   # of your own: docs/your-model.md

Finding 4 of arXiv 2512.02826. At every step of a run, one Euler step from t to 1 shows where the field now thinks that the run will end:
the mean of the class at first, one sample at last. Followed along the model and along the oracle, from the same noise; layout is the low
frequencies of these predictions, details the high ones, and each is settled where it has come nine tenths of the way from its first
guess to where the run ends. Writes config.json, summary.json, settling.csv, figures/ and report.html to --workdir (runs/one_step), and
there in models/ what it trained: `--resume` does not train again.
"""

import dataclasses
import time
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.common import app
from experiments.common.trained_models import MODELS, about_data, about_model, obtain, own_data, own_oracle, own_turning_point, strength
from flowjax import data
from flowjax.analysis.decision_times import Settled, Settling, settled_at, settling, settling_curves
from flowjax.analysis.statistics import Curve
from flowjax.analysis.verdict import Verdict, judge
from flowjax.fields import Field, OracleField
from flowjax.reporting import sampling_figures
from flowjax.reporting.page import Section, beside_the_paper
from flowjax.reporting.strip import strip_figure
from flowjax.reporting.workdir import WorkDir
from flowjax.sampling import Solver, Trajectory, draw_labels, in_batches, noise, trajectory
from flowjax.schedules import uniform_timesteps
from flowjax.stages import TurningPoint

LIVE = (MODELS,)
FREE = app.ANY
MEAN_ENOUGH = 0.05
"""Of the variance within a class: how far from its mean the first prediction may lie, squared, to be called that."""


def run(config: ConfigDict, workdir: WorkDir) -> str:
    """The whole experiment; returns the sentence to take away."""
    started = time.perf_counter()
    _check(config)
    solver = Solver(config.solver)
    flow = obtain(config.model, workdir)
    training, _ = own_data(flow, config.data)
    oracle = own_oracle(flow, training)
    label = draw_labels(config.num_samples, flow.num_classes, seed=config.seed) if oracle.conditional else None
    t = uniform_timesteps(config.num_steps) * flow.path.t_max

    def followed(field: Field) -> Trajectory:
        def program(x_0: Any, label: Any) -> tuple[Any, Any]:
            found = trajectory(field, x_0, jnp.asarray(t, jnp.float32), label, solver=solver)
            return jnp.moveaxis(found.x, 1, 0), jnp.moveaxis(found.one_step, 1, 0)

        x_0 = noise(config.num_samples, training.shape, config.seed)
        parts = list(in_batches(program, x_0, label, min(config.batch_size, len(x_0))))
        return Trajectory(t, *(np.concatenate(part).swapaxes(0, 1) for part in zip(*parts, strict=True)))  # type: ignore[arg-type]

    runs = {"along the model": followed(flow.field), "along the oracle": followed(OracleField(oracle))}
    shares = {name: settling(one.one_step, one.x[-1]) for name, one in runs.items()}  # type: ignore[arg-type]
    settled = {name: _settled(t, found, config) for name, found in shares.items()}
    turn = own_turning_point(oracle, config.seed)
    first = {name: _from_the_mean(np.asarray(one.one_step[0]), label, training) for name, one in runs.items()}
    verdict = _verdict(settled["along the model"], first["along the model"], strength(flow)["enough"])

    takeaway = _takeaway(training.name, settled["along the model"], verdict)
    origin = app.provenance("one_step", config, started)
    curves = {name: settling_curves(found) for name, found in shares.items()}
    rows = [
        {"t": float(time)} | {f"{part} {name}": float(curve.mean[i]) for name, parts in curves.items() for part, curve in parts.items()}
        for i, time in enumerate(t)
    ]
    workdir.write_csv("settling.csv", rows)
    workdir.write_json(
        "summary.json",
        {
            **about_data(training),
            "model": about_model(flow),
            "turning_point": dataclasses.asdict(turn),
            "level": config.level,
            "settled": {name: {part: at._asdict() for part, at in parts.items()} for name, parts in settled.items()},
            "first_prediction_from_class_mean": first,
            "verdict": dataclasses.asdict(verdict),
            "takeaway": takeaway,
            "units": {"t": "0 = noise, 1 = data", "first_prediction_from_class_mean": "squared distance over the variance within classes"},
            **origin,
        },
    )
    sections = _drawn(config, workdir, runs, curves, settled, turn, training)
    table = [{"run": name, "part": part, **at._asdict()} for name, parts in settled.items() for part, at in parts.items()]
    sections += [
        Section("Settled at", f"The t from which on {config.level:.0%} of the way is done, with 95 % intervals.", table=table),
        beside_the_paper(_PAPER, verdict),
    ]
    workdir.write_report("When layout and details are decided", takeaway, sections, origin)
    return takeaway


def _check(config: ConfigDict) -> None:
    app.check_at_least(config, num_samples=2, show=1)
    if not 0 < config.level < 1:
        raise ValueError(f"level = {config.level}: expected a share in (0, 1)")


def _drawn(
    config: ConfigDict,
    workdir: WorkDir,
    runs: dict[str, Trajectory],
    curves: dict[str, dict[str, Curve]],
    settled: dict[str, dict[str, Settled]],
    turn: TurningPoint,
    training: data.DataSet,
) -> list[Section]:
    """The figures."""
    t = np.asarray(runs["along the model"].t)
    shown = np.unique(np.linspace(0, len(t) - 1, min(12, len(t))).round().astype(int))
    assert training.value_range is not None
    sections = [
        Section(
            "When layout and details settle",
            "How far the one-step predictions have come from the first of them to where the run ends, in low frequencies and in high ones: "
            f"1 is all the way, and {config.level:.0%} counts as settled. Bands: 95 % over {config.num_samples} samples.",
            workdir.save_figure(
                "settling",
                sampling_figures.settling_figure(t, curves, {name: parts["layout"] for name, parts in settled.items()}, turn.measured),
            ),
            alt="Share settled against t",
        )
    ]
    for name, one in runs.items():
        x, predicted = (np.asarray(part)[shown][:, : config.show].swapaxes(0, 1) for part in (one.x, one.one_step))
        figure = strip_figure(t[shown], x, predicted, training.value_range, turn.measured)
        sections.append(
            Section(
                f"One-step predictions {name}",
                "Above: the sample on its way. Below: one step from there to t = 1.",
                workdir.save_figure(f"predictions_{name.split()[-1]}", figure),
                alt=f"One-step predictions {name}",
            )
        )
    return sections


_PAPER = (
    "ImageNet 256², LightningDiT: the class mean at t = 0, the layout settled at t = 0.2, about twice the turning point; then only details."
)


def _settled(t: np.ndarray, found: Settling, config: ConfigDict) -> dict[str, Settled]:
    return {part: settled_at(t, values, config.level, seed=config.seed) for part, values in found._asdict().items()}


def _from_the_mean(first: np.ndarray, label: np.ndarray | None, training: data.DataSet) -> float:
    """Squared distance of the first predictions from the means of their classes, over the variance within classes."""
    rows = training.data.reshape(training.n, -1).astype(np.float64)
    classes = np.zeros(training.n, np.int64) if label is None or training.labels is None else training.labels
    asked = np.zeros(len(first), np.int64) if label is None else label
    means = {y: rows[classes == y].mean(0) for y in np.unique(classes)}
    within = np.mean([((rows[classes == y] - mean) ** 2).sum(1).mean() for y, mean in means.items()])
    return float(np.mean([((one.ravel() - means[y]) ** 2).sum() for one, y in zip(first, asked, strict=True)]) / within)


def _verdict(settled: dict[str, Settled], first: float, enough: bool | None) -> Verdict:
    layout, details = settled["layout"], settled["details"]
    checks = {
        f"the first prediction is the class mean (squared distance {first:.1%} of the variance within classes)": first <= MEAN_ENOUGH,
        f"the layout settles before the details (t = {layout.t:.3f}, up to {layout.high:.3f}; details {details.t:.3f}, from "
        f"{details.low:.3f})": layout.high < details.low,
    }
    return judge(checks, model_strong_enough=enough)


def _takeaway(name: str, settled: dict[str, Settled], verdict: Verdict) -> str:
    layout, details = settled["layout"], settled["details"]
    return (
        f"Sampling {name}, the layout is decided at t = {layout.t:.2f} (95 %: {layout.low:.2f} to {layout.high:.2f}), the details at "
        f"{details.t:.2f} ({details.low:.2f} to {details.high:.2f}). {verdict.outcome.capitalize()}."
    )


if __name__ == "__main__":
    app.main("one_step", run, live=LIVE, free=FREE)
