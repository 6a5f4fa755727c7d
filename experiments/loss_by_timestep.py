"""On which side of the turning point do capacity and training time pay?

    python -m experiments.loss_by_timestep                                     # digits; trains its models first
    python -m experiments.loss_by_timestep --config.model.factory=my_model:make --config.data.path=FILE   # of your own: docs/your-model.md
    python -m experiments.loss_by_timestep --config=experiments/configs/loss_by_timestep.py:imagenet_vavae \\
        --config.checkpoints="('B-64ep.pt@80000', 'XL-64ep.pt@80000', 'XL-800ep.pt@1000000')" --config.data.path=FOLDER_OF_SHARDS

Finding 5 of arXiv 2512.02826. Models of several sizes, each trained for several lengths, are measured by their squared error at each t
against the CFM target and against the oracle of the training set, on training samples and on held-out ones; the same noise for all. What
capacity buys (the smallest to the largest, trained longest) and what time buys (the shortest to the longest, of the largest) is told for
each side of the turning point, with an interval over queries. Writes config.json, summary.json, loss_by_timestep.csv, gains.csv, gains.md,
figures/ and report.html to --workdir (runs/loss_by_timestep), and as it goes models/ and cells/: `--resume` trains and measures nothing
again.
"""

import dataclasses
import time
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments.common import app
from experiments.common.frechet_scores import turn_and_advice
from experiments.common.timestep_errors import Errors
from experiments.common.trained_models import (
    CELLS,
    MODELS,
    NOT_MEASURED,
    about_data,
    all_made,
    check_alike,
    own_data,
    strength,
    train_within,
    training_config,
)
from flowjax import data
from flowjax.analysis.statistics import Interval
from flowjax.analysis.verdict import Verdict, judge
from flowjax.metrics.loss_by_t import ErrorsByTime, Reduction, reduction
from flowjax.models import parameter_count
from flowjax.models.flow import Flow
from flowjax.models.trained import TrainedFlow, load_trained
from flowjax.reporting import analysis_figures
from flowjax.reporting.page import Section, beside_the_paper
from flowjax.reporting.workdir import WorkDir
from flowjax.runtime.processes import differences
from flowjax.runtime.strict_json import plain
from flowjax.stages import TurningPoint

LIVE = (MODELS, CELLS)
FREE = app.ANY
MOST = 0.9
"""Of the difference between both targets, the share that must lie in navigation for them to differ only there."""


class Model(NamedTuple):
    """A trained model, with what it cost."""

    name: str
    parameters: int
    steps: int
    flow: Flow


class Gain(NamedTuple):
    """Reduction of the error from one model to another, on one side of the turning point."""

    bought_by: str  # capacity or time
    models: tuple[str, str]
    samples: str  # training or held-out
    target: str  # oracle or cfm
    stage: str
    found: Reduction


def run(config: ConfigDict, workdir: WorkDir) -> str:
    """The whole experiment; returns the sentence to take away."""
    started = time.perf_counter()
    _check(config)
    models = _models(config, workdir)
    check_alike([model.flow for model in models])
    reference = models[-1].flow
    training, heldout = own_data(reference, config.data)
    if heldout is None:
        training, heldout = training.split(config.heldout_fraction, config.seed)
    turn, _ = turn_and_advice(reference, training, workdir, config.seed)
    times = (np.arange(config.num_t) + 0.5) / config.num_t * reference.path.t_max
    errors = _measured(config, workdir, models, {"training": training, "held-out": heldout}, times)
    gains = [] if turn.measured is None else _gains(models, errors, times, turn.measured, config.seed)
    gap = errors[models[-1].name, "training"].mean()
    before = None if turn.measured is None else _share_before(gap.cfm - gap.oracle, times, turn.measured)
    verdict = _verdict(gains, before, turn.reason, strength(reference)["enough"])

    takeaway = _takeaway(training.name, gains, verdict)
    origin = app.provenance("loss_by_timestep", config, started)
    rows = [_gain_row(gain) for gain in gains]
    workdir.write_csv("loss_by_timestep.csv", _rows(models, errors))
    workdir.write_table("gains", rows)
    workdir.write_json(
        "summary.json",
        {
            **about_data(training),
            "turning_point": dataclasses.asdict(turn),
            "models": [{**model._asdict(), "flow": model.flow.source, **strength(model.flow)} for model in models],
            "num_queries": config.num_queries,
            "share_of_target_gap_in_navigation": before,
            "gains": rows,
            "verdict": dataclasses.asdict(verdict),
            "takeaway": takeaway,
            "units": {"t": "0 = noise, 1 = data", "error": "mean squared error per value of a sample"},
            **origin,
        },
    )
    drawn = _drawn(config, workdir, models, errors, gains, turn)
    table = [{"model": m.name, "parameters": m.parameters, "steps": m.steps, "Fréchet ratio": m.flow.frechet_ratio} for m in models]
    drawn += [
        Section("In numbers", "Reductions of the mean squared error; relative: as a share of the first model's.", table=rows),
        Section("The models", "Only the last is measured by its samples.", table=table),
        beside_the_paper(_PAPER, verdict),
    ]
    workdir.write_report("Where capacity and training time pay", takeaway, drawn, origin)
    return takeaway


