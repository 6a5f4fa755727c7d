"""Where does flow matching on your data turn from navigation to refinement?

    python -m experiments.oracle_sweep                                            # scikit-learn's digits: 15 s on two CPU cores
    python -m experiments.oracle_sweep --config.data.path=latents.npy             # your own samples, [N, *shape]
    python -m experiments.oracle_sweep --config=experiments/configs/oracle_sweep.py:arrays \\
        --config.data.path=latents.npy --config.data.labels=labels.npy            # with classes: conditioned on each query's own
    python -m experiments.oracle_sweep --config=experiments/configs/oracle_sweep.py:gaussian_grid   # turning point over D and N

Follows the oracle velocity of a data set through t: how far the CFM target lies from it, how much weight the likeliest sample has, how
many samples compete; measures the turning point, predicts it twice, and says what follows for timestep shift and guidance interval.
What is found at each t is in partial/ as it comes: `--resume` goes on with the next t, on any number of processes. As several processes the
samples are dealt over all their devices. Writes config.json, summary.json, sweep.csv, figures/ and report.html to --workdir
(runs/oracle_sweep). Every key of the configuration can be set with --config.KEY=VALUE; the keys and presets stand in
experiments/configs/oracle_sweep.py.
"""

import dataclasses
import functools
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh
from ml_collections import ConfigDict

from experiments import oracle_grid
from experiments.common import app, multihost
from experiments.common.data import load_beside, loaded, open_data
from flowjax import data, stages
from flowjax.analysis.condensation import distributed_thresholds
from flowjax.analysis.statistics import Curve, mean_curve
from flowjax.analysis.sweep import COLUMNS, Pairs, Sweep, draw_pairs, sweep
from flowjax.analysis.verdict import Verdict, judge
from flowjax.data.distributed import DistributedDataSet
from flowjax.oracle import Oracle
from flowjax.oracle.deduplicate import distinct
from flowjax.path import Path, path_by_name
from flowjax.reporting import figures
from flowjax.reporting.page import Section
from flowjax.reporting.strip import strip_figure
from flowjax.reporting.workdir import WorkDir
from flowjax.runtime import processes
from flowjax.runtime.result_store import ResultStore
from flowjax.runtime.watchdog import Watchdog
from flowjax.schedules import shown_time
from kernels.posterior.distributed.sharded import QUERIES, SAMPLES

LIVE = ("partial",)
SEVERAL = True
"""It can run as several processes."""
Samples = data.DataSet | DistributedDataSet
SETTLED = 0.9
"""The weight at which the likeliest sample counts as the only one."""


