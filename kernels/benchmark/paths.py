"""Whole paths: all times for two matrix products, beside PyTorch with a pass for each time; each way in a process of its own, in turn."""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from kernels.benchmark.runner import apart
from kernels.posterior.cpu.dispatch import CpuEngine
from kernels.posterior.cpu.path_tile import Paths
from kernels.posterior.types import prepare

TABLE = {
    "way": "{way}",
    "seconds": "{seconds:.2f}",
    "of PyTorch's logits": "{of_logits:.1f} x",
    "of PyTorch's pass": "{of_pass:.1f} x",
    "error of the top-1 weight": "{error:.0e}",
}
"""Columns of the table in documents, by header: the format of each."""
WAYS = ("flowjax, without gap", "flowjax, with gap", "PyTorch, logits", "PyTorch, pass")
"""PyTorch's logits: one product, log-sum-exp and maximum for each time. Its pass: softmax and mean too."""
CHECKED = 16
"""Pairs whose top-1 weights are compared with float64."""


def compare(data: np.ndarray, pairs: int, times: int, rounds: int) -> Iterator[dict[str, Any]]:
    """A row for each way: median seconds, how many times as fast as PyTorch's two, and the largest error of a top-1 weight."""
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "data.npy", data)
        for _ in range(rounds):
            for way, every in runs.items():
                every.append(apart(__name__, way, [way, str(Path(folder) / "data.npy"), pairs, times]))
    seconds = {way: float(np.median([run["seconds"] for run in every])) for way, every in runs.items()}
    for way, every in runs.items():
        yield {
            "way": way,
            "n": len(data),
            "d": data.shape[1],
            "pairs": pairs,
            "times": times,
            "seconds": seconds[way],
            "of_logits": seconds[WAYS[2]] / seconds[way],
            "of_pass": seconds[WAYS[3]] / seconds[way],
            "error": max(run["error"] for run in every),
        }


def measure(way: str, file: str, pairs: int, times: int) -> dict[str, float]:
    """Seconds of one way, in this process, after a warm call with few pairs."""
    data, rng = np.load(file), np.random.default_rng(0)
    x_1 = data[rng.integers(0, len(data), pairs)]
    x_0 = rng.standard_normal(x_1.shape, np.float32)
    t = np.linspace(0.01, 0.99, times)
    call = {WAYS[0]: _ours(data, False), WAYS[1]: _ours(data, True), WAYS[2]: _pytorch(False), WAYS[3]: _pytorch(True)}[way]
    call(data, x_0[:16], x_1[:16], t[:2])
    started = time.perf_counter()
    top1 = call(data, x_0, x_1, t)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "error": float(np.abs(top1[:, :CHECKED] - _reference(data, x_0[:CHECKED], x_1[:CHECKED], t)).max())}


Call = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Top-1 weights `[T, B]`, from data, x_0, x_1 and t."""


def _ours(data: np.ndarray, gap: bool) -> Call:
    samples, engine = prepare(jnp.asarray(data)), CpuEngine(always=False)

    def call(_: np.ndarray, x_0: np.ndarray, x_1: np.ndarray, t: np.ndarray) -> np.ndarray:
        sums = engine.along_paths(samples, Paths(x_0, x_1, np.full(len(x_0), -1, np.int32), t / (1 - t)), means=gap)
        if not sums.answered.all():
            raise ValueError(f"{(~sums.answered).mean():.1%} of the points were left unanswered")
        return sums.top1_weight

    return call


def _pytorch(whole: bool) -> Call:
    def call(data: np.ndarray, x_0: np.ndarray, x_1: np.ndarray, t: np.ndarray) -> np.ndarray:
        import torch

        y, noise, images = (torch.from_numpy(v) for v in (data, x_0, x_1))
        norms, found = (y**2).sum(1), []
        with torch.no_grad():
            for time in t:
                rate = time / (1 - time) ** 2
                x = time * images + (1 - time) * noise
                logits = torch.addmm(-rate * time / 2 * norms, rate * x.float(), y.T)
                top = logits.max(1).values
                if whole:
                    weights = torch.softmax(logits, 1)
                    mean = weights @ y
                    found.append((weights.max(1).values + 0 * mean[:, 0]).numpy())
                else:
                    found.append(torch.exp(top - torch.logsumexp(logits, 1)).numpy())
        return np.stack(found)

    return call


def _reference(data: np.ndarray, x_0: np.ndarray, x_1: np.ndarray, t: np.ndarray) -> np.ndarray:
    """In float64, from differences."""
    found = np.empty((len(t), len(x_0)))
    ratio = t / (1 - t)
    for b, (noise, image) in enumerate(zip(x_0.astype(np.float64), x_1.astype(np.float64), strict=True)):
        gap = data - image
        scores = ratio[:, None] * (-ratio[:, None] / 2 * np.einsum("nd,nd->n", gap, gap) + gap @ noise)
        found[:, b] = 1 / np.exp(scores - scores.max(1, keepdims=True)).sum(1)
    return found


if __name__ == "__main__":
    print(json.dumps(measure(*json.loads(sys.argv[1]))))
