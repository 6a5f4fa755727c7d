"""Where in t has a model memorised its training data?

    python -m experiments.memorization_by_timestep                                      # digits; trains its model first
    python -m experiments.memorization_by_timestep --config.model.path=runs/train       # a model of experiments.train, on its own data
    python -m experiments.memorization_by_timestep --config.model.factory=my_model:make \\
        --config.data.path=TRAINING_DATA --config.heldout=UNSEEN_DATA                   # of your own: docs/your-model.md

The error of the model against the oracle of training samples, on their noised queries, beside its error against the oracle of as many
unseen samples, on theirs. A model that has learned the distribution, and nothing of its training samples, is as far from the one as from
the other, at every t. Where it is nearer to the oracle of its training samples it has memorised. Writes config.json, summary.json,
memorization.csv, figures/ and report.html to --workdir (runs/memorization_by_timestep), and as it goes models/ and cells/: `--resume`
trains and measures nothing again.
"""

import dataclasses
import time

import numpy as np
from ml_collections import ConfigDict

from experiments.common import app
from experiments.common.frechet_scores import turn_and_advice
from experiments.common.timestep_errors import Errors
from experiments.common.trained_models import CELLS, MODELS, about_data, about_model, obtain, training_and_unseen
from flowjax import data
from flowjax.analysis.statistics import Interval, mean_curve
from flowjax.metrics.memorization_by_t import Advantage, advantage
from flowjax.reporting import analysis_figures
from flowjax.reporting.page import Section
from flowjax.reporting.workdir import WorkDir

LIVE = (MODELS, CELLS)
FREE = app.ANY


def run(config: ConfigDict, workdir: WorkDir) -> str:
    """The whole experiment; returns the sentence to take away."""
    started = time.perf_counter()
    app.check_at_least(config, num_queries=2, num_t=4)
    flow = obtain(config.model, workdir)
    given = training_and_unseen(flow, config)
    training, unseen = _equal(*given, config.seed)
    turn, _ = turn_and_advice(flow, training, workdir, config.seed)
    times = (np.arange(config.num_t) + 0.5) / config.num_t * flow.path.t_max
    errors = {
        name: Errors(workdir, part, part, flow, times, config.num_queries, config.seed)(flow).oracle
        for name, part in (("training", training), ("unseen", unseen))
    }
    found = advantage(errors["training"], errors["unseen"], times, turn.measured, seed=config.seed)

    takeaway = _takeaway(training.name, found, times)
    origin = app.provenance("memorization_by_timestep", config, started)
    curves = {name: mean_curve(part) for name, part in errors.items()}
    rows = [
        {
            "t": float(t),
            **{f"error against the oracle of {name} samples": float(curve.mean[i]) for name, curve in curves.items()},
            "advantage": float(found.by_t.mean[i]),
            "low": float(found.by_t.low[i]),
            "high": float(found.by_t.high[i]),
        }
        for i, t in enumerate(times)
    ]
    workdir.write_csv("memorization.csv", rows)
    stages = {"navigation": found.navigation, "refinement": found.refinement, "all t": found.overall}
    workdir.write_json(
        "summary.json",
        {
            **about_data(training),
            "model": about_model(flow),
            "n_unseen": unseen.n,
            "turning_point": dataclasses.asdict(turn),
            "advantage": {name: None if interval is None else interval._asdict() for name, interval in stages.items()},
            "memorises_from": found.first_sure(times),
            "memorises_at": found.sure(times),
            "takeaway": takeaway,
            "units": {
                "t": "0 = noise, 1 = data",
                "error": "mean squared error per value of a sample",
                "advantage": "1 - training / unseen",
            },
            **origin,
        },
    )
    figure = analysis_figures.memorization_figure(times, curves, found.by_t, turn.measured)
    table = [{"stage": name, **interval._asdict()} for name, interval in stages.items() if interval is not None]
    sections = [
        Section(
            "Error against t",
            f"Means over {config.num_queries} queries of each, with 95 %. Left: against the oracle of {training.n:,} of "
            f"{given[0].n:,} training samples and that of as many of {given[1].n:,} unseen ones. Right: by how much the first is "
            "smaller; above 0 the model has memorised.",
            workdir.save_figure("memorization", figure),
            alt="Errors against both oracles by t, and the advantage of the training samples",
        ),
        Section("In numbers", "The advantage, 1 - training / unseen, of the errors' means over a stage, with 95 %.", table=table),
    ]
    workdir.write_report("Where in t it memorises", takeaway, sections, origin)
    return takeaway


def _equal(training: data.DataSet, unseen: data.DataSet, seed: int) -> tuple[data.DataSet, data.DataSet]:
    """About as many of both, at random: an oracle of more samples is nearer to the mean, and so is every model."""
    if training.n > unseen.n:
        _, training = training.split(unseen.n / training.n, seed)
    elif unseen.n > training.n:
        _, unseen = unseen.split(training.n / unseen.n, seed)
    return training, unseen


def _takeaway(name: str, found: Advantage, times: np.ndarray) -> str:
    first = found.first_sure(times)

    def told(stage: str, share: Interval | None) -> list[str]:
        return [] if share is None else [f"{share.value:.0%} (95 %: {share.low:.0%} to {share.high:.0%}) in {stage}"]

    stages = [*told("navigation", found.navigation), *told("refinement", found.refinement)] or told("all", found.overall)
    by = " and ".join(stages)
    if first is None and found.overall.low > 0:
        spans = ", ".join(f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}" for low, high in found.sure(times))
        return f"On {name} the model is nearer to the oracle of its training samples than to that of unseen ones, by {by}" + (
            f"; surely so at t = {spans}, and not up to the end." if spans else "; surely so at no single t."
        )
    if first is None:
        return (
            f"On {name} there is no t from which on the model is surely nearer to the oracle of its training samples than to that of "
            f"unseen ones: nearer by {by}."
        )
    return f"On {name} the model has memorised from t = {first:.2f} on: it is nearer to the oracle of its training samples by {by}."


if __name__ == "__main__":
    app.main("memorization_by_timestep", run, live=LIVE, free=FREE)
