"""Patch posteriors: every patch of noisy images against every patch of a data set; beside PyTorch, KeOps and SciPy, each in its process."""

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from kernels.benchmark.runner import apart
from kernels.patches.api import PatchSettings, patch_means
from kernels.patches.images import PatchSet

TABLE = {
    "way": "{way}",
    "images": "{images:,}",
    "seconds": "{seconds:.1f}",
    "CPU seconds": "{cpu_seconds:.1f}",
    "ns a pair": "{nanoseconds:.2f}",
    "CPU time of flowjax": "{times:.1f} x",
    "error": "{checked}",
}
"""Columns of the table in documents, by header: the format of each."""
OURS = "flowjax"
WAYS = (OURS, "PyTorch, dense", "PyTorch, streamed", "KeOps", "SciPy, 64 nearest")
"""PyTorch's dense way takes a million patches at once, its streamed one blocks that fit a cache. SciPy's tree is not exact: early in time
thousands of patches share the weight, and 64 neighbours have little of it."""
CHECKED = 12
"""Places whose means are compared with float64."""


def compare(data: Float[np.ndarray, "N D"], queries: int, size: int, t: float, some: int) -> Iterator[dict[str, Any]]:
    """A row for flowjax on all images, and one for each way on the first `some`; the cost of all is linear in the number of images.

    CPU seconds are those of all threads: on a busy machine they are what compares. So that threads that wait do not count as work, OpenMP's
    are told to sleep.
    """
    os.environ.update(OMP_WAIT_POLICY="PASSIVE", KMP_BLOCKTIME="0")
    side = math.isqrt(data.shape[1])
    if side**2 != data.shape[1]:
        raise ValueError(f"data has {data.shape[1]} numbers in a sample: patches are measured on square images of one channel")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "data.npy", data)
        for way, images in [(OURS, len(data)), *((way, min(some, len(data))) for way in WAYS)]:
            try:
                found = apart(__name__, way, [way, str(Path(folder) / "data.npy"), images, queries, size, t])
            except ValueError as error:
                if way == OURS:
                    raise
                print(f"{way} is left out: {error}", flush=True)
                continue
            pairs = images * queries * data.shape[1] ** 2
            row: dict[str, Any] = {"way": way, "t": t, "size": size, "queries": queries, "images": images, **found}
            checked = "not checked" if math.isnan(found["error"]) else f"{found['error']:.0e}"
            row |= {"error": None if math.isnan(found["error"]) else found["error"], "checked": checked}
            rows.append(row | {"nanoseconds": 1e9 * found["cpu_seconds"] / pairs})
            yield rows[-1] | {"times": rows[-1]["nanoseconds"] / rows[0]["nanoseconds"]}


def measure(way: str, file: str, count: int, queries: int, size: int, t: float) -> dict[str, float]:
    """Seconds of one way in this process, after a call on a few images, and the largest error of a pixel."""
    data = np.load(file)
    side = math.isqrt(data.shape[1])
    rng = np.random.default_rng(0)
    images = data.reshape(-1, side, side)
    x = (t * images[rng.integers(0, len(images), queries)] + (1 - t) * rng.standard_normal((queries, side, side))).astype(np.float32)
    call, images = CALLS[way](size, t), images[:count]
    call(images[:64], x)
    wall, cpu = time.perf_counter(), time.process_time()
    found = call(images, x)
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    error = _error(found, images, x, size, t) if count <= MOST_CHECKED else math.nan
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "error": error}


