"""In which stage does capacity count, and is a small navigator with a large refiner better at equal cost?

    python -m experiments.capacity_swap                                        # digits; trains its models first
    python -m experiments.capacity_swap --config=experiments/configs/capacity_swap.py:imagenet_vavae \\
        --config.small.path=B.pt --config.large.path=XL.pt --config.data.path=FOLDER_OF_SHARDS
    python -m experiments.sample --config.model.path=runs/capacity_swap/asymmetric.safetensors     # the staged model, as any other

Table 1 of arXiv 2512.02826, and the asymmetric model that it leaves open. A small and a large model take turns: one until t_split, the
other from there on, each for as many uniform Euler steps; scored by the Fréchet distance from held-out data, on the same noise for all.
At the turning point of the data specialists do the same, each trained on its own range of t alone, for half the steps: in its range it has
then seen about as much as a model of all t. Cost is counted as parameters times steps. Writes config.json, summary.json, swap.csv, swap.md,
cost.csv, asymmetric.safetensors, figures/ and report.html to --workdir (runs/capacity_swap), and as it goes models/ and cells/:
`--resume` trains nothing and samples nothing again.
"""

import dataclasses
import time
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments.common import app
from experiments.common.frechet_scores import Scores, check, turn_and_advice
from experiments.common.trained_models import (
    CELLS,
    MODELS,
    NOT_MEASURED,
    about_data,
    about_model,
    check_alike,
    made,
    own_data,
    strength,
    train_within,
    training_config,
)
from flowjax.analysis.paired_scores import PairedScores, percent
from flowjax.analysis.statistics import Interval
from flowjax.analysis.verdict import Verdict, judge
from flowjax.fields import staged
from flowjax.models.flow import Flow
from flowjax.models.trained import TrainedFlow, load_trained, save_staged
from flowjax.reporting import analysis_figures
from flowjax.reporting.page import Section, beside_the_paper
from flowjax.reporting.workdir import WorkDir
from flowjax.runtime.strict_json import plain
from flowjax.schedules import uniform_timesteps

LIVE = (MODELS, CELLS)
FREE = app.ANY
PAIRS = (("large", "large"), ("small", "large"), ("large", "small"), ("small", "small"))
"""Navigator and refiner, in the paper's order: XL/XL, B/XL, XL/B, B/B."""
PUBLISHED = {0.1: (2.94, 3.71, 11.26, 12.45), 0.2: (2.60, 4.47, 9.24, 12.01)}
"""Table 1: t_split to gFID@50K of these pairs, 25 uniform Euler steps in each stage, no guidance, LightningDiT B/1 and XL/1."""
FILE = "asymmetric.safetensors"


class Setting(NamedTuple):
    """A setting of the sweep: the models of both stages, the time between them, and the steps."""

    split: float
    navigator: str
    refiner: str
    num_steps: int  # in each stage
    specialists: bool = False

    @property
    def name(self) -> str:
        """Its name in tables and figures."""
        return f"{self.navigator}/{self.refiner}{', specialists' if self.specialists else ''}"


# It is a little over sixty lines: what is done and what is written of it, in one order.
def run(config: ConfigDict, workdir: WorkDir) -> str:
    """The whole experiment; returns the sentence to take away."""
    started = time.perf_counter()
    _check(config)
    general = {name: _general(config, name, workdir) for name in ("small", "large")}
    check_alike(list(general.values()))
    sizes = {name: _parameters(flow) for name, flow in general.items()}
    if sizes["small"] >= sizes["large"]:
        raise ValueError(f"small has {sizes['small']:,} parameters, large {sizes['large']:,}: expected fewer in the small one")
    large = general["large"]
    training, _ = own_data(large, config.data)
    turn, _ = turn_and_advice(large, training, workdir, config.seed)
    split = None if turn.measured is None else round(turn.measured, 2)
    special = _specialists(config, split, workdir) if split is not None and _trains_specialists(config) else {}
    scores = Scores(config, large, workdir)
    settings = _settings(config, split, bool(special), sizes)

    def scored(setting: Setting) -> np.ndarray:
        pair = enumerate((setting.navigator, setting.refiner))
        flows: list[Flow] = [special[name, stage] if setting.specialists else general[name] for stage, name in pair]
        field = staged([flow.field for flow in flows], [setting.split * large.path.t_max])
        first, second = (
            uniform_timesteps(setting.num_steps) * setting.split,
            setting.split + (1 - setting.split) * uniform_timesteps(setting.num_steps),
        )
        return scores({"models": [flow.digest for flow in flows], "split": setting.split}, field, np.r_[first[:-1], second])

    paired = PairedScores(np.stack([scored(setting) for setting in app.progress("settings")(settings)]))
    costs = [setting.num_steps * (sizes[setting.navigator] + sizes[setting.refiner]) for setting in settings]
    comparisons = _comparisons(paired, settings, split, config.num_steps[0])
    verdict = judge({text: change.high < 0 for text, change in comparisons.items()}, model_strong_enough=strength(large)["enough"])
    if special and split is not None:
        _save(special, split, large, workdir)

    takeaway = _takeaway(training.name, paired, settings, config.num_steps[0], verdict)
    origin = app.provenance("capacity_swap", config, started)
    table = [_table_row(t, paired, settings, config.num_steps[0], specialists) for t, specialists in _rows(settings, config.num_steps[0])]
    rows = [_cost_row(setting, paired.score(i), costs[i]) for i, setting in enumerate(settings)]
    workdir.write_table("swap", table)
    workdir.write_csv("cost.csv", rows)
    workdir.write_json(
        "summary.json",
        {
            **about_data(training),
            "turning_point": dataclasses.asdict(turn),
            "models": {name: {"parameters": sizes[name], **about_model(flow)} for name, flow in general.items()},
            "specialists": {f"{name}, {_STAGES[stage]}": flow.source for (name, stage), flow in special.items()},
            "staged_model": FILE if special else None,
            "num_samples": config.num_samples,
            "num_seeds": config.num_seeds,
            "comparisons": {text: change._asdict() for text, change in comparisons.items()},
            "cells": rows,
            "verdict": dataclasses.asdict(verdict),
            "takeaway": takeaway,
            "units": {
                "frechet": f"squared, in {config.quality.features} features",
                "cost": "parameters x steps",
                "t": "0 = noise, 1 = data",
            },
            **origin,
        },
    )
    sections = [
        *_drawn(workdir, config.num_steps[0], paired, settings, split, costs, table),
        Section("Compared on the same noise", "Below 0: the first is better.", table=_compared(comparisons)),
        Section("All of them", "Means over seeds with 95 % intervals.", table=rows),
        beside_the_paper(_PAPER, verdict),
    ]
    workdir.write_report("In which stage capacity counts", takeaway, sections, origin)
    return takeaway


