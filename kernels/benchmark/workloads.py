"""Workloads of typical users, computed by default settings and by PyTorch's dense softmax, each library in a process of its own."""

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels.benchmark.competitors import COMPETITORS, reference_velocity
from kernels.benchmark.runner import FASHION_MNIST, apart, load, queries
from kernels.posterior.api import plan
from kernels.posterior.cpu.dispatch import CpuEngine, by_host
from kernels.posterior.cpu.tuning import TUNING
from kernels.posterior.types import Queries, by_class, prepare

TABLE = {
    "workload": "{workload}",
    "samples": "{n:,} x {d:,}",
    "queries": "{queries}",
    "t": "{t}",
    "flowjax, ms": "{ours_ms:.1f}",
    "PyTorch, ms": "{pytorch_ms:.1f}",
    "x PyTorch": "{ratio:.2f}",
    "error": "{velocity_error:.0e}",
}
"""Columns of the table in documents, by header: the format of each."""
SAME_IN_WORKLOAD = ("workload", "samples", "queries")
"""Columns that are left out of a table of one workload."""
OURS, PYTORCH = "flowjax", "PyTorch dense"
CALLS = 15
"""Timed calls of a process, after two untimed; the median counts."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """One row of the table, for each of its times."""

    n: int
    d: int
    queries: int
    times: tuple[float, ...]
    classes: int = 0
    of_one_class: bool = False
    data: str = "synthetic"


WORKLOADS = {
    "a class of 1,300 latents of 26,000": Workload(26_000, 4096, 128, (0.02, 0.05, 0.1, 0.3, 0.9), 20, True),
    "latents of mixed classes": Workload(26_000, 4096, 128, (0.05, 0.9), 20),
    "1,300 latents": Workload(1300, 4096, 64, (0.05, 0.3, 0.9)),
    "toy data": Workload(1000, 64, 64, (0.05, 0.3, 0.9)),
    "digits' size": Workload(1797, 64, 64, (0.05, 0.3, 0.9)),
    "CIFAR's size": Workload(50_000, 3072, 64, (0.05, 0.9)),
    "Fashion-MNIST": Workload(60_000, 784, 128, (0.1, 0.5, 0.7, 0.9), data="fashion_mnist"),
}
SMALL = {"toy": Workload(200, 16, 8, (0.5,), 4)}
"""A workload that takes seconds, for tests."""


def compare(workloads: dict[str, Workload], rounds: int, say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """A row for each workload and time: median milliseconds of each library, their ratio, and the worst relative error of ours."""
    for name, workload in workloads.items():
        if workload.data == "fashion_mnist" and not FASHION_MNIST.exists():
            say(f"{name} is left out: apt-get install dataset-fashion-mnist puts its data there")
            continue
        with tempfile.TemporaryDirectory() as folder:
            np.save(Path(folder) / "data.npy", load(workload.data, workload.n, workload.d))
            for t in workload.times:
                runs: dict[str, list[dict[str, float]]] = {OURS: [], PYTORCH: []}
                for _ in range(rounds):
                    for library, every in runs.items():
                        argument = [library, dataclasses.asdict(workload), t, str(Path(folder) / "data.npy")]
                        every.append(apart(__name__, f"{library} on {name}", argument))
                ours, torch = (float(np.median([one["ms"] for one in runs[library]])) for library in (OURS, PYTORCH))
                error = max(one["error"] for one in runs[OURS])
                of = {"n": workload.n, "d": workload.d, "queries": workload.queries}
                yield {"workload": name, **of, "t": t, "ours_ms": ours, "pytorch_ms": torch, "ratio": torch / ours, "velocity_error": error}


def measure(library: str, workload: Workload, t: float, file: str) -> dict[str, float]:
    """Median milliseconds and worst relative error of one library, in this process."""
    data = np.load(file)
    labels = np.sort(np.arange(len(data)) % workload.classes).astype(np.int32) if workload.classes else None
    x, index = queries(data, t, workload.queries)
    if workload.of_one_class:
        rows = np.flatnonzero(labels == 3)
        own, index = queries(data[rows], t, workload.queries)
        x, index = own, rows[index]
    label = None if labels is None else labels[index]
    call = (_ours if library == OURS else _pytorch)(data, labels)
    seconds = []
    for _ in range(2 + CALLS):
        started = time.perf_counter()
        velocity = call(x, t, label)
        seconds.append(time.perf_counter() - started)
    error = 0.0
    for one in [None] if label is None or labels is None else np.unique(label):
        mine: Any = slice(None) if one is None else label == one
        true = reference_velocity(data if one is None else data[labels == one], x[mine], t)
        error = max(error, float((np.linalg.norm(velocity[mine] - true, axis=1) / np.linalg.norm(true, axis=1)).max()))
    return {"ms": 1e3 * float(np.median(seconds[2:])), "error": error}


Call = Callable[[np.ndarray, float, np.ndarray | None], np.ndarray]


def _ours(data: np.ndarray, labels: np.ndarray | None) -> Call:
    """What an `Oracle` that is called many times calls: all moments, as JAX arrays. Where data may have an index, it is made beforehand."""
    values = jnp.asarray(data)
    samples = prepare(values) if labels is None else by_class(values, jnp.asarray(labels))
    engine, how = CpuEngine(always=False), plan("all", None, None, "highest")
    if labels is None and TUNING.worth_an_index(*data.shape):
        engine.prepare(samples)

    def call(x: np.ndarray, t: float, label: np.ndarray | None) -> np.ndarray:
        ones, time = np.ones(len(x)), float(np.float32(t))
        of_all = np.full(len(x), -1, np.int32) if label is None else label
        queries = Queries(x, time * ones, (1 - time) * ones, of_all, ones, ones / (1 - time))
        found = by_host(engine, samples, queries, how, lambda moments: (moments.velocity, moments.alone()), _nothing_left)
        return np.asarray(jax.block_until_ready(found)[0])

    return call


def _nothing_left(rows: np.ndarray) -> Any:
    raise ValueError(f"{len(rows)} queries were left unanswered")


def _pytorch(data: np.ndarray, labels: np.ndarray | None) -> Call:
    """PyTorch's dense softmax, class by class."""
    parts = {-1: data} if labels is None else {int(one): data[labels == one] for one in np.unique(labels)}
    dense = {one: COMPETITORS[PYTORCH](rows) for one, rows in parts.items()}

    def call(x: np.ndarray, t: float, label: np.ndarray | None) -> np.ndarray:
        if label is None:
            return dense[-1](x, t)
        velocity = np.empty_like(x)
        for one in np.unique(label):
            velocity[label == one] = dense[int(one)](x[label == one], t)
        return velocity

    return call


if __name__ == "__main__":
    library, workload, t, file = json.loads(sys.argv[1])
    print(json.dumps(measure(library, Workload(**workload | {"times": tuple(workload["times"])}), t, file)))