def run(config: ConfigDict, workdir: WorkDir) -> str:
    """The whole experiment; returns the sentence to take away."""
    if "grid" in config:
        if processes.several():
            raise ValueError("the preset gaussian_grid runs as one process")
        return oracle_grid.run(config, workdir)
    started = time.perf_counter()
    path = path_by_name(config.path)
    grid = _times(config)
    records = processes.together(lambda: open_data(config.data))
    processes.check_same({"data": records.fingerprint()})
    samples, queried = _load(config, records)
    processes.check_same({"queried": queried.provenance})
    by_class = config.by_class and samples.labels is not None
    oracle = _oracle(samples, by_class, path)
    pairs = draw_pairs(
        queried.data, config.num_queries, config.seed, labels=queried.labels if by_class else None, exhaust=config.query != "train"
    )
    made_by = {"config": config.to_dict(), "data": samples.digest, "queried": queried.digest}
    store = processes.together(lambda: ResultStore(workdir.live("partial"), of=made_by, arrays=True))
    times, swept = _sweep(oracle, pairs, grid, config, store)
    predicted, prediction = _predict(samples, by_class, path)
    if not processes.is_first():  # which reports
        return ""
    curves = {name: mean_curve(values, 1.0 if name == "top1_weight" else np.inf) for name, values in swept.columns.items()}
    top1 = swept.columns["top1_weight"]
    found = stages.with_remark_on_scale(stages.turning_point_of_curve(times, top1, seed=config.seed), pairs.x_1)
    settings = stages.advice(found.measured, stages.covariance_spectrum(_own(samples).data), share=None, path=path)
    classes = _classes(config, samples, pairs, top1, times, path) if by_class else []

    takeaway = _takeaway(samples, by_class, found, config)
    verdict = _verdict(times, np.isin(times, grid), curves, found, prediction.t)
    origin = app.provenance("oracle_sweep", config, started)
    workdir.write_csv("sweep.csv", [_row(t, curves, i) for i, t in enumerate(times)])
    if classes:
        workdir.write_csv("classes.csv", [_class_row(point) for point in classes])
    summary = {
        "dataset": samples.name,
        "n": samples.n,
        "d": samples.d,
        "num_classes": samples.num_classes,
        "by_class": by_class,
        "query": config.query,
        "num_queries": config.num_queries,
        "path": config.path,
        "turning_point": dataclasses.asdict(found)
        | {
            "predicted": prediction.t,
            "predicted_low": prediction.low,
            "predicted_high": prediction.high,
            "prediction_unsure": prediction.unsure,
            "predicted_from_spectrum": predicted["from the spectrum"],
        },
        "advice": _advice(settings),
        "verdict": None if verdict is None else dataclasses.asdict(verdict),
        "takeaway": takeaway,
        "units": {"t": "0 = noise, 1 = data", "cfm_gap": "squared data units, summed over D", "entropy": "nats"},
        "implementation": oracle.implementation,
        "provenance": dict(samples.provenance),
        **origin,
    }
    drawn = _figures(workdir, samples, swept, times, np.isin(times, grid), curves, found, predicted, classes)
    summary["wall_seconds"] = origin["wall_seconds"] = time.perf_counter() - started
    workdir.write_json("summary.json", summary)
    workdir.write_report(
        "Where flow matching turns", takeaway, [*drawn, *_tables(samples, found, predicted, prediction, settings, times, curves)], origin
    )
    return takeaway


def _mesh() -> Mesh | None:
    """All devices, where there are several processes or accelerators; a CPU skips samples, which is faster than sharing them out."""
    if not processes.several() and (jax.default_backend() == "cpu" or jax.device_count() == 1):
        return None
    return jax.make_mesh((jax.device_count(), 1), (SAMPLES, QUERIES), axis_types=(AxisType.Auto, AxisType.Auto))


def _sweep(oracle: Oracle, pairs: Pairs, grid: np.ndarray, config: ConfigDict, store: ResultStore) -> tuple[np.ndarray, Sweep]:
    """The sweep over the grid, and over the times that it takes besides to bracket the turning point; in the order of t.

    Those are done after the grid's, and follow from what was found before: a sweep that was cut off goes on with the same ones.
    """
    times = more = grid
    while more.size:
        asked = len(times) - len(more)
        swept = sweep(
            oracle,
            pairs,
            times,
            keep=config.strip_samples,
            progress=functools.partial(_progress, asked=asked, total=len(times)),
            store=store,
            watchdog=Watchdog(multihost.step_timeout()),
        )
        order = np.argsort(times)
        more = stages.bracketing_times(times[order], swept.columns["top1_weight"][order], seed=config.seed)
        times = np.r_[times, more]
    columns = {name: values[order] for name, values in swept.columns.items()}
    return times[order], Sweep(columns, swept.x_t[:, order], swept.one_step[:, order])


def _progress(left: Iterable[int], asked: int, total: int) -> Iterable[int]:
    """Of the times that are left, of `total`, `asked` of which were there when they were last asked for."""
    times = list(left)
    if not processes.is_first():
        return times
    if asked < total - len(times):
        print(f"goes on: {total - len(times)} of {total} times are done", file=sys.stderr, flush=True)
    return app.progress("t")(times)


