"""First calls on a fresh oracle: by the default, by one that never makes an index, and by one that makes it at once."""

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from kernels.benchmark.runner import apart
from kernels.posterior.cpu import dispatch
from kernels.posterior.cpu.dispatch import CpuEngine
from kernels.posterior.cpu.tuning import TUNING
from kernels.posterior.types import Queries, prepare

WAYS = ("default", "never", "at once")
TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""In turn, one for each call."""


def compare(data: np.ndarray, queries: int, counts: list[int], rounds: int) -> Iterator[dict[str, Any]]:
    """A row for each K of `counts`: median seconds of K calls in each way, in turn, and the default's over the better of the two others."""
    runs: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "data.npy"
        np.save(file, data)
        for _ in range(rounds):
            for way, every in runs.items():
                every.append(apart(__name__, way, [way, str(file), queries, counts]))
    seconds = {way: np.median(every, axis=0).tolist() for way, every in runs.items()}
    for k, count in enumerate(counts):
        row = {way: seconds[way][k] for way in WAYS}
        yield {"calls": count, **row, "ratio": row["default"] / min(row["never"], row["at once"])}


def measure(way: str, file: str, queries: int, counts: list[int]) -> list[float]:
    """Seconds of the first K calls, in this process."""
    if way == "never":
        dispatch.TUNING = dataclasses.replace(TUNING, index_cost=10**12)
    data, rng = np.load(file), np.random.default_rng(0)
    samples, engine = prepare(jnp.asarray(data)), CpuEngine(always=False)
    # Loops are compiled, and libraries loaded, on other data of the same kind.
    other = prepare(jnp.asarray(data[: 2 * TUNING.least_indexed // data.shape[1]]))
    warm = CpuEngine(always=False)
    warm.prepare(other)
    for t in TIMES:
        warm(other, _queries(data, t, queries, rng), tolerance=0.0)
    found, began = [], time.perf_counter()
    if way == "at once":
        engine.prepare(samples)
    for call in range(max(counts)):
        if engine(samples, _queries(data, TIMES[call % len(TIMES)], queries, rng), tolerance=0.0) is None:
            raise ValueError(f"call {call} was left unanswered")
        if call + 1 in counts:
            found.append(time.perf_counter() - began)
    return found


def _queries(data: np.ndarray, t: float, count: int, rng: np.random.Generator) -> Queries:
    x = t * data[rng.integers(0, len(data), count)] + (1 - t) * rng.standard_normal((count, data.shape[1]), np.float32)
    ones = np.ones(count)
    return Queries(x.astype(np.float32), t * ones, (1 - t) * ones, np.full(count, -1, np.int32), ones, ones / (1 - t))


if __name__ == "__main__":
    print(json.dumps(measure(*json.loads(sys.argv[1]))))
