"""The oracle sweep of a whole data set: its turning point measured, predicted twice, and by class; and what follows from it."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh
from jaxtyping import Bool, Float

from flowjax import stages
from flowjax.analysis.condensation import distributed_thresholds
from flowjax.analysis.statistics import Curve, mean_curve
from flowjax.analysis.sweep import Pairs, Sweep, sweep
from flowjax.analysis.verdict import PREDICTED_WITHIN, Verdict, judge
from flowjax.data.dataset import DataSet
from flowjax.data.distributed import DistributedDataSet
from flowjax.oracle import Oracle
from flowjax.oracle.deduplicate import distinct
from flowjax.path import Path
from flowjax.runtime import processes
from flowjax.runtime.result_store import ResultStore
from flowjax.runtime.watchdog import Watchdog
from kernels.posterior.distributed.sharded import QUERIES, SAMPLES

Samples = DataSet | DistributedDataSet
"""In the memory of one process, or distributed over several."""
SETTLED = 0.9
"""The weight at which the likeliest sample counts as the only one."""


class ClassPoint(NamedTuple):
    """The turning point of one class; None where the weight never crosses."""

    name: str
    measured: float | None
    interval: tuple[float, float] | None = None
    predicted: float | None = None


class Predictions(NamedTuple):
    """The turning point as two predictors have it."""

    from_data: stages.Prediction
    from_spectrum: float


@dataclasses.dataclass(frozen=True)
class DataSweep:
    """What a sweep says of a data set.

    Attributes:
      samples: the oracle's data set; `by_class`: conditioned on each query's own class.
      times: `[T]`, those asked for (`even`) and those that were needed besides, rising.
      sweep: what was found of each pair at each t; `curves` has the means over pairs of `flowjax.analysis.sweep.COLUMNS`.
      classes: of each class that has queries; empty if not by class.
      verdict: whether the target has two stages; None where the times asked for do not cover both.
    """

    samples: Samples
    by_class: bool
    times: Float[np.ndarray, " T"]
    even: Bool[np.ndarray, " T"]
    sweep: Sweep
    curves: Mapping[str, Curve]
    turning_point: stages.TurningPoint
    predictions: Predictions
    advice: stages.Advice
    classes: list[ClassPoint]
    verdict: Verdict | None


def sample_mesh() -> Mesh | None:
    """All devices, where there are several processes or accelerators; a CPU skips samples, which is faster than sharing them out."""
    if not processes.several() and (jax.default_backend() == "cpu" or jax.device_count() == 1):
        return None
    return jax.make_mesh((jax.device_count(), 1), (SAMPLES, QUERIES), axis_types=(AxisType.Auto, AxisType.Auto))


def own_share(samples: Samples) -> DataSet:
    """The samples that this process holds: all, or its share."""
    return samples.own if isinstance(samples, DistributedDataSet) else samples


def oracle_of(samples: Samples, by_class: bool, path: Path) -> Oracle:
    """The oracle of the distinct samples, each as often as it is there."""
    if isinstance(samples, DistributedDataSet):
        return Oracle(samples.sharded(by_class=by_class), path=path)
    values, labels, counts = distinct(samples.data, samples.labels if by_class else None)
    return Oracle(values, labels, path=path, counts=counts, mesh=sample_mesh())


def bracketing_sweep(
    oracle: Oracle,
    pairs: Pairs,
    grid: Float[np.ndarray, " G"],
    *,
    seed: int,
    keep: int = 0,
    progress: Callable[[Iterable[int], int, int], Iterable[int]] = lambda left, asked, total: left,
    store: ResultStore | None = None,
    watchdog: Watchdog | None = None,
) -> tuple[Float[np.ndarray, " T"], Sweep]:
    """The sweep over the grid, and over the times that it takes besides to bracket the turning point; in the order of t.

    Those are done after the grid's, and follow from what was found before: a sweep that was cut off goes on with the same ones.

    Args:
      seed: of the bootstrap whose interval is bracketed too (`flowjax.stages.bracketing_times`).
      progress: of the indices that are left, how many times there were when it was last asked, and how many there are.
      keep, store, watchdog: as `flowjax.analysis.sweep.sweep`.
    """
    times = more = grid
    while more.size:
        asked, total = len(times) - len(more), len(times)
        swept = sweep(
            oracle,
            pairs,
            times,
            keep=keep,
            progress=lambda left, asked=asked, total=total: progress(left, asked, total),  # type: ignore[misc]
            store=store,
            watchdog=watchdog,
        )
        order = np.argsort(times)
        more = stages.bracketing_times(times[order], swept.columns["top1_weight"][order], seed=seed)
        times = np.r_[times, more]
    columns = {name: values[order] for name, values in swept.columns.items()}
    return times[order], Sweep(columns, swept.x_t[:, order], swept.one_step[:, order])


def predict(samples: Samples, by_class: bool, path: Path) -> Predictions:
    """Called by all processes: each compares the queries with its own samples. The spectrum is that of the samples of each."""
    own = own_share(samples)
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
    return Predictions(found, spectrum)


def conclude(
    samples: Samples,
    pairs: Pairs,
    swept: tuple[Float[np.ndarray, " T"], Sweep],
    grid: Float[np.ndarray, " G"],
    predictions: Predictions,
    path: Path,
    *,
    seed: int,
) -> DataSweep:
    """What follows from a sweep; by class if the pairs have labels.

    Args:
      swept: of `bracketing_sweep` over `grid`.
      seed: of the bootstrap.
    """
    times, found = swept
    curves = {name: mean_curve(values, 1.0 if name == "top1_weight" else np.inf) for name, values in found.columns.items()}
    top1, even = found.columns["top1_weight"], np.isin(times, grid)
    turn = stages.with_remark_on_scale(stages.turning_point_of_curve(times, top1, seed=seed), pairs.x_1)
    return DataSweep(
        samples,
        pairs.labels is not None,
        times,
        even,
        found,
        curves,
        turn,
        predictions,
        stages.advice(turn.measured, stages.covariance_spectrum(own_share(samples).data), share=None, path=path),
        [] if pairs.labels is None else _classes(samples, np.asarray(pairs.labels), top1, times, path, seed),
        _verdict(times, even, curves, turn, predictions.from_data.t),
    )


def _classes(samples: Samples, of_query: np.ndarray, top1: np.ndarray, times: np.ndarray, path: Path, seed: int) -> list[ClassPoint]:
    """The turning point of each class that has queries, measured on its own ones and predicted from its own samples."""
    assert samples.labels is not None
    points = []
    for label in np.unique(of_query):
        found = stages.turning_point_of_curve(times, top1[:, of_query == label], seed=seed)
        interval = None if found.ci_low is None or found.ci_high is None else (found.ci_low, found.ci_high)
        name = str(label) if samples.class_names is None else samples.class_names[label]
        own = samples.data[np.flatnonzero(samples.labels == label)]
        points.append(ClassPoint(name, found.measured, interval, stages.predict_turning_point_with_interval(own, path=path).t))
    return points


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
    off = predicted / turn - 1
    return judge(
        {
            f"the mean gap after the turn is at most a tenth of that before ({ratio:.1%})": ratio <= 0.1,
            f"the likeliest sample has {SETTLED:.0%} of the weight within 0.1 of the turn (at t = {settled:.3g})": settled - turn <= 0.1,
            f"the turn is predicted within {PREDICTED_WITHIN:.0%} ({predicted:.3f}, {off:+.1%})": abs(off) <= PREDICTED_WITHIN,
        }
    )