MOST_CHECKED = 2_000
"""Images up to which means are compared: float64 by differences takes a second for each hundred."""
Call = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Means `[B, H, W]` from images `[N, H, W]` and noisy ones `[B, H, W]`."""


def patches_of(images: Float[np.ndarray, "N H W"], size: int) -> Float[np.ndarray, "P K"]:
    """All patches of images, padded with zeros, one after the other."""
    half = size // 2
    padded = np.pad(images, ((0, 0), (half, half), (half, half)))
    return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))).reshape(-1, size**2)


def _ours(size: int, t: float) -> Call:
    def call(images: np.ndarray, x: np.ndarray) -> np.ndarray:
        whole = PatchSet.of(images.reshape(len(images), -1), (*images.shape[1:], 1), {-1: slice(0, len(images))})
        one = np.ones(len(x))
        return patch_means(whole, x[..., None], t * one, (1 - t) * one, np.full(len(x), -1), PatchSettings(size, True, False))[..., 0]

    return call


def _pytorch(keys_at_once: int, queries_at_once: int) -> Callable[[int, float], Call]:
    def prepare(size: int, t: float) -> Call:
        def call(images: np.ndarray, x: np.ndarray) -> np.ndarray:
            import torch

            rate, curvature = t / (1 - t) ** 2, t**2 / (2 * (1 - t) ** 2)
            asked, keys = (torch.from_numpy(patches_of(v, size)) for v in (rate * x, images))
            norms, centres = -curvature * (keys**2).sum(1), torch.from_numpy(images.reshape(-1, 1))
            means = []
            with torch.no_grad():
                for own in asked.split(queries_at_once):
                    top, total, mean = torch.full((len(own), 1), -torch.inf), torch.zeros(len(own), 1), torch.zeros(len(own), 1)
                    for start in range(0, len(keys), keys_at_once):
                        part = slice(start, start + keys_at_once)
                        scores = torch.addmm(norms[part], own, keys[part].T)
                        new = torch.maximum(top, scores.max(1, keepdim=True).values)
                        weights = scores.sub_(new).exp_()
                        total = torch.exp(top - new) * total + weights.sum(1, keepdim=True)
                        mean = torch.exp(top - new) * mean + weights @ centres[part]
                        top = new
                    means.append(mean / total)
            return torch.cat(means).numpy().reshape(x.shape)

        return call

    return prepare


def _keops(size: int, t: float) -> Call:
    def call(images: np.ndarray, x: np.ndarray) -> np.ndarray:
        from pykeops.numpy import LazyTensor

        keys, asked = LazyTensor(patches_of(t * images, size)[None]), LazyTensor(patches_of(x, size)[:, None])
        scores = ((asked - keys) ** 2).sum(-1) * (-0.5 / (1 - t) ** 2)
        return np.asarray(scores.sumsoftmaxweight(LazyTensor(images.reshape(1, -1, 1)), axis=1)).reshape(x.shape)

    return call


def _nearest(size: int, t: float) -> Call:
    def call(images: np.ndarray, x: np.ndarray) -> np.ndarray:
        from scipy.spatial import cKDTree

        tree = cKDTree(patches_of(images, size))
        away, index = tree.query(patches_of(x, size) / t, k=64, workers=len(os.sched_getaffinity(0)))
        scores = -((t * away) ** 2) / (2 * (1 - t) ** 2)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        means = (weights * images.reshape(-1)[index]).sum(axis=1) / weights.sum(axis=1)
        return means.reshape(x.shape)

    return call


CALLS: dict[str, Callable[[int, float], Call]] = dict(
    zip(WAYS, (_ours, _pytorch(2**20, 64), _pytorch(4096, 256), _keops, _nearest), strict=True)
)


def _error(found: np.ndarray, images: np.ndarray, x: np.ndarray, size: int, t: float) -> float:
    """Of `CHECKED` places, from differences in float64."""
    places = np.random.default_rng(1).choice(x.size, CHECKED, replace=False)
    asked = patches_of(x, size)[places].astype(np.float64)
    scores = [
        -np.sum((asked[:, None] - t * patches_of(some, size).astype(np.float64)) ** 2, axis=2) / (2 * (1 - t) ** 2)
        for some in np.array_split(images, max(1, len(images) // 8))
    ]
    whole = np.concatenate(scores, axis=1)
    weights = np.exp(whole - whole.max(axis=1, keepdims=True))
    means = weights @ images.reshape(-1).astype(np.float64) / weights.sum(axis=1)
    return float(np.abs(found.reshape(-1)[places] - means).max())


if __name__ == "__main__":
    print(json.dumps(measure(*json.loads(sys.argv[1]))))
