"""Where does flow matching on your data turn from navigation to refinement?

    python -m experiments.oracle_sweep                                            # scikit-learn's digits: 15 s on two CPU cores
    python -m experiments.oracle_sweep --config.data.path=latents.npy             # your own samples, [N, *shape]
    python -m experiments.oracle_sweep --config=experiments/configs/oracle_sweep.py:arrays \\
        --config.data.path=latents.npy --config.data.labels=labels.npy            # with classes: conditioned on each query's own
    python -m experiments.oracle_sweep --config=experiments/configs/oracle_sweep.py:gaussian_grid   # turning point over D and N

Follows the oracle velocity of a data set through t: how far the CFM target lies from it, how much weight the likeliest sample has, how
many samples compete; measures the turning point, predicts it twice, and says what follows for timestep shift and guidance interval.
What is found at each t is in partial/ as it comes: `--resume` goes on with the next t, on any number of processes. As several processes the
samples are distributed over all their devices. Writes config.json, summary.json, sweep.csv, figures/ and report.html to --workdir
(runs/oracle_sweep). Every key of the configuration can be set with --config.KEY=VALUE; the keys and presets stand in
experiments/configs/oracle_sweep.py.
"""

import dataclasses
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import oracle_grid
from experiments.common import app, multihost
from experiments.common.data import load_beside, loaded, open_data
from flowjax import data
from flowjax.analysis import data_sweep
from flowjax.analysis.data_sweep import DataSweep, Samples
from flowjax.analysis.groups import GroupedTurn, grouped_turning_points
from flowjax.analysis.near_duplicates import Groups, find_groups
from flowjax.analysis.regime_times import regime_times
from flowjax.analysis.sweep import draw_pairs
from flowjax.data.distributed import DistributedDataSet
from flowjax.path import Path, path_by_name
from flowjax.reporting.page import Link, Section
from flowjax.reporting.workdir import WorkDir
from flowjax.runtime import processes
from flowjax.runtime.result_store import ResultStore
from flowjax.runtime.watchdog import Watchdog

LIVE = ("partial",)
SEVERAL = True
"""It can run as several processes."""


def run(config: ConfigDict, workdir: WorkDir) -> str:
    """The whole experiment; returns the sentence to take away."""
    if "grid" in config:
        if processes.several():
            raise ValueError("the preset gaussian_grid runs as one process")
        return oracle_grid.run(config, workdir)
    started = time.perf_counter()
    if config.explorer and processes.several():
        raise ValueError("explorer = True: the page is written by one process; leave it out, and run experiments.explore")
    path = path_by_name(config.path)
    grid = _times(config)
    records = processes.together(lambda: open_data(config.data))
    processes.check_same({"data": records.fingerprint()})
    samples, queried = _load(config, records)
    processes.check_same({"queried": queried.provenance})
    by_class = config.by_class and samples.labels is not None
    oracle = data_sweep.oracle_of(samples, by_class, path)
    pairs = draw_pairs(
        queried.data, config.num_queries, config.seed, labels=queried.labels if by_class else None, exhaust=config.query != "train"
    )
    made_by = {"config": config.to_dict(), "data": samples.digest, "queried": queried.digest}
    swept = data_sweep.bracketing_sweep(
        oracle,
        pairs,
        grid,
        seed=config.seed,
        keep=config.strip_samples,
        progress=_progress,
        store=processes.together(lambda: ResultStore(workdir.live("partial"), of=made_by, arrays=True)),
        watchdog=Watchdog(multihost.step_timeout()),
    )
    predictions = data_sweep.predict(samples, by_class, path)
    if not processes.is_first():  # which reports
        return ""
    found = data_sweep.conclude(samples, pairs, swept, grid, predictions, path, seed=config.seed)
    groups, turns = _between_groups(config, samples, by_class, path)
    regimes = None  # of samples that several processes hold
    if isinstance(samples, data.DataSet):
        values = samples.data.astype(np.float32, copy=False)
        regimes = regime_times(values, samples.labels, path, by_class=by_class, num_queries=config.num_queries, seed=config.seed)

    from flowjax.reporting import groups_report, sweep_report

    takeaway = sweep_report.takeaway(found, config.query)
    if turns:
        told = groups_report.sentence(turns)
        takeaway += f" {told[0].upper()}{told[1:]}."
    origin = app.provenance("oracle_sweep", config, started)
    sweep_report.write_tables(workdir, found)
    drawn = sweep_report.figure_sections(workdir, found, regimes)
    origin["wall_seconds"] = time.perf_counter() - started
    asked = {key: config[key] for key in ("query", "num_queries", "path")}
    summary = sweep_report.summary(found, asked, takeaway, oracle.implementation)
    tables = sweep_report.table_sections(found)
    if regimes is not None:
        tables.insert(1, sweep_report.regimes_section(regimes, found.turning_point.measured))
        summary["regimes"] = dataclasses.asdict(regimes) | {"sentence": regimes.sentence()}
    if groups is not None:
        tables.insert(1, groups_report.section(workdir, turns, groups.scale))
    summary["between_groups"] = [dataclasses.asdict(turn) | {"predicted": turn.predicted._asdict()} for turn in turns]
    workdir.write_json("summary.json", summary | origin)
    link = _explorer(config, workdir, found, path, origin) if config.explorer else []
    workdir.write_report("Where flow matching turns", takeaway, [*link, *drawn, *tables], origin)
    return takeaway


def _explorer(config: ConfigDict, workdir: WorkDir, found: DataSweep, path: Path, origin: Mapping[str, Any]) -> list[Section]:
    """The page with sliders, written beside the report, and the link to it."""
    from experiments import explore  # here: a sweep without it imports less
    from experiments.configs.explore import get_config

    assert isinstance(found.samples, data.DataSet)
    settings = get_config()
    settings.seed, settings.num_queries = config.seed, config.num_queries
    explore.write(settings, workdir, found.samples, found.by_class, path, origin=origin, turn=found.turning_point)
    return [Section("", "", link=Link("Move through t yourself: the queries, and the samples that carry the weight", explore.PAGE))]


def _between_groups(config: ConfigDict, samples: Samples, by_class: bool, path: Path) -> tuple[Groups | None, list[GroupedTurn]]:
    """The groups of near-duplicates, if there are any, and where it turns between them."""
    if not isinstance(samples, data.DataSet) or samples.n > config.max_grouped:
        return None, []
    values, labels = samples.data.astype(np.float32, copy=False), samples.labels if by_class else None
    groups = find_groups(values, labels, seed=config.seed, progress=app.progress("near-duplicates"))
    return groups, [] if groups is None else grouped_turning_points(values, groups, labels, path, seed=config.seed)


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
    mesh = data_sweep.sample_mesh()
    assert mesh is not None
    samples = DistributedDataSet(records, mesh, flips=config.data.flips, dtype=config.data.dtype, heldout=heldout)
    if config.query == "train":
        return samples, samples
    return samples, processes.together(lambda: samples.heldout() if heldout else _beside(config, records, samples))


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


def _times(config: ConfigDict) -> np.ndarray:
    if config.num_t < 2 or not 0 <= config.t_min < config.t_max < 1:
        raise ValueError(
            f"t_min, t_max, num_t: expected 0 <= t_min < t_max < 1 and num_t >= 2, got {config.t_min}, {config.t_max}, {config.num_t}"
        )
    return np.linspace(config.t_min, config.t_max, config.num_t)


if __name__ == "__main__":
    app.main("oracle_sweep", run, live=LIVE, several=SEVERAL)
