"""What does a trained model compute: the oracle of its data, or a simpler field? And where in t does the oracle stop explaining it?

    python -m experiments.analytic_fields                                      # digits; trains its small models first
    python -m experiments.analytic_fields --config.model.path=runs/train       # a model of experiments.train, on its own data
    python -m experiments.analytic_fields --config.model.factory=my_model:make \\
        --config.data.path=TRAINING_DATA --config.heldout=UNSEEN_DATA          # of your own: docs/your-model.md

One-step predictions of x_1 are compared at the same noisy queries: the model's, the oracle's of its training set, and those of analytic
fields (docs/analytic-fields.md): the best linear denoiser, the oracle of smoothed data, posteriors over patches, locality from the
covariance. For each t, on training and on held-out queries, each field's share of the variance explained (R²) and relative error; which
explains most in navigation, between, and in refinement; the t from which on another field is ahead of the oracle by a margin, and whether
that place moves with the number of samples, capacity and training time, as the turning point does (--config.vary). Intervals are bootstrap
over queries and seeds. Writes config.json, summary.json, analytic_fields.csv, stages.csv, places.csv, figures/ and report.html to --workdir
(runs/analytic_fields), and as it goes models/, cells/ and distances/: `--resume` trains and measures nothing again.
"""

import dataclasses
import pathlib
import time
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments.common import app
from experiments.common.analytic_targets import DISTANCES, Targets, checked_fields
from experiments.common.frechet_scores import turn_and_advice
from experiments.common.trained_models import (
    CELLS,
    MODELS,
    NOT_MEASURED,
    about_data,
    about_model,
    all_made,
    strength,
    told_classes,
    train_within,
    training_and_unseen,
    training_config,
)
from flowjax import data
from flowjax.analysis.analytic_comparison import STAGES, Distances, Explained, explained, stage_edges
from flowjax.analysis.verdict import Verdict, judge
from flowjax.models.flow import Flow
from flowjax.models.trained import load_trained
from flowjax.reporting import analytic_figures
from flowjax.reporting.page import Section
from flowjax.reporting.workdir import WorkDir
from flowjax.stages import TurningPoint

LIVE = (MODELS, CELLS, DISTANCES)
FREE = app.ANY
KINDS = (HELDOUT, TRAINING) = ("held-out", "training")
"""Of the samples that are noised."""


class Group(NamedTuple):
    """Models that differ in their seed alone."""

    name: str
    varied: str
    """What of the first group is changed: n, size or steps; "": nothing."""
    flows: list[Flow]


class Found(NamedTuple):
    """What the fields explain of a group."""

    group: Group
    n: int
    turn: TurningPoint
    edges: tuple[float, float]
    by_kind: dict[str, Explained]
    targets: dict[str, Targets]
    """Of the first model of the group."""
    training: data.DataSet
    unseen: data.DataSet


def run(config: ConfigDict, workdir: WorkDir) -> str:
    """The whole experiment; returns the sentence to take away."""
    started = time.perf_counter()
    names = _check(config)
    groups = _groups(config, workdir)
    found = [_found(config, workdir, names, group) for group in groups]
    first = found[0]
    flow = first.group.flows[0]
    verdict = _verdict(found, config.margin, strength(flow)["enough"])

    takeaway = _takeaway(first, verdict)
    origin = app.provenance("analytic_fields", config, started)
    stages, places = [row for one in found for row in _stage_rows(one)], [_place_row(one) for one in found]
    workdir.write_csv("analytic_fields.csv", [row for one in found for row in _rows(one, _times(config, flow))])
    workdir.write_csv("stages.csv", stages)
    workdir.write_csv("places.csv", places)
    workdir.write_json(
        "summary.json",
        {
            **about_data(first.training),
            "n_heldout": first.unseen.n,
            "model": about_model(flow),
            "fields": names,
            "turning_point": dataclasses.asdict(first.turn),
            "stage_edges": first.edges,
            "explains_most": {kind: _best(part) for kind, part in first.by_kind.items()},
            "oracle_until": {
                kind: None if part.oracle_until is None else part.oracle_until._asdict() for kind, part in first.by_kind.items()
            },
            "places": places,
            "verdict": dataclasses.asdict(verdict),
            "takeaway": takeaway,
            "units": {"t": "0 = noise, 1 = data", "R²": "share of the predictions' variance about the mean of the data"},
            **origin,
        },
    )
    drawn = _drawn(config, workdir, found)
    drawn += [
        Section("By stage", "R² over the times of each stage, with 95 %. All t are in analytic_fields.csv.", table=_short(stages)),
        Section("Where the oracle stops explaining", _PLACES, table=places),
        Section("Verdict", f"{verdict}."),
    ]
    workdir.write_report("What networks do instead", takeaway, drawn, origin)
    return takeaway


_PLACES = (
    "One row for each model, or for all seeds of one; on held-out queries. Where a model is not explained, no field has half of its "
    "variance in some stage, and its place means nothing."
)