def _drawn(
    workdir: WorkDir,
    num_steps: int,
    paired: PairedScores,
    settings: list[Setting],
    split: float | None,
    costs: list[int],
    table: list[dict[str, Any]],
) -> list[Section]:
    """The paper's table, and the figures."""
    at_turn = [i for i, setting in enumerate(settings) if setting.split == (split or settings[0].split)]
    points = [(settings[i].name, costs[i], paired.score(i)) for i in at_turn]
    return [
        Section("Table 1, here and in the paper", _TABLE.format(num_steps), table=table),
        Section(
            "Which stage the capacity is in",
            "With 95 % of the difference from large/large, on the same noise. Left: here; right: the paper's XL/1 and B/1.",
            workdir.save_figure("swap", analysis_figures.swap_figure(table, [f"{a}/{b}" for a, b in PAIRS])),
            alt="Fréchet distance of each pair of navigator and refiner",
        ),
        Section(
            "Quality against cost",
            f"The turn is made at t = {settings[at_turn[0]].split:g}. Cost is parameters times steps, summed over both stages. Hollow: "
            "specialists, each trained on its own range of t.",
            workdir.save_figure("cost", analysis_figures.cost_figure(points)),
            alt="Fréchet distance against parameters times steps",
        ),
    ]


_PAPER = (
    "ImageNet 256², LightningDiT XL/1 and B/1: a small navigator costs little (2.94 to 3.71 at t_split = 0.1), a small refiner much (to "
    "11.26). It names asymmetric models and leaves them open."
)
_TABLE = "The Fréchet distance of navigator/refiner, {} uniform Euler steps in each stage, for each t_split; beside it the paper's gFID."
_STAGES = ("navigation", "refinement")


def _check(config: ConfigDict) -> None:
    check(config)
    for split in config.splits:
        if not 0 < split < 1:
            raise ValueError(f"splits = {tuple(config.splits)}: expected times in (0, 1): a stage that is empty has no steps")
    if not config.num_steps:
        raise ValueError("num_steps = (): expected the steps in each stage")
    for n in config.num_steps:
        uniform_timesteps(n)


def _general(config: ConfigDict, name: str, workdir: WorkDir) -> Flow:
    """A model of all t."""
    block = config[name]
    if block.factory:
        return made(block, name)
    if block.path:
        return load_trained(block.path)
    asked = training_config(config.model, **{"model.size": block.size, "evaluate_every": 0})
    return load_trained(train_within(asked, workdir, f"{name}-{block.size.replace('/', '-')}"))


def _trains_specialists(config: ConfigDict) -> bool:
    """Of models of the user's own none can be trained here."""
    return config.specialists and not (config.small.factory or config.large.factory)


def _parameters(flow: Flow) -> int:
    if flow.parameters is None:
        raise ValueError(f"{flow.source}: its size is not known: give ExternalFlow(..., parameters=...) how many parameters it has")
    return flow.parameters


