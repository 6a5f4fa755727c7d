"""From which t on does following the oracle mean copying the training set?

    python -m experiments.hybrid_sampling                                      # digits; trains its model first: some minutes
    python -m experiments.hybrid_sampling --config.model.path=runs/train       # a model of experiments.train, on its own data
    python -m experiments.hybrid_sampling --config.model.factory=my_model:make --config.data.path=FILE   # of your own: docs/your-model.md
    python -m experiments.hybrid_sampling --config=experiments/configs/hybrid_sampling.py:imagenet_vavae \\
        --config.model.path=CHECKPOINT.pt --config.data.path=FOLDER_OF_SHARDS  # a published LightningDiT

Finding 3 of arXiv 2512.02826. From the prior, follow the exact velocity of the training set until t_switch and the trained model from
there on, for t_switch from 0 (the model alone) to 1 (the oracle alone, which ends in the training set). A sample is a copy where the
nearest training sample is three times nearer than the second; held-out data are the baseline. Where the share of copies passes one half
the behaviour turns, and that is set beside the turning point of the target. Writes config.json, summary.json, hybrid.csv, figures/ and
report.html to --workdir (runs/hybrid_sampling), and there in models/ what it trained: `--resume` does not train again.

    python -m experiments.hybrid_sampling --config.start=heldout               # is refinement faithful to samples never trained on?

With this the model takes over not from the oracle, but from held-out samples noised to t_switch (the paper's project page, Fig. 6). How far
it ends from the original is set beside the nearest training sample, and beside the same from training samples. A model that has only
memorised ends in the training set. Writes resumed.csv in place of hybrid.csv. Of a model of your own, --config.heldout=FILE_OR_FOLDER names
samples that it never saw.
"""

import dataclasses
import time
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.common import app, resumed_sampling
from experiments.common.trained_models import MODELS, about_data, about_model, obtain, own_data, own_oracle, own_turning_point, strength
from flowjax import data, stages
from flowjax.analysis.hybrid import Hybrid, Memorized, Steps, checked_switches, hybrid_samples, memorized
from flowjax.analysis.verdict import Verdict, judge
from flowjax.fields import OracleField
from flowjax.reporting import sampling_figures
from flowjax.reporting.page import Section, beside_the_paper
from flowjax.reporting.workdir import WorkDir
from flowjax.sampling import Solver, draw_labels, noise
from flowjax.schedules import uniform_timesteps
from flowjax.stages import TurningPoint

LIVE = (MODELS,)
FREE = app.ANY
STARTS = (PRIOR, HELDOUT) = ("prior", "heldout")


def run(config: ConfigDict, workdir: WorkDir) -> str:
    """The whole experiment; returns the sentence to take away."""
    started = time.perf_counter()
    solver, switches = Solver(config.solver), _switches(config)
    if config.start == HELDOUT:
        return resumed_sampling.run(config, workdir, switches)
    flow = obtain(config.model, workdir)
    training, heldout = own_data(flow, config.data)
    if heldout is None:
        training, heldout = training.split(config.heldout_fraction, config.seed)
    oracle = own_oracle(flow, training)
    label = draw_labels(config.num_samples, flow.num_classes, seed=config.seed) if oracle.conditional else None
    found = hybrid_samples(
        OracleField(oracle),
        flow.field,
        noise(config.num_samples, training.shape, config.seed),
        Steps(uniform_timesteps(config.num_steps) * flow.path.t_max, switches),
        label,
        solver=solver,
        batch_size=config.batch_size,
        progress=app.progress("t_switch"),
    )
    seen = memorized(found, training.data, heldout.data)
    target = own_turning_point(oracle, config.seed)
    behaviour = stages.turning_point_of_curve(found.t_switch, seen.copies.astype(np.float64), seed=config.seed)
    identity = stages.turning_point_of_curve(found.t_switch, (seen.row == seen.own_row).astype(np.float64), seed=config.seed)
    verdict = _verdict(seen, target, behaviour, strength(flow)["enough"])

    takeaway = _takeaway(training.name, target, behaviour, verdict)
    origin = app.provenance("hybrid_sampling", config, started)
    rows = _rows(found, seen)
    workdir.write_csv("hybrid.csv", rows)
    workdir.write_json(
        "summary.json",
        {
            **about_data(training),
            "num_classes": training.num_classes,
            "model": about_model(flow),
            "num_samples": config.num_samples,
            "target_turning_point": dataclasses.asdict(target),
            "behavioural_turning_point": dataclasses.asdict(behaviour),
            "identity_turning_point": dataclasses.asdict(identity),
            "copies": {"heldout": seen.baseline._asdict(), "model": seen.shares()[0]._asdict(), "oracle": seen.shares()[-1]._asdict()},
            "verdict": dataclasses.asdict(verdict),
            "takeaway": takeaway,
            "units": {"t": "0 = noise, 1 = data", "distances": "1 = mean distance of a held-out sample from its nearest training sample"},
            **origin,
        },
    )
    drawn = [
        *_drawn(workdir, found, seen, training, config.show, target, behaviour),
        beside_the_paper(_PAPER, verdict),
        Section("In numbers", "All are in hybrid.csv.", table=rows),
    ]
    workdir.write_report("When following the oracle means copying", takeaway, drawn, origin)
    return takeaway


