"""Over which interval of t does guidance pay, and does the one that the turning point advises come near the best?

    python -m experiments.guidance_interval                                       # digits; trains its model first
    python -m experiments.guidance_interval --config.model.path=runs/train        # a model of experiments.train, on its own data
    python -m experiments.guidance_interval --config.model.path=runs/train --config.guide.path=runs/smaller    # by a weaker model
    python -m experiments.guidance_interval --config.model.factory=my_model:make --config.data.path=FILE   # of your own: docs/your-model.md
    python -m experiments.guidance_interval --config=experiments/configs/guidance_interval.py:imagenet_vavae \\
        --config.model.path=CHECKPOINT.pt --config.data.path=FOLDER_OF_SHARDS

Table 3 of arXiv 2512.02826, and as a map over where the interval begins and ends. Samples guided within each interval, on all channels,
are scored by their Fréchet distance from held-out data, on the same noise for every interval. Beside the paper's intervals stand those
that the data's own turning point gives: navigation alone, refinement alone, and the advice of `flowjax.stages`, whose constants come
from the paper's ImageNet: how far from the best it lands, here, is the test of it. Writes config.json, summary.json, guidance.csv,
guidance.md, map.csv, figures/ and report.html to --workdir (runs/guidance_interval), and as it goes models/ and cells/: `--resume` trains
nothing and samples nothing again.
"""

import dataclasses
import itertools
import time
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.common import app
from experiments.common.frechet_scores import NEAR, Scores, check, turn_and_advice
from experiments.common.trained_models import CELLS, MODELS, about_data, about_model, guide_of, obtain, own_data, strength
from flowjax.analysis.paired_scores import PairedScores, percent
from flowjax.analysis.verdict import Verdict, judge
from flowjax.fields import autoguided, convert_interval, guided
from flowjax.models.flow import Flow
from flowjax.path import RectifiedFlow
from flowjax.reporting import analysis_figures
from flowjax.reporting.page import Section, beside_the_paper
from flowjax.reporting.workdir import WorkDir
from flowjax.schedules import uniform_timesteps
from flowjax.stages import Advice, TurningPoint

LIVE = (MODELS, CELLS)
FREE = app.ANY
Interval = tuple[float, float]
PUBLISHED: dict[Interval | None, float] = {
    None: 12.99,
    (0.0, 1.0): 10.79,
    (0.0, 0.1): 6.33,
    (0.1, 0.2): 5.21,
    (0.1, 0.3): 3.54,
    (0.1, 0.5): 2.82,
    (0.1, 0.6): 2.80,
    (0.1, 0.7): 2.86,
    (0.4, 0.5): 10.39,
    (0.9, 1.0): 12.20,
}
"""Table 3: interval to gFID, LightningDiT-B/1 at scale 2.5 on all channels, ImageNet 256², turning point about 0.1."""