def _load(config: ConfigDict, records: data.Records) -> tuple[Samples, Samples]:
    """The oracle's data set, and the one whose samples are noised."""
    if not processes.several():
        return _load_whole(config, records)
    heldout = (config.heldout_fraction, config.seed) if config.query == "heldout" else None
    mesh = _mesh()
    assert mesh is not None
    dealt = DistributedDataSet(records, mesh, flips=config.data.flips, dtype=config.data.dtype, heldout=heldout)
    if config.query == "train":
        return dealt, dealt
    return dealt, processes.together(lambda: dealt.heldout() if heldout else _beside(config, records, dealt))


def _load_whole(config: ConfigDict, records: data.Records) -> tuple[data.DataSet, data.DataSet]:
    """Both, in the memory of one process."""
    whole = loaded(records, config.data)
    if config.query == "train":
        return whole, whole
    return whole.split(config.heldout_fraction, config.seed) if config.query == "heldout" else (whole, _beside(config, records, whole))


def _beside(config: ConfigDict, records: data.Records, whole: Samples) -> data.DataSet:
    """Samples from elsewhere, to be noised."""
    queried = load_beside(config.data, records, config.query)
    if queried.shape != whole.shape:
        raise ValueError(f"query: {config.query} holds samples of shape {queried.shape}, the data {whole.shape}")
    if config.by_class and whole.labels is not None and queried.labels is None:
        raise ValueError(f"query: {config.query} has no labels to condition on; give an .npz with labels, or --config.by_class=False")
    return queried


def _own(samples: Samples) -> data.DataSet:
    """Those that this process holds: all, or its share."""
    return samples.own if isinstance(samples, DistributedDataSet) else samples


def _oracle(samples: Samples, by_class: bool, path: Path) -> Oracle:
    """The oracle of the distinct samples, each as often as it is there."""
    if isinstance(samples, DistributedDataSet):
        return Oracle(samples.sharded(by_class=by_class), path=path)
    values, labels, counts = distinct(samples.data, samples.labels if by_class else None)
    return Oracle(values, labels, path=path, counts=counts, mesh=_mesh())


def _times(config: ConfigDict) -> np.ndarray:
    if config.num_t < 2 or not 0 <= config.t_min < config.t_max < 1:
        raise ValueError(
            f"t_min, t_max, num_t: expected 0 <= t_min < t_max < 1 and num_t >= 2, got {config.t_min}, {config.t_max}, {config.num_t}"
        )
    return np.linspace(config.t_min, config.t_max, config.num_t)


def _predict(samples: Samples, by_class: bool, path: Path) -> tuple[dict[str, float], stages.Prediction]:
    """Called by all processes: each compares the queries with its own samples. The spectrum is that of the samples of each."""
    own = _own(samples)
    labels = own.labels if by_class else None
    if labels is None:
        spectrum = stages.predict_turning_point(stages.covariance_spectrum(own.data), samples.n, path)
    else:
        assert samples.labels is not None
        classes, counts = np.unique(samples.labels, return_counts=True)
        sizes = dict(zip(classes.tolist(), counts.tolist(), strict=True))
        spectrum = stages.predict_turning_point_by_class(own.data, labels, path, sizes=sizes)[0]
    if isinstance(samples, DistributedDataSet):
        found = stages.prediction_of_thresholds(distributed_thresholds(samples, by_class=by_class), path)
    else:
        found = stages.predict_turning_point_with_interval(own.data, labels, path)
    return {"from the data": found.t, "from the spectrum": spectrum}, found