def _check(config: ConfigDict) -> list[str]:
    app.check_at_least(config, num_queries=2, num_t=4, show=1)
    if not 0 < config.margin < 1:
        raise ValueError(f"margin = {config.margin}: expected a share of the variance, in (0, 1)")
    if not config.seeds:
        raise ValueError("seeds = (): expected at least one")
    return checked_fields(tuple(config.fields))


def _groups(config: ConfigDict, workdir: WorkDir) -> list[Group]:
    """The models that are given, each alone; or those trained here, the first with all its seeds."""
    if config.model.factory:
        return [Group(str(flow.source), "", [flow]) for flow in all_made(config.model)]
    if config.model.path:
        flow = load_trained(config.model.path)
        return [Group(pathlib.Path(config.model.path).name, "", [flow])]
    plain = training_config(config.model)
    size, steps = config.size or plain.model.size, plain.steps

    def trained(name: str, *, measured: bool = False, **changes: Any) -> Flow:
        asked = training_config(config.model, **({"model.size": size, "evaluate_every": 0} | changes))
        if not measured:
            asked.evaluation.update(NOT_MEASURED)
        return load_trained(train_within(asked, workdir, name))

    flows = [trained(f"seed-{seed}", measured=i == 0, seed=seed) for i, seed in enumerate(config.seeds)]
    groups, seed = [Group(f"{size}, {steps:,} steps", "", flows)], config.seeds[0]
    for n in config.vary.n:
        whole = round(n / (1 - plain.heldout_fraction))
        groups.append(Group(f"{n:,} samples", "n", [trained(f"n-{n}", seed=seed, **{"data.max_samples": whole})]))
    for other in config.vary.size:
        groups.append(Group(other, "size", [trained(other.replace("/", "-"), seed=seed, **{"model.size": other})]))
    for count in config.vary.steps:
        changes = {"steps": count, "optimizer.decay_steps": count}
        groups.append(Group(f"{count:,} steps", "steps", [trained(f"steps-{count}", seed=seed, **changes)]))
    return groups


def _times(config: ConfigDict, flow: Flow) -> np.ndarray:
    return (np.arange(config.num_t) + 0.5) / config.num_t * flow.path.t_max


def _found(config: ConfigDict, workdir: WorkDir, names: list[str], group: Group) -> Found:
    distances: dict[str, list[Distances]] = {kind: [] for kind in KINDS}
    kept = []
    for flow in group.flows:
        training, unseen = training_and_unseen(flow, config)
        times = _times(config, flow)
        targets = {
            kind: Targets(
                workdir, names, training, queried, flow, times, config.num_queries, config.seed, app.progress(f"{group.name}, {kind}")
            )
            for kind, queried in ((HELDOUT, unseen), (TRAINING, training))
        }
        for kind, part in targets.items():
            distances[kind].append(part(flow))
        kept.append((training, unseen, targets))
    training, unseen, targets = kept[0]
    turn, _ = turn_and_advice(group.flows[0], training, workdir, config.seed)
    labels = training.labels if told_classes(group.flows[0], training) else None
    edges = stage_edges(training.data.astype(np.float32, copy=False), labels, group.flows[0].path, seed=config.seed)
    by_kind = {kind: explained(parts, times, edges, margin=config.margin, seed=config.seed) for kind, parts in distances.items()}
    return Found(group, training.n, turn, edges, by_kind, targets, training, unseen)


def _best(found: Explained) -> dict[str, Any]:
    return {
        stage: {"field": name, "next": after, "ahead_by": ahead._asdict(), "told_apart": found.sure(stage)}
        for stage, (name, after, ahead) in found.best.items()
    }


def _verdict(found: list[Found], margin: float, enough: bool | None) -> Verdict:
    """On held-out queries of the first group; and of the others beside it."""
    first = found[0]
    part = first.by_kind[HELDOUT]
    checks = {}
    for stage, behind in (("navigation", False), ("refinement", True)):
        if (told := part.ahead.get(stage)) is not None:
            name, by = told
            if behind:
                checks[f"in refinement {name} explains more than the oracle, by the margin of {margin:g} (by {by})"] = by.low > margin
            else:
                checks[f"in navigation no field is ahead of the oracle by {margin:g} ({name} by {by})"] = by.high < margin
    until = part.oracle_until
    if until is None:
        return judge(checks | {"the oracle stops explaining somewhere (it does nowhere)": False}, model_strong_enough=enough)
    low, high = first.edges
    checks[f"the oracle stops explaining while the data turn, for t in [{low:.2f}, {high:.2f}] ({until})"] = (
        low <= until.low and until.high <= high
    )
    for other in found[1:]:
        there = other.by_kind[HELDOUT].oracle_until
        if _weakly_explained(other):
            continue  # a place where one field is ahead of another means nothing where none of them explains the model
        moved = None if there is None else (there.low > until.high or there.high < until.low, there.value > until.value)
        if other.group.varied == "n" and first.turn.measured is not None and other.turn.measured is not None:
            later = other.turn.measured > first.turn.measured
            checks[
                f"with {other.group.name} the place moves as the turning point does ({first.turn.measured:.3f} to "
                f"{other.turn.measured:.3f}; place {until} to {there})"
            ] = moved == (True, later)
        elif other.group.varied:
            what = "capacity" if other.group.varied == "size" else "training time"
            checks[f"{what} does not move it ({other.group.name}: {there})"] = moved is not None and not moved[0]
    return judge(checks, model_strong_enough=enough)


