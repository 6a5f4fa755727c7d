"""Implementations for GPUs beside PyTorch's dense softmax, on one GPU: milliseconds, and the error of the velocity."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels.benchmark.competitors import reference_velocity, velocity_program
from kernels.benchmark.runner import FASHION_MNIST, load, queries, synthetic
from kernels.posterior.api import IMPLEMENTATIONS, plan
from kernels.posterior.types import prepare

TABLE = {
    "samples": "{n:,} x {d:,} {dtype}",
    "queries": "{queries}",
    "t": "{t}",
    "way": "{way}",
    "ms": "{ms:.2f}",
    "x PyTorch, TF32 off": "{ratio:.2f}",
    "error": "{velocity_error:.0e}",
}
"""Columns of the table in documents, by header: the format of each."""
PYTORCH = {"PyTorch, TF32 off": False, "PyTorch, TF32 on": True}
PRECISIONS = ("highest", "high")
"""Of the matmuls: three TF32 products for one in "high"."""
CALLS, CHECKED = 10, 8
"""Timed calls, after one that compiles; queries whose velocity is compared with float64."""


@dataclasses.dataclass(frozen=True)
class Size:
    """One data set of the table."""

    n: int
    d: int
    dtype: str
    queries: int
    times: tuple[float, ...]
    data: str = "synthetic"


SIZES = (
    Size(60_000, 784, "float32", 128, (0.1, 0.9), "fashion_mnist" if FASHION_MNIST.exists() else "synthetic"),
    Size(1_300, 4096, "float32", 128, (0.05, 0.9)),
    Size(1_281_167, 4096, "bfloat16", 128, (0.1, 0.9)),
)
SMALL = (Size(500, 32, "float32", 8, (0.1, 0.9)), Size(500, 32, "bfloat16", 8, (0.5,)))
"""Sizes that take seconds on a CPU."""


def compare(sizes: tuple[Size, ...], say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """A row for each size, time and way. What a device cannot run is left out with a note."""
    for size in sizes:
        data = jnp.asarray(load(size.data, size.n, size.d) if size.data != "synthetic" else synthetic(size.n, size.d)).astype(size.dtype)
        host = np.asarray(data[: 1 << 16].astype(jnp.float32))
        ways = {**_ours(data, say), **_pytorch(data, say)}
        for t in size.times:
            x, _ = queries(host, t, size.queries)
            true = reference_velocity(np.asarray(data.astype(jnp.float32)), x[:CHECKED], t)
            rows = []
            for name, way in ways.items():
                velocity, milliseconds = way(x, t)
                off = np.linalg.norm(velocity[:CHECKED] - true, axis=1) / np.linalg.norm(true, axis=1)
                rows.append(
                    {
                        **dataclasses.asdict(size),
                        "t": t,
                        "way": name,
                        "ms": milliseconds,
                        "velocity_error": float(off.max()),
                        "device": jax.devices()[0].device_kind,
                    }
                )
            base = next((row["ms"] for row in rows if row["way"] == "PyTorch, TF32 off"), np.nan)
            yield from (row | {"ratio": base / row["ms"]} for row in rows)


Way = Callable[[np.ndarray, float], tuple[np.ndarray, float]]
"""Velocity and median milliseconds at x `[B, D]` and t."""


def _ours(data: jax.Array, say: Callable[[str], None]) -> dict[str, Way]:
    samples, ways = prepare(data), dict[str, Way]()
    for name in ("streaming", "pallas_gpu"):
        if jax.default_backend() not in IMPLEMENTATIONS[name].platforms:
            say(f"{name} is left out: it does not run on {jax.default_backend()}")
            continue
        for precision in PRECISIONS:
            how = plan("all", name, None, precision, limit=False)

            def way(x: np.ndarray, t: float, how: Any = how) -> tuple[np.ndarray, float]:
                placed, time_ = jnp.asarray(x), jnp.float32(t)
                return _timed(lambda: velocity_program(placed, time_, samples, how)[0].block_until_ready())

            ways[f"{name}, {precision}"] = way
    return ways


def _pytorch(data: jax.Array, say: Callable[[str], None]) -> dict[str, Way]:
    try:
        import torch
    except ImportError as error:
        say(f"PyTorch is left out: {error}")
        return {}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and jax.default_backend() == "gpu":
        say("PyTorch runs on the CPU: its build sees no GPU")
    y = torch.from_numpy(np.array(data.astype(jnp.float32))).to(device).to(torch.bfloat16 if data.dtype == jnp.bfloat16 else torch.float32)
    norms = torch.cat([(part.float() ** 2).sum(1) for part in y.split(2**16)])

    def dense(x: np.ndarray, t: float, tf32: bool) -> tuple[np.ndarray, float]:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        placed, rate = torch.from_numpy(x).to(device), t / (1 - t) ** 2

        def call() -> Any:
            with torch.no_grad():
                scores = torch.addmm(-rate * t / 2 * norms.to(y.dtype), (rate * placed).to(y.dtype), y.T)
                velocity = ((torch.softmax(scores, 1) @ y).float() - placed) / (1 - t)
                if device == "cuda":
                    torch.cuda.synchronize()
                return velocity.cpu().numpy()

        return _timed(call)

    return {name: lambda x, t, tf32=tf32: dense(x, t, tf32) for name, tf32 in PYTORCH.items()}  # type: ignore[misc]


def _timed(call: Callable[[], Any]) -> tuple[np.ndarray, float]:
    velocity, seconds = np.asarray(call()), []
    for _ in range(CALLS):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return velocity, 1e3 * float(np.median(seconds))