def _classes(
    config: ConfigDict, samples: Samples, pairs: Pairs, top1: np.ndarray, times: np.ndarray, path: Path
) -> list[figures.ClassPoint]:
    """The turning point of each class that has queries, measured on its own ones and predicted from its own samples."""
    assert pairs.labels is not None
    assert samples.labels is not None
    of_query, points = np.asarray(pairs.labels), []
    for label in np.unique(of_query):
        found = stages.turning_point_of_curve(times, top1[:, of_query == label], seed=config.seed)
        interval = None if found.ci_low is None or found.ci_high is None else (found.ci_low, found.ci_high)
        name = str(label) if samples.class_names is None else samples.class_names[label]
        own = samples.data[np.flatnonzero(samples.labels == label)]
        points.append(figures.ClassPoint(name, found.measured, interval, stages.predict_turning_point_from_data(own, path=path)))
    return points


def _class_row(point: figures.ClassPoint) -> dict[str, Any]:
    low, high = point.interval or (None, None)
    return {"class": point.name, "measured": point.measured, "ci_low": low, "ci_high": high, "predicted": point.predicted}


def _row(t: float, curves: Mapping[str, Curve], i: int) -> dict[str, float]:
    row = {"t": float(t)}
    for name in COLUMNS:
        mean, low, high = (float(part[i]) for part in curves[name])
        row |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    return row


def _takeaway(samples: Samples, by_class: bool, found: stages.TurningPoint, config: ConfigDict) -> str:
    subject = f"{samples.name} (N = {samples.n:,}, D = {samples.d:,}{', by class' if by_class else ''})"
    if found.measured is None:
        return f"On {subject} no turning point was found: {found.reason}."
    where = "" if config.query == "train" else f" for queries from {config.query}"
    remark = "" if found.remark is None else f" But {found.remark}."
    return (
        f"On {subject} flow matching turns from navigation to refinement at t = {shown_time(found.measured)} (95 %: "
        f"{shown_time(found.ci_low)} to {shown_time(found.ci_high)}){where}: before it many samples shape the velocity, after it one does."
        f"{remark}"
    )


def _verdict(
    times: np.ndarray, even: np.ndarray, curves: Mapping[str, Curve], found: stages.TurningPoint, predicted: float
) -> Verdict | None:
    """Whether the target has the two stages of the paper's Figure 1; None where the evenly spaced times do not cover both."""
    turn = found.measured
    if turn is None or not turn < times[even].max() or not times[even].min() <= turn:
        return None
    gap, weight = curves["cfm_gap"].mean, curves["top1_weight"].mean
    ratio = float(gap[even & (times > turn)].mean() / gap[even & (times <= turn)].mean())
    settled = float(times[weight >= SETTLED][0]) if (weight >= SETTLED).any() else np.inf
    return judge(
        {
            f"the mean gap after the turn is at most a tenth of that before ({ratio:.1%})": ratio <= 0.1,
            f"the likeliest sample has {SETTLED:.0%} of the weight within 0.1 of the turn (at t = {settled:.3g})": settled - turn <= 0.1,
            f"the turn is predicted within {oracle_grid.PREDICTED_WITHIN:.0%} ({predicted:.3f}, {predicted / turn - 1:+.1%})": abs(
                predicted / turn - 1
            )
            <= oracle_grid.PREDICTED_WITHIN,
        }
    )


def _advice(settings: stages.Advice) -> dict[str, Any]:
    return {
        "shift": settings.shift.value,
        "shift_range": settings.shift.range,
        "shift_evidence": settings.shift.evidence,
        "guidance_interval": settings.guidance_interval.value,
        "guidance_interval_range": settings.guidance_interval.range,
        "guidance_interval_evidence": settings.guidance_interval.evidence,
    }


