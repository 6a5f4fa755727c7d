"""How fast data come in: opening a source, loading it whole, and drawing training batches from it.

    python -m experiments.bench_data
    python -m experiments.bench_data --config.data.path=FILE_OR_FOLDER --config.batch_size=1024

Writes summary.json and report.html to --workdir (runs/bench_data). Nothing is trained: what a training step takes is compared with the
rate of batches found here.
"""

import contextlib
import time

from ml_collections import ConfigDict

from experiments.common import app
from experiments.common.data import open_data
from flowjax.data.pipeline import Batches
from flowjax.reporting.page import Section
from flowjax.reporting.workdir import WorkDir


def run(config: ConfigDict, workdir: WorkDir) -> str:
    """The whole experiment; returns the sentence to take away."""
    started = time.perf_counter()
    records = open_data(config.data)
    measured = {"seconds to open": time.perf_counter() - started}
    if config.in_memory:
        before = time.perf_counter()
        records.load(flips=config.data.flips, dtype=config.data.dtype)
        measured["seconds to load all samples"] = time.perf_counter() - before
    dropout = config.label_dropout if records.labels is not None else 0.0
    batches = Batches(records, config.batch_size, seed=config.seed, flips=config.data.flips, label_dropout=dropout)
    with contextlib.closing(batches.iterate()) as stream:
        size = next(stream).data.nbytes  # the first waits for the threads to start
        before, count = time.perf_counter(), 0
        while time.perf_counter() - before < config.seconds:
            next(stream)
            count += 1
        rate = count / (time.perf_counter() - before)
    measured |= {"batches a second": rate, "samples a second": rate * config.batch_size, "megabytes a second": rate * size / 1e6}
    takeaway = (
        f"{records.name} ({records.n:,} samples of shape {records.shape}, {records.rows.dtype}) gives {rate:.0f} batches of "
        f"{config.batch_size} a second: a training step that takes longer than {1e3 / rate:.1f} ms never waits."
    )
    origin = app.provenance("bench_data", config, started)
    workdir.write_json(
        "summary.json", {"dataset": records.name, "n": records.n, "d": records.d, **measured, "takeaway": takeaway, **origin}
    )
    table = [{"measured": name, "value": value} for name, value in measured.items()]
    for row in table:
        print(f"{row['measured']:<30}{row['value']:.4g}")
    workdir.write_report("How fast data come in", takeaway, [Section("Measured", "On this machine, in this run.", table=table)], origin)
    return takeaway


if __name__ == "__main__":
    app.main("bench_data", run)