def _drawn(
    config: ConfigDict,
    workdir: WorkDir,
    models: list[Model],
    errors: dict[tuple[str, str], ErrorsByTime],
    gains: list[Gain],
    turn: TurningPoint,
) -> list[Section]:
    """The figures."""
    curves = {kind: {model.name: errors[model.name, kind].mean() for model in models} for kind in ("training", "held-out")}
    drawn = [
        Section(
            "Error against t",
            f"Means over {config.num_queries} queries. Solid: against the oracle of the training set; dashed: against the CFM target. For "
            "held-out samples only the latter means something in refinement, where the oracle knows training samples alone.",
            workdir.save_figure("loss_by_timestep", analysis_figures.errors_figure(curves, turn.measured)),
            alt="Squared error of each model against t",
        )
    ]
    if gains:
        shown = {(g.bought_by, g.stage): g.found.absolute for g in gains if (g.samples, g.target) == ("training", "oracle")}
        figure = analysis_figures.gains_figure(shown)
        drawn.append(
            Section(
                "What capacity and time buy",
                "By how much the mean squared error against the oracle falls on each side of the turning point, with 95 % over queries.",
                workdir.save_figure("gains", figure),
                alt="Reduction of the error in navigation and in refinement",
            )
        )
    return drawn


_PAPER = (
    "ImageNet 256², LightningDiT B and XL, 100 and 800 epochs: the errors against both targets differ only in navigation; capacity and "
    "training time change refinement, hardly navigation."
)


def _check(config: ConfigDict) -> None:
    app.check_at_least(config, num_queries=2, num_t=4)
    if config.model.path and (config.checkpoints or config.model.factory):
        raise ValueError(f"model.path = {config.model.path!r} is the strongest of models that are trained here: give it alone")
    if config.model.factory:
        if config.checkpoints:
            raise ValueError(f"checkpoints = {tuple(config.checkpoints)} and model.factory = {config.model.factory!r}: give one of them")
    elif config.checkpoints:
        if len(config.checkpoints) < 2:
            raise ValueError(f"checkpoints = {tuple(config.checkpoints)}: expected at least two to compare")
    elif len(config.sizes) * len(config.steps) < 2 or min(config.steps, default=0) < 1:
        raise ValueError(f"sizes = {config.sizes}, steps = {config.steps}: expected at least two models, of at least one step")


def _models(config: ConfigDict, workdir: WorkDir) -> list[Model]:
    """By training time, then capacity: the last is the strongest."""
    if config.model.factory:
        flows = all_made(config.model)
        found = [Model(str(flow.source), flow.parameters or 0, int(flow.about.get("step", 0)), flow) for flow in flows]
        if len({model.name for model in found}) < len(found):
            raise ValueError(f"model.settings = {config.model.settings!r}: names models alike: expected different settings, or names")
    elif config.checkpoints:
        found = [_checkpoint(told) for told in config.checkpoints]
    else:
        last = (config.sizes[-1], max(config.steps))
        given = _strongest(config.model.path, _asked(config, *last)) if config.model.path else None  # before any is trained
        found = []
        for steps in sorted(config.steps):
            for size in config.sizes:
                strongest, asked = (size, steps) == last, _asked(config, size, steps)
                if strongest and given is not None:
                    flow = given
                else:
                    if not strongest:
                        asked.evaluation.update(NOT_MEASURED)
                    flow = load_trained(train_within(asked, workdir, f"{size.replace('/', '-')}-{steps}"))
                found.append(Model(f"{size}, {steps:,} steps", parameter_count(flow.model), steps, flow))
    return sorted(found, key=lambda model: (model.steps, model.parameters))


def _asked(config: ConfigDict, size: str, steps: int) -> ConfigDict:
    """How a model of this size is trained for so many steps."""
    return training_config(config.model, **{"model.size": size, "steps": steps, "optimizer.decay_steps": steps, "evaluate_every": 0})


def _strongest(path: str, asked: ConfigDict) -> TrainedFlow:
    """A model that is there already, trained as is asked; on the same samples, so that all models are asked about the same unseen ones."""
    flow = load_trained(path)
    own, wanted = flow.about.get("config"), plain(asked.to_dict())
    if own is None:
        raise ValueError(f"config.model.path={path!r} does not say how it was trained: give it, and the others, as config.checkpoints")
    for key in ("model", "steps", "data", "heldout_fraction", "seed", "objective", "optimizer", "batch_size", "ema_decay"):
        for place, here, there in differences(wanted[key], own.get(key), key):
            raise ValueError(
                f"config.model.path={path!r}: was trained with {place} = {there}; expected the strongest of these models, {here}"
            )
    return flow


