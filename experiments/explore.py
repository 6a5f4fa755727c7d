"""See where flow matching turns on your data: one page with sliders for t, the timestep shift and the guidance interval.

    python -m experiments.explore                                          # scikit-learn's digits: half a minute on two CPU cores
    python -m experiments.explore --config.data.path=FILE_OR_FOLDER        # yours
    python -m experiments.explore --config.model.path=runs/train           # a model beside the oracle of what it was trained on
    python -m experiments.explore --config.for=diffusers --config.classes='(3, 8)'
    python -m experiments.explore --config.t_max=0.2                       # finer stops of the slider, for a turn near noise

The slider over t moves a dozen queries x_t, what one step along the oracle makes of each (and along a model, if one is given), and the
samples that carry the posterior weight, with their weights as bars; the mean top-1 weight, and the turning point on it, show where that is.
The shift moves the steps of a sampler and says how many lie before the turn; the guidance interval says how many are guided; both as the
line to paste into the chosen framework. The page needs no network and nothing but a browser; it works by keyboard and on a telephone.
Writes explore.html, summary.json, config.json and top1.csv to --workdir (runs/explore).
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.common import app
from experiments.common.data import load_data
from flowjax import data, stages
from flowjax.analysis.exploration import explore, shown_pairs
from flowjax.analysis.statistics import mean_curve
from flowjax.analysis.sweep import draw_pairs
from flowjax.conventions import CONVENTIONS, told
from flowjax.fields import Field
from flowjax.oracle import Oracle
from flowjax.oracle.deduplicate import distinct
from flowjax.path import Path, RectifiedFlow, path_by_name
from flowjax.reporting import explorer, steps_table
from flowjax.reporting.explorer import Measured, Subject
from flowjax.reporting.workdir import WorkDir
from flowjax.stages import TurningPoint

PAGE = explorer.PAGE
"""What it writes for a reader."""


class Beside(NamedTuple):
    """A model to set beside the oracle."""

    field: Field
    name: str
    source: str


def run(config: ConfigDict, workdir: WorkDir) -> str:
    """The whole experiment; returns the sentence to take away."""
    started = time.perf_counter()
    path = path_by_name(config.path)
    if config.model.factory or config.model.path:
        samples, by_class, path, model = _of_model(config, workdir)
    else:
        block = ConfigDict(config.data.to_dict())
        if not (block.source or block.path):
            block.source = "digits"
        samples, model = load_data(block), None
        by_class = config.by_class and samples.labels is not None
    said, found = write(config, workdir, samples, by_class, path, origin=app.provenance("explore", config, started), model=model)
    workdir.write_json("summary.json", found | app.provenance("explore", config, started))
    return said


def write(
    config: ConfigDict,
    workdir: WorkDir,
    samples: data.DataSet,
    by_class: bool,
    path: Path,
    *,
    origin: Mapping[str, Any],
    model: Beside | None = None,
    turn: TurningPoint | None = None,
) -> tuple[str, dict[str, Any]]:
    """Writes the page and its table into the workdir; returns the sentence to take away, and the summary but for its provenance.

    Args:
      config: of this binary; its `data`, `model`, `path` and `by_class` are not read.
      by_class: each query competes within its own class.
      origin: of the page, for its foot.
      turn: the turning point, where it was measured before.
    """
    times = _times(config, path)
    names = _names(config, path)
    values, labels, counts = distinct(samples.data, samples.labels if by_class else None)
    oracle = Oracle(values, labels, path=path, counts=counts)
    if turn is None:
        turn = stages.measure_turning_point(oracle, label="own" if by_class else None, num_queries=config.num_queries, seed=config.seed)
    pairs = draw_pairs(values, config.num_queries, config.seed, labels=labels, counts=counts)
    curve = np.asarray(oracle.along_path(pairs.x_0, pairs.x_1, times, pairs.labels, gap=False).top1_weight, np.float64)
    advice = stages.advice(turn.measured, stages.covariance_spectrum(samples.data), share=None, path=path)
    classes = samples.labels if len(values) == samples.n else labels  # duplicates that were merged may have been of several classes
    queries, rows = shown_pairs(values, config.num_shown, config.seed, labels=classes, classes=config.classes, condition=by_class)
    found = explore(oracle, queries, times, config.num_heaviest, None if model is None else model.field)

    assert samples.value_range is not None
    named = None if model is None else model.name
    subject = Subject(samples.name, values, classes, samples.class_names, by_class, samples.value_range, named)
    measured = Measured(config.num_queries, mean_curve(curve, 1.0), turn, advice)
    said = explorer.takeaway(subject, turn)
    page = explorer.page_data(subject, found, rows, measured, names, config.num_steps)
    foot = {key: value for key, value in origin.items() if key != "wall_seconds"}
    explorer.write_page(workdir.path(PAGE), page, subject, said, foot)
    top1 = measured.top1._asdict()
    workdir.write_csv("top1.csv", [{"t": float(t)} | {name: float(part[i]) for name, part in top1.items()} for i, t in enumerate(times)])
    return said, {
        "dataset": samples.name,
        "n": samples.n,
        "distinct": len(values),
        "d": samples.d,
        "by_class": by_class,
        "model": None if model is None else model.source,
        "turning_point": dataclasses.asdict(turn),
        "advice": dataclasses.asdict(advice),
        "queries": page["queries"],
        "takeaway": said,
        "units": {"t": "0 = noise, 1 = data"},
        "provenance": dict(samples.provenance),
    }


def _of_model(config: ConfigDict, workdir: WorkDir) -> tuple[data.DataSet, bool, Path, Beside]:
    """What the model was trained on, whether it is told classes, its path, and the model."""
    from experiments.common.trained_models import obtain, own_data, told_classes  # here: data alone need no package that runs models

    flow = obtain(config.model, workdir)
    samples = own_data(flow, config.data)[0]
    return samples, told_classes(flow, samples), flow.path, Beside(flow.field, str(flow.name), str(flow.source))


def _times(config: ConfigDict, path: Path) -> np.ndarray:
    """The stops of the slider."""
    if config.num_t < 2 or not 0 < config.t_max < 1:
        raise ValueError(f"t_max = {config.t_max}, num_t = {config.num_t}: expected t_max in (0, 1) and at least 2 times")
    app.check_at_least(config, num_heaviest=1)
    return np.asarray(jnp.linspace(0.0, min(config.t_max, path.t_max), config.num_t, dtype=jnp.float32), np.float64)


def _names(config: ConfigDict, path: Path) -> Sequence[str]:
    """Whose units are told: t itself first, or alone where the path is not that of the frameworks."""
    app.check_at_least(config, num_steps=2)
    if config.for_ == "all":
        return [steps_table.PLAIN, *CONVENTIONS] if path == RectifiedFlow() else [steps_table.PLAIN]
    told(config.for_, None, None, config.num_steps)
    if path != RectifiedFlow():
        raise ValueError(f"for = {config.for_!r}: frameworks' units are those of rectified_flow, and the path is {path}: leave it out")
    return [config.for_]


if __name__ == "__main__":
    app.main("explore", run, page=PAGE)