def _specialists(config: ConfigDict, split: float, workdir: WorkDir) -> dict[tuple[str, int], TrainedFlow]:
    """Models of one stage's t alone, each trained for half the steps: (size, stage) → model."""
    found = {}
    for name in ("small", "large"):
        for stage, key in enumerate(("objective.times.t_max", "objective.times.t_min")):
            asked = training_config(config.model, **{"model.size": config[name].size, key: split, "evaluate_every": 0})
            asked.steps = asked.optimizer.decay_steps = max(1, asked.steps // 2)
            asked.evaluation.update(NOT_MEASURED)  # its samples, of all t, mean nothing
            found[name, stage] = load_trained(train_within(asked, workdir, f"{name}-{_STAGES[stage]}"))
    return found


def _settings(config: ConfigDict, split: float | None, specialists: bool, sizes: dict[str, int]) -> list[Setting]:
    main = config.num_steps[0]
    found = [Setting(float(t), *pair, main) for t in config.splits for pair in PAIRS]
    if split is not None:
        for n in config.num_steps:
            found += [Setting(split, *pair, n, special) for special in (False, True)[: 1 + specialists] for pair in PAIRS]
        found.append(Setting(split, "large", "large", _equal_steps(main, sizes)))
    return list(dict.fromkeys(found))


def _equal_steps(n: int, sizes: dict[str, int]) -> int:
    """Steps in each stage at which the large model alone costs no less than small and large do with n."""
    return int(np.ceil(n * (sizes["small"] + sizes["large"]) / (2 * sizes["large"])))


def _comparisons(paired: PairedScores, settings: list[Setting], split: float | None, n: int) -> dict[str, Interval]:
    """Each claim that one setting is better than another, as text → the difference."""
    found = {}

    def compare(one: Setting, other: Setting, words: str) -> None:
        if one in settings and other in settings:
            change = paired.change(settings.index(one), settings.index(other))
            found[f"{words} ({percent(change)})"] = change

    for t in dict.fromkeys(setting.split for setting in settings):
        words = f"split at {t:g}, a small navigator with a large refiner is better than the reverse, at equal cost"
        compare(Setting(t, "small", "large", n), Setting(t, "large", "small", n), words)
    if split is not None:
        asymmetric = Setting(split, "small", "large", n, True)
        compare(asymmetric, Setting(split, "large", "small", n, True), "so it is with specialists")
        equal = next(setting for setting in reversed(settings) if setting[:3] == (split, "large", "large") and not setting.specialists)
        words = f"and these specialists are better than the large model alone at equal cost, {equal.num_steps} steps a stage"
        compare(asymmetric, equal, words)
    return found


def _save(special: dict[tuple[str, int], TrainedFlow], split: float, large: Flow, workdir: WorkDir) -> None:
    """The asymmetric model, as one checkpoint."""
    stages = [special["small", 0], special["large", 1]]
    about = {key: value for key, value in large.about.items() if key not in ("frechet", "step")}
    told = [{"source": str(flow.source), "step": flow.about.get("step")} for flow in stages]
    save_staged([flow.model for flow in stages], [split], workdir.path(FILE), plain({**about, "stages": told}))


def _takeaway(name: str, paired: PairedScores, settings: list[Setting], n: int, verdict: Verdict) -> str:
    told: dict[bool, list[str]] = {True: [], False: []}
    for t in dict.fromkeys(setting.split for setting in settings):
        change = paired.change(*(settings.index(Setting(t, *pair, n)) for pair in (("small", "large"), ("large", "small"))))
        told[change.high < 0].append(f"{t:g} ({percent(change)})")
    where = [f"{'' if better else 'not '}at t = {' and '.join(times)}" for better, times in told.items() if times]
    claim = "a small model for navigation with a large one for refinement is better than the reverse, at equal cost, split"
    return f"On {name} {claim} {', '.join(where)}. {verdict.outcome.capitalize()}."


def _rows(settings: list[Setting], n: int) -> list[tuple[float, bool]]:
    return list(dict.fromkeys((setting.split, setting.specialists) for setting in settings if setting.num_steps == n))


def _table_row(t: float, paired: PairedScores, settings: list[Setting], n: int, specialists: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"split": f"[0, {t:g}] + [{t:g}, 1]{', specialists' if specialists else ''}"}
    for pair, published in zip(PAIRS, PUBLISHED.get(t, (None,) * 4), strict=True):
        score = paired.beside(settings.index(Setting(t, *pair, n, specialists)), settings.index(Setting(t, *PAIRS[0], n)))
        name = "/".join(pair)
        row |= {name: score.value, f"{name}, low": score.low, f"{name}, high": score.high}
        if not specialists:
            row[f"paper, {name}"] = published
    return row


def _cost_row(setting: Setting, score: Interval, cost: int) -> dict[str, Any]:
    return {**setting._asdict(), "cost": cost, "Fréchet": score.value, "low": score.low, "high": score.high}


def _compared(comparisons: dict[str, Interval]) -> list[dict[str, Any]]:
    return [{"compared": text.rpartition(" (")[0], **change._asdict()} for text, change in comparisons.items()]


if __name__ == "__main__":
    app.main("capacity_swap", run, live=LIVE, free=FREE)