def run(config: ConfigDict, workdir: WorkDir) -> str:
    """The whole experiment; returns the sentence to take away."""
    started = time.perf_counter()
    check(config)
    edges, given = _asked(config)
    flow = obtain(config.model, workdir)
    guide = guide_of(config.guide, flow)
    if not flow.num_classes and guide is None:
        raise ValueError(f"{flow.source} was trained without classes, and has nothing to be guided by; --config.guide.path=WEAKER_MODEL")
    training, _ = own_data(flow, config.data)
    turn, settings = turn_and_advice(flow, training, workdir, config.seed)
    own = _own(turn, settings)
    on_map = [(a, b) for i, a in enumerate(edges) for b in edges[i + 1 :]]
    intervals = list(dict.fromkeys([None, *given, *own.values(), *on_map]))
    scores = Scores(config, flow, workdir)
    paired = PairedScores(np.stack([_scored(scores, config, flow, guide, interval) for interval in app.progress("intervals")(intervals)]))
    none = paired.score(0)
    regret = {name: paired.regret(intervals.index(interval)) for name, interval in own.items()}
    verdict = _verdict(paired, intervals, own, strength(flow)["enough"])

    takeaway = _takeaway(training.name, paired, intervals, own, verdict)
    origin = app.provenance("guidance_interval", config, started)
    listed = list(dict.fromkeys([None, *given, *own.values()]))
    rows = [_row(interval, paired, intervals, own) for interval in listed]
    workdir.write_table("guidance", rows)
    workdir.write_csv("map.csv", [_map_row(interval, paired, intervals) for interval in on_map])
    best = intervals[paired.best]
    workdir.write_json(
        "summary.json",
        {
            **about_data(training),
            "model": about_model(flow),
            "turning_point": dataclasses.asdict(turn),
            "advice": dataclasses.asdict(settings.guidance_interval),
            "scale": config.scale,
            "guide": None if guide is None else guide.source,
            "num_steps": config.num_steps,
            "num_samples": config.num_samples,
            "num_seeds": config.num_seeds,
            "frechet": {"none": none._asdict(), "best": paired.score(paired.best)._asdict()},
            "best": best,
            "own": {name: {"interval": interval, **_found(paired, intervals.index(interval))} for name, interval in own.items()},
            "verdict": dataclasses.asdict(verdict),
            "takeaway": takeaway,
            "units": {"frechet": f"squared, in {config.quality.features} features", "t": "0 = noise, 1 = data"},
            **origin,
        },
    )
    sections = [
        _map(config, workdir, edges, {span: paired.score(intervals.index(span)).value for span in on_map}, none.value, turn, own),
        _listed(workdir, paired, intervals, listed, own),
        Section("Table 3, here and in the paper", "All that were tried are in guidance.csv and map.csv.", table=rows),
        Section(
            "How far from the best the advice lands",
            "On each seed the best is the one of the other seeds. " + settings.guidance_interval.evidence,
            table=[{"interval": name, "t": _name(own[name]), **part._asdict()} for name, part in regret.items()],
        ),
        beside_the_paper(_PAPER, verdict),
    ]
    workdir.write_report("Where in time guidance pays", takeaway, sections, origin)
    return takeaway


def _found(paired: PairedScores, i: int) -> dict[str, Any]:
    """Score of an interval, its change from no guidance, and its regret."""
    return {"frechet": paired.score(i)._asdict(), "against_none": paired.change(i, 0)._asdict(), "regret": paired.regret(i)._asdict()}


def _map(
    config: ConfigDict,
    workdir: WorkDir,
    edges: list[float],
    scores: dict[Interval, float],
    none: float,
    turn: TurningPoint,
    own: dict[str, Interval],
) -> Section:
    """Every interval between two of the edges."""
    values = np.full((len(edges), len(edges)), np.nan)
    for (a, b), value in scores.items():
        values[edges.index(a), edges.index(b)] = value
    return Section(
        "Where guidance pays",
        f"The Fréchet distance with guidance of scale {config.scale:g} from one t to another, means over {config.num_seeds} seeds of "
        f"{config.num_samples:,} samples. Blue is better than no guidance, red worse.",
        workdir.save_figure("map", analysis_figures.interval_map(np.array(edges), values, none, own.get(ADVISED), turn.measured)),
        alt="Fréchet distance over the beginning and the end of the guidance interval",
    )


def _listed(
    workdir: WorkDir, paired: PairedScores, intervals: list[Interval | None], listed: list[Interval | None], own: dict[str, Interval]
) -> Section:
    """The intervals that have a name."""
    said: dict[Interval | None, str] = {interval: f"{name}: " for name, interval in own.items()}
    names = [said.get(interval, "") + _name(interval) for interval in listed]
    picked = PairedScores(paired.scores[[intervals.index(interval) for interval in listed]])
    published = {_name(interval): value for interval, value in PUBLISHED.items()}
    return Section(
        "Interval by interval",
        "The paper's intervals, and those of this data set's own turning point; with 95 % of the difference from none. Dashed: none.",
        workdir.save_figure("intervals", analysis_figures.intervals_figure(names, picked, 0, published)),
        alt="Fréchet distance of each interval, here and in the paper",
    )


ADVISED, NAVIGATION, REFINEMENT = "advised", "navigation alone", "refinement alone"
_PAPER = (
    "ImageNet 256², LightningDiT-B/1, scale 2.5: guidance pays in early and middle refinement, best in [0.1, 0.6]; over [0, 1] hardly at "
    "all. Its turning point lies at about 0.1."
)