def _drawn(
    workdir: WorkDir, found: Hybrid, seen: Memorized, training: data.DataSet, show: int, target: TurningPoint, behaviour: TurningPoint
) -> list[Section]:
    """The figures."""
    return [
        Section(
            "How much is copied",
            "The share of copies among the samples, for each t at which the model takes over from the oracle. Held-out data show how often "
            "what was never seen looks like a copy. Earlier than a copy is made, it is decided of which training sample.",
            workdir.save_figure("copies", sampling_figures.copies_figure(found.t_switch, seen, target, behaviour)),
            alt="Share of copies against t_switch",
        ),
        Section(
            "How far from the training set",
            "From the nearest training sample, and from the one at which the oracle would have arrived from the same noise.",
            workdir.save_figure("distances", sampling_figures.distances_figure(found.t_switch, seen, target.measured)),
            alt="Distances against t_switch",
        ),
        Section(
            "What they look like",
            "Each row follows the oracle until another t_switch, each pair of columns begins in the same noise: the sample, and beside it "
            "its nearest training sample.",
            workdir.save_figure("samples", sampling_figures.switches_figure(found, seen, training, show)),
            alt="Samples and their nearest training samples",
        ),
    ]


_PAPER = (
    "ImageNet 256², LightningDiT: near-copies of training images for t_switch in (0.2, 1], new images for t_switch in [0, 0.2]: the "
    "behaviour turns at about 0.2, a little after the target does at about 0.1."
)


def _switches(config: ConfigDict) -> np.ndarray:
    if config.start not in STARTS:
        raise ValueError(f"start = {config.start!r}: expected one of {', '.join(STARTS)}")
    if config.heldout and config.start != HELDOUT:
        raise ValueError(f"heldout = {config.heldout!r} is read only with --config.start={HELDOUT}")
    app.check_at_least(config, num_samples=2, show=1)
    if len(config.t_switch):
        return checked_switches(config.t_switch)
    if config.num_switches < 2:
        raise ValueError(f"num_switches = {config.num_switches}: expected at least 2, the model alone and the oracle alone")
    return np.unique(np.linspace(0, config.num_steps, config.num_switches).round()) / config.num_steps


def _verdict(seen: Memorized, target: TurningPoint, behaviour: TurningPoint, enough: bool | None) -> Verdict:
    shares = seen.shares()
    model, oracle, unseen = shares[0], shares[-1], seen.baseline
    checks = {
        f"the oracle alone gives copies ({oracle.value:.1%} of its samples)": oracle.value >= 0.95,
        f"the model alone gives no more of them than held-out data hold ({model.value:.1%}, 95 % from {model.low:.1%}; held-out data "
        f"{unseen.value:.1%}, up to {unseen.high:.1%})": model.low <= unseen.high,
    }
    if behaviour.measured is None or target.measured is None:
        checks[f"the behaviour turns, and the target does ({behaviour.reason or target.reason})"] = False
    else:
        assert behaviour.ci_low is not None
        assert target.ci_high is not None
        checks[
            f"the behaviour turns after the target (t_switch = {behaviour.measured:.3f}, 95 % from {behaviour.ci_low:.3f}; target "
            f"{target.measured:.3f}, up to {target.ci_high:.3f})"
        ] = behaviour.ci_low > target.ci_high
    return judge(checks, model_strong_enough=enough)


def _takeaway(name: str, target: TurningPoint, behaviour: TurningPoint, verdict: Verdict) -> str:
    if behaviour.measured is None:
        return f"On {name} sampling has no point at which it turns into copying: {behaviour.reason}. {verdict.outcome.capitalize()}."
    beside = "" if target.measured is None else f", where the target turns at t = {target.measured:.2f}"
    return (
        f"On {name} sampling turns into copying once the oracle is followed beyond t = {behaviour.measured:.2f} "
        f"(95 %: {behaviour.ci_low:.2f} to {behaviour.ci_high:.2f}){beside}. {verdict.outcome.capitalize()}."
    )


def _rows(found: Hybrid, seen: Memorized) -> list[dict[str, Any]]:
    return [
        {
            "t_switch": float(switch),
            "copies": part.value,
            "copies_low": part.low,
            "copies_high": part.high,
            "distance to nearest": float(np.median(seen.nearest[i])),
            "distance to own": float(np.median(seen.own[i])),
            "share nearest to own": float(np.mean(seen.row[i] == seen.own_row)),
        }
        for i, (switch, part) in enumerate(zip(found.t_switch, seen.shares(), strict=True))
    ]


if __name__ == "__main__":
    app.main("hybrid_sampling", run, live=LIVE, free=FREE)