def _checkpoint(told: str) -> Model:
    path, _, steps = told.rpartition("@") if "@" in told else (told, "", "")
    if steps and not steps.isdigit():
        raise ValueError(f"checkpoints: {told!r}: expected PATH, or PATH@STEPS with the steps that it was trained for")
    flow = load_trained(path)
    known = int(steps) if steps else int(flow.about.get("step", 0))
    return Model(f"{path}, {known:,} steps", parameter_count(flow.model), known, flow)


def _measured(
    config: ConfigDict, workdir: WorkDir, models: list[Model], sets: dict[str, data.DataSet], times: np.ndarray
) -> dict[tuple[str, str], ErrorsByTime]:
    """The errors of each model on each set of samples."""
    measure = {
        kind: Errors(workdir, sets["training"], queried, models[0].flow, times, config.num_queries, config.seed)
        for kind, queried in sets.items()
    }
    asked = [(model, kind) for model in models for kind in sets]
    return {(model.name, kind): measure[kind](model.flow) for model, kind in app.progress("cells")(asked)}


def _gains(
    models: list[Model], errors: dict[tuple[str, str], ErrorsByTime], times: np.ndarray, turning_point: float, seed: int
) -> list[Gain]:
    strongest = models[-1]
    pairs = {
        "capacity": next(model for model in models if model.steps == strongest.steps),
        "time": next(model for model in models if model.parameters == strongest.parameters),
    }
    found = []
    for bought_by, weaker in pairs.items():
        for samples in ("training", "held-out") if weaker is not strongest else ():
            one, two = errors[weaker.name, samples], errors[strongest.name, samples]
            for target in ("oracle", "cfm"):
                for stage, chosen in (("navigation", times < turning_point), ("refinement", times >= turning_point)):
                    if (samples, target, stage) == ("held-out", "oracle", "refinement"):
                        continue  # there the oracle knows training samples alone
                    part = reduction(getattr(one, target)[chosen], getattr(two, target)[chosen], seed=seed)
                    found.append(Gain(bought_by, (weaker.name, strongest.name), samples, target, stage, part))
    return found


def _share_before(gap: np.ndarray, times: np.ndarray, turning_point: float) -> float:
    return float(gap[times < turning_point].sum() / gap.sum())


def _picked(gains: list[Gain], bought_by: str) -> tuple[Reduction, Reduction] | None:
    """The reductions in navigation and in refinement, against the oracle, on training samples."""
    found = {g.stage: g.found for g in gains if (g.bought_by, g.samples, g.target) == (bought_by, "training", "oracle")}
    return (found["navigation"], found["refinement"]) if found else None


def _verdict(gains: list[Gain], before: float | None, reason: str | None, enough: bool | None) -> Verdict:
    if before is None:
        return judge({f"the data turn ({reason})": False}, model_strong_enough=enough)
    checks = {
        f"both targets differ only in navigation ({before:.0%} of their difference lies there, at least {MOST:.0%} asked)": before >= MOST
    }
    for bought_by in ("capacity", "time"):
        if (picked := _picked(gains, bought_by)) is not None:
            early, late = picked
            checks |= {
                f"{bought_by} lowers the error in refinement (by {late.absolute}) more than in navigation (by {early.absolute})": (
                    late.absolute.low > early.absolute.high
                ),
                f"{bought_by} does so as a share, too ({_share(late.relative)} and {_share(early.relative)})": late.relative.low
                > early.relative.high,
            }
    return judge(checks, model_strong_enough=enough)


def _takeaway(name: str, gains: list[Gain], verdict: Verdict) -> str:
    told = []
    for bought_by in ("capacity", "time"):
        if (picked := _picked(gains, bought_by)) is not None:
            early, late = (f"{part.absolute.value:.3g} ({part.relative.value:.0%})" for part in picked)
            told.append(f"{bought_by} lowers the error by {late} in refinement and by {early} in navigation")
    return f"On {name} {'; '.join(told) or 'the stages cannot be told apart'}. {verdict.outcome.capitalize()}."


def _share(part: Interval) -> str:
    return f"{part.value:.0%}, 95 %: {part.low:.0%} to {part.high:.0%}"


def _gain_row(gain: Gain) -> dict[str, Any]:
    absolute, relative = gain.found
    return {
        "bought by": gain.bought_by,
        "from": gain.models[0],
        "to": gain.models[1],
        "samples": gain.samples,
        "target": gain.target,
        "stage": gain.stage,
        "reduction": absolute.value,
        "low": absolute.low,
        "high": absolute.high,
        "relative": relative.value,
        "relative, low": relative.low,
        "relative, high": relative.high,
    }


def _rows(models: list[Model], errors: dict[tuple[str, str], ErrorsByTime]) -> list[dict[str, Any]]:
    return [
        {"model": model.name, "parameters": model.parameters, "steps": model.steps, "samples": kind, "t": t, "cfm": cfm, "oracle": exact}
        for model in models
        for kind in ("training", "held-out")
        for t, cfm, exact in zip(*errors[model.name, kind].mean(), strict=True)
    ]


if __name__ == "__main__":
    app.main("loss_by_timestep", run, live=LIVE, free=FREE)