def _asked(config: ConfigDict) -> tuple[list[float], list[Interval]]:
    """The edges of the map, and the intervals of the table."""
    guided(_nothing, config.scale)
    uniform_timesteps(config.num_steps)
    edges = [float(edge) for edge in config.edges]
    if len(edges) < 3 or any(not 0 <= a < b <= 1 for a, b in itertools.pairwise(edges)):
        raise ValueError(f"edges = {tuple(edges)}: expected at least three times in [0, 1], rising")
    found = []
    for ends in config.intervals:
        if len(ends) != 2:
            raise ValueError(f"intervals: {tuple(ends)}: expected pairs (t_low, t_high)")
        interval = convert_interval((float(ends[0]), float(ends[1])), "t", "t", RectifiedFlow())
        guided(_nothing, config.scale, interval)
        found.append(interval)
    return edges, found


def _nothing(x: Any, t: Any, label: Any) -> Any:
    return x


def _own(turn: TurningPoint, settings: Advice) -> dict[str, Interval]:
    """The intervals of the data's own stages; none where they do not turn, no empty one."""
    found: dict[str, Interval] = {}
    if turn.measured is not None:
        found |= {NAVIGATION: (0.0, turn.measured), REFINEMENT: (turn.measured, 1.0)}
    advised = settings.guidance_interval.value
    if advised is not None:
        found[ADVISED] = advised
    return found


def _scored(scores: Scores, config: ConfigDict, flow: Flow, guide: Flow | None, interval: Interval | None) -> np.ndarray:
    scale, within = (1.0, (0.0, 1.0)) if interval is None else (config.scale, interval)  # no guidance is a scale of 1: the same program
    field = guided(flow.field, scale, within) if guide is None else autoguided(flow.field, guide.field, scale, within)
    setting: dict[str, Any] = {"model": flow.digest, "guidance": None if interval is None else {"scale": scale, "interval": interval}}
    if guide is not None:
        setting["guide"] = guide.digest
    return scores(setting, field, uniform_timesteps(config.num_steps))


def _verdict(paired: PairedScores, intervals: list[Interval | None], own: dict[str, Interval], enough: bool | None) -> Verdict:
    place = {name: intervals.index(interval) for name, interval in own.items()}
    helped = paired.change(paired.best, 0)
    checks = {f"guidance over some interval helps ({_name(intervals[paired.best])}: {percent(helped)})": helped.high < 0}
    whole: Interval = (0.0, 1.0)
    if REFINEMENT in place and whole in intervals:
        left_out = paired.change(place[REFINEMENT], intervals.index(whole))
        checks[f"leaving navigation out is better than guiding all the way ({percent(left_out)})"] = left_out.high < 0
    if ADVISED in place:
        beside = paired.change(place[ADVISED], place[NAVIGATION])
        checks[f"the advised interval is better than navigation alone ({percent(beside)})"] = beside.high < 0
        regret = paired.regret(place[ADVISED])
        checks[f"it lands within {NEAR:.0%} of the best ({percent(regret)})"] = regret.value <= NEAR
    else:
        checks["there is an interval to advise"] = False
    return judge(checks, model_strong_enough=enough)


def _takeaway(name: str, paired: PairedScores, intervals: list[Interval | None], own: dict[str, Interval], verdict: Verdict) -> str:
    best = paired.best
    if best == 0:
        told = "no interval of guidance samples better than none"
    else:
        told = f"guidance does best over {_name(intervals[best])} ({percent(paired.change(best, 0))} against none)"
    if ADVISED in own:
        regret = paired.regret(intervals.index(own[ADVISED]))
        told += f"; the advised {_name(own[ADVISED])} lands {percent(regret)} from the best"
    return f"On {name} {told}. {verdict.outcome.capitalize()}."


def _row(interval: Interval | None, paired: PairedScores, intervals: list[Interval | None], own: dict[str, Interval]) -> dict[str, Any]:
    index = intervals.index(interval)
    change = paired.change(index, 0)
    return {
        "interval": _name(interval),
        "": next((name for name, one in own.items() if one == interval), ""),
        "Fréchet": paired.score(index).value,
        "against none": change.value,
        "low": change.low,
        "high": change.high,
        "paper, gFID": PUBLISHED.get(interval),
    }


def _map_row(interval: Interval, paired: PairedScores, intervals: list[Interval | None]) -> dict[str, Any]:
    score = paired.score(intervals.index(interval))
    return {"t_low": interval[0], "t_high": interval[1], "Fréchet": score.value, "low": score.low, "high": score.high}


def _name(interval: Interval | None) -> str:
    return "none" if interval is None else f"[{interval[0]:.2g}, {interval[1]:.2g}]"


if __name__ == "__main__":
    app.main("guidance_interval", run, live=LIVE, free=FREE)