def _figures(
    workdir: WorkDir,
    samples: Samples,
    swept: Sweep,
    times: np.ndarray,
    even: np.ndarray,
    curves: Mapping[str, Curve],
    found: stages.TurningPoint,
    predicted: Mapping[str, float],
    classes: list[figures.ClassPoint],
) -> list[Section]:
    turn = found.measured
    interval = None if found.ci_low is None or found.ci_high is None else (found.ci_low, found.ci_high)
    shown = np.flatnonzero(even)[np.unique(np.linspace(0, even.sum() - 1, min(12, even.sum())).round().astype(int))]
    assert samples.value_range is not None
    competing = samples.n if not classes else float(np.unique_counts(samples.labels if samples.labels is not None else [0]).counts.max())
    drawings = {
        "top1": (
            figures.top1_figure(times, curves["top1_weight"], turn, interval, predicted),
            "Weight of the likeliest sample",
            "The mean posterior weight of the likeliest sample. Where it crosses one half the stages meet; both predictions are marked.",
        ),
        "gap": (
            figures.gap_figure(times, curves["monte_carlo_gap"], curves["cfm_gap"], turn),
            "How far the training target lies from the oracle",
            "E‖u_cond - u*‖², by Monte Carlo over the queries and as A² tr Cov[x_1 | x_t]: two estimates of one number. Only in navigation "
            "does the CFM target differ from the velocity that the model is to learn.",
        ),
        "entropy": (
            figures.entropy_figure(times, curves["entropy"], curves["effective_samples"], float(np.log(competing)), turn),
            "How many samples compete",
            "Entropy of the posterior weights, and effective samples 1 / Σ γ².",
        ),
        "strip": (
            strip_figure(times[shown], swept.x_t[:, shown], swept.one_step[:, shown], samples.value_range, turn),
            "What the oracle sees, and what it makes of it",
            "Above: x_t. Below: one Euler step from t to 1 along the oracle. The mean of all that competes turns into a single sample.",
        ),
    }
    if classes:
        drawings["classes"] = (
            figures.classes_figure(classes, turn),
            "Class by class",
            "The turning point of each class, from its own queries; the prediction is from its own samples.",
        )
    return [
        Section(heading, text, workdir.save_figure(name, figure), alt=f"{heading}: {text}")
        for name, (figure, heading, text) in drawings.items()
    ]


def _tables(
    samples: Samples,
    found: stages.TurningPoint,
    predicted: Mapping[str, float],
    prediction: stages.Prediction,
    settings: stages.Advice,
    times: np.ndarray,
    curves: Mapping[str, Curve],
) -> list[Section]:
    turning = [{"turning point": "measured", "t": found.measured, "95 % from": found.ci_low, "to": found.ci_high}]
    spans = {"from the data": (prediction.low, prediction.high)}
    for how, t in predicted.items():
        low, high = spans.get(how, (None, None))
        turning.append({"turning point": f"predicted {how}", "t": t, "95 % from": low, "to": high})
    said = ["The t at which the mean top-1 weight crosses one half."]
    said += [f"None was found: {found.reason}."] if found.reason else [f"But {found.remark}."] if found.remark else []
    said += [f"The prediction from the data is unsure: {prediction.unsure}."] if prediction.unsure else []
    advised = [
        {"setting": "timestep shift s", "value": _shown(settings.shift.value), "range": _shown(settings.shift.range)},
        {
            "setting": "guidance interval in t",
            "value": _shown(settings.guidance_interval.value),
            "range": _shown(settings.guidance_interval.range),
        },
    ]
    every = max(1, len(times) // 12)
    rows = [{"t": float(t)} | {name: float(curves[name].mean[i]) for name in COLUMNS} for i, t in enumerate(times) if i % every == 0]
    return [
        Section("The turning point", " ".join(said), table=turning),
        Section("What follows", " ".join(dict.fromkeys((settings.shift.evidence, settings.guidance_interval.evidence))), table=advised),
        Section("The sweep", "Means over queries; all times, with intervals, are in sweep.csv.", table=rows),
        Section("The data", "Where they came from.", table=[{"key": k, "value": str(v)} for k, v in samples.provenance.items()]),
    ]


def _shown(value: Any) -> str:
    """A number, an interval or a range of intervals, for a table."""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return " to ".join(stages.interval_in_words(part) if isinstance(part, tuple) else _shown(part) for part in value)
    return f"{value:.3g}"


if __name__ == "__main__":
    app.main("oracle_sweep", run, live=LIVE, several=SEVERAL)