def _weakly_explained(one: Found) -> bool:
    """Whether in some stage no field explains half of the variance: the model is too weak there to be any of them."""
    part = one.by_kind[HELDOUT]
    return any(part.by_stage[stage][name].value < 0.5 for stage, (name, _, _) in part.best.items())


def _takeaway(first: Found, verdict: Verdict) -> str:
    part = first.by_kind[HELDOUT]
    told = []
    for stage in STAGES:
        if stage in part.best:
            name, after, _ = part.best[stage]
            much = part.by_stage[stage][name].value
            beside = "" if part.sure(stage) else f", not told apart from {after}"
            told.append(
                f"{name} in {stage} ({much:.0%} of the variance{beside})" if stage != "between" else f"{name} between ({much:.0%}{beside})"
            )
    until = part.oracle_until
    where = (
        "the oracle explains it as well as any at every t"
        if until is None
        else f"the oracle falls behind from t = {until.value:.2f} on (95 %: {until.low:.2f} to {until.high:.2f})"
    )
    turn = "" if first.turn.measured is None else f"; the target turns at t = {first.turn.measured:.2f}"
    return (
        f"On unseen {first.training.name} the model is explained best by {', '.join(told)}; {where}{turn}. {verdict.outcome.capitalize()}."
    )


def _rows(one: Found, times: np.ndarray) -> list[dict[str, Any]]:
    return [
        {
            "model": one.group.name,
            "samples": kind,
            "field": name,
            "t": float(t),
            "R²": float(curve.mean[i]),
            "low": float(curve.low[i]),
            "high": float(curve.high[i]),
            "relative error": float(part.relative_error[name].mean[i]),
        }
        for kind, part in one.by_kind.items()
        for name, curve in part.share.items()
        for i, t in enumerate(times)
    ]


def _stage_rows(one: Found) -> list[dict[str, Any]]:
    return [
        {"model": one.group.name, "samples": kind, "stage": stage, "field": name, "R²": r.value, "low": r.low, "high": r.high}
        for kind, part in one.by_kind.items()
        for stage, fields in part.by_stage.items()
        for name, r in fields.items()
    ]


def _short(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each field and kind of samples of the first model, a column for each stage."""
    table: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        if row["model"] == rows[0]["model"]:
            line = table.setdefault((row["samples"], row["field"]), {"samples": row["samples"], "field": row["field"]})
            line[row["stage"]] = f"{row['R²']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
    return list(table.values())


def _place_row(one: Found) -> dict[str, Any]:
    until = one.by_kind[HELDOUT].oracle_until
    place = (None, None, None) if until is None else until
    return {
        "model": one.group.name,
        "seeds": len(one.group.flows),
        "N": one.n,
        "parameters": one.group.flows[0].parameters,
        "turning point": one.turn.measured,
        "oracle until": place[0],
        "low": place[1],
        "high": place[2],
        **{f"best in {stage}": name for stage, (name, _, _) in one.by_kind[HELDOUT].best.items()},
        "explained": not _weakly_explained(one),
    }


def _drawn(config: ConfigDict, workdir: WorkDir, found: list[Found]) -> list[Section]:
    """The figures."""
    first = found[0]
    flow = first.group.flows[0]
    times = _times(config, flow)
    sections = [
        Section(
            "What each field explains",
            f"R² of the model's one-step predictions on {config.num_queries} queries of each kind, a line for each field, with 95 %. The "
            "turning point divides the stages; between the dotted lines the weight of the likeliest sample rises from 0.1 to 0.9.",
            workdir.save_figure("explained", analytic_figures.explained_figure(times, first.by_kind, first.turn.measured, first.edges)),
            alt="Share of the variance explained by each field, against t",
        )
    ]
    if len(found) > 1:
        told = [(one.group.name, one.turn, one.by_kind[HELDOUT].oracle_until) for one in found]
        sections.append(
            Section(
                "Does the place move?",
                "The t from which on another field is ahead of the oracle, on held-out queries, against the turning point of the data.",
                workdir.save_figure("places", analytic_figures.places_figure(told)),
                alt="Where the oracle stops explaining, against the turning point",
            )
        )
    assert first.training.value_range is not None
    chosen = times[np.unique(np.linspace(0, len(times) - 1, min(10, len(times))).round().astype(int))]
    for query in range(min(config.show, config.num_queries)):
        rows = first.targets[HELDOUT].shown(flow, query, chosen)
        picture = analytic_figures.predictions_figure(chosen, rows, first.training.value_range, first.turn.measured)
        sections.append(
            Section(
                "Predictions of a held-out sample" if query == 0 else "",
                "The same noisy sample at rising t, and what the model, the oracle and each field make of it in one step.",
                workdir.save_figure(f"predictions_{query}", picture),
                alt="One-step predictions of the model and of each field",
            )
        )
    return sections


if __name__ == "__main__":
    app.main("analytic_fields", run, live=LIVE, free=FREE)
