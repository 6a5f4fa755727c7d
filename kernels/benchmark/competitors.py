"""The competitors of `kernels.bench`: every implementation here, and the same velocity by other libraries, called as a user calls them.

An entry is `name -> prepare`, and `prepare(data)` returns `call(x, t) -> velocity`: float32, `[B, D]`, rectified flow. A library that is
not installed, or fails on this machine, is left out with a note.
"""

import os
import tempfile
import weakref
from collections.abc import Callable
from functools import partial as bind
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kernels.float64 import float64_scope, to32, to64
from kernels.posterior.api import IMPLEMENTATIONS, plan, posterior64
from kernels.posterior.cpu.dispatch import CpuEngine, by_host
from kernels.posterior.cpu.tuning import TUNING
from kernels.posterior.out_of_core.engine import posterior_out_of_core
from kernels.posterior.out_of_core.source import prepare_chunks
from kernels.posterior.settings import PosteriorSettings
from kernels.posterior.types import Queries, Samples, prepare

Call = Callable[[np.ndarray, float], np.ndarray]
Prepare = Callable[[np.ndarray], Call]
DEFAULT = "default"
KEOPS_LONGEST = 128


def ours() -> dict[str, Prepare]:
    """Every implementation that runs on this platform, with all moments, and the default."""
    here = [name for name, one in IMPLEMENTATIONS.items() if jax.default_backend() in one.platforms]
    dense = {name: bind(_dense, name) for name in here if name != "pruned"}
    return {
        DEFAULT: bind(_on_host, False),
        **dense,
        **{name: bind(_on_host, True) for name in here if name == "pruned"},
        "from disk": from_disk,
    }


def _dense(implementation: str | None, data: np.ndarray) -> Call:
    samples, how = prepare(jnp.asarray(data)), plan("all", implementation, None, "highest", limit=False)
    return lambda x, t: np.asarray(velocity_program(jnp.asarray(x), jnp.float32(t), samples, how)[0])


def _on_host(always: bool, data: np.ndarray) -> Call:
    """The path of an `Oracle` without an implementation (or "pruned"); the index is made beforehand."""
    samples, how, engine = prepare(jnp.asarray(data)), plan("all", None, None, "highest", limit=False), CpuEngine(always=always)
    if not engine.possible(how):
        return _dense(None, data)
    if always or TUNING.worth_an_index(*samples.values.shape):
        engine.prepare(samples)

    def call(x: np.ndarray, t: float) -> np.ndarray:
        def dense(rows: np.ndarray) -> Array:
            return velocity_program(jnp.asarray(x[rows]), jnp.float32(t), samples, how)[0]

        ones = np.ones(len(x))
        time = float(np.float32(t))
        queries = Queries(x, time * ones, (1 - time) * ones, np.full(len(x), -1), ones, ones / (1 - time))
        velocity = by_host(engine, samples, queries, how, lambda moments: moments.velocity, dense)
        return np.asarray(dense(np.arange(len(x))) if velocity is None else velocity)

    return call


@bind(jax.jit, static_argnames="how")
def velocity_program(x: Float[Array, "B D"], t: Float[Array, ""], samples: Samples, how: PosteriorSettings) -> tuple[Array, list[Array]]:
    """The velocity as `flowjax.oracle` computes it, with all other moments."""
    with float64_scope():
        time = jnp.full(x.shape[0], to64(t))
        label = jnp.full(x.shape[0], -1, jnp.int32)
        moments = posterior64(Queries(x, time, 1 - time, label, jnp.ones_like(time)), samples, how)
        return to32((moments.denoised - to64(x)) / (1 - time)[:, None]), [to32(v) for v in jax.tree.leaves(moments)]


def from_disk(data: np.ndarray) -> Call:
    """The data in a file that each call reads chunk by chunk, budget 1 GiB. The system caches the file while there is room."""
    source = _File(data)
    chunks, how = prepare_chunks(source, None, budget=2**30), plan("all", "streaming", None, "highest", limit=False)

    def call(x: np.ndarray, t: float) -> np.ndarray:
        with float64_scope():
            time = jnp.full(len(x), t, jnp.float64)
            queries = Queries(jnp.asarray(x), time, 1 - time, jnp.full(len(x), -1, jnp.int32), jnp.ones_like(time))
            moments = posterior_out_of_core(queries, chunks, how)
            return np.asarray((moments.denoised - x.astype(np.float64)) / (1 - t), np.float32)

    return call


class _File:
    """A temporary file of rows."""

    def __init__(self, data: np.ndarray):
        self.shape, self.dtype = data.shape, data.dtype
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # it is closed with this object
        weakref.finalize(self, self._file.close)
        data.tofile(self._file)

    def read(self, index: np.ndarray, out: np.ndarray) -> None:
        size, ends = self.shape[1] * self.dtype.itemsize, [*np.flatnonzero(np.diff(index) != 1) + 1, len(index)]
        for start, stop in zip([0, *ends[:-1]], ends, strict=True):
            os.preadv(self._file.fileno(), [out[start:stop].view(np.uint8).reshape(-1).data], int(index[start]) * size)


def numpy_dense(data: np.ndarray) -> Call:
    """Scores, softmax and weighted sum in plain NumPy; the norms are computed beforehand."""
    norms = np.sum(data**2, axis=1)

    def call(x: np.ndarray, t: float) -> np.ndarray:
        rate, curvature = _rates(t)
        scores = (rate * x) @ data.T
        scores -= curvature * norms
        scores -= scores.max(axis=1, keepdims=True)
        weights = np.exp(scores, out=scores)
        return _velocity_of((weights @ data) / weights.sum(axis=1, keepdims=True), x, t)

    return call


def torch_dense(data: np.ndarray) -> Call:
    """`torch.softmax` of one `addmm`, times the data."""
    import torch

    y = torch.from_numpy(data)
    norms = (y**2).sum(1)

    def call(x: np.ndarray, t: float) -> np.ndarray:
        rate, curvature = _rates(t)
        with torch.no_grad():
            scores = torch.addmm(-curvature * norms, rate * torch.from_numpy(x), y.T)
            return _velocity_of((torch.softmax(scores, 1) @ y).numpy(), x, t)

    return call


def torch_attention(data: np.ndarray) -> Call:
    """`scaled_dot_product_attention`: the data are keys and values, the norms a float mask."""
    import torch

    y = torch.from_numpy(data)[None, None]
    norms = (y**2).sum(-1)[:, :, None]

    def call(x: np.ndarray, t: float) -> np.ndarray:
        rate, curvature = _rates(t)
        with torch.no_grad():
            q = rate * torch.from_numpy(x)[None, None]
            mask = (-curvature * norms).expand(1, 1, len(x), -1)
            mean = torch.nn.functional.scaled_dot_product_attention(q, y, y, attn_mask=mask, scale=1.0)
            return _velocity_of(mean[0, 0].numpy(), x, t)

    return call


def tokamax_chunked(data: np.ndarray) -> Call:
    """Tokamax' attention in chunks, XLA; the norms are a bias."""
    import tokamax

    y = jnp.asarray(data)[None, :, None]
    norms = jnp.sum(y**2, axis=-1).reshape(1, 1, 1, -1)

    @jax.jit
    def attention(q: Array, y: Array, bias: Array) -> Array:
        return tokamax.dot_product_attention(q, y, y, bias=bias, scale=1.0, implementation="xla_chunked", precision="highest")

    def call(x: np.ndarray, t: float) -> np.ndarray:
        rate, curvature = _rates(t)
        return _velocity_of(np.asarray(attention(rate * jnp.asarray(x)[None, :, None], y, -curvature * norms))[0, :, 0], x, t)

    return call


def keops(data: np.ndarray) -> Call:
    """KeOps' softmax reduction over lazy squared distances."""
    if data.shape[1] > KEOPS_LONGEST:
        raise NotImplementedError(f"it unrolls D, and compiles for minutes where D = {data.shape[1]}; compared up to {KEOPS_LONGEST}")
    from pykeops.numpy import LazyTensor

    y = LazyTensor(data[None])

    def call(x: np.ndarray, t: float) -> np.ndarray:
        square = ((LazyTensor(x[:, None]) - y * t) ** 2).sum(-1)
        return _velocity_of((square * (-0.5 / (1 - t) ** 2)).sumsoftmaxweight(y, axis=1), x, t)

    return call


COMPETITORS: dict[str, Prepare] = {
    "NumPy": numpy_dense,
    "PyTorch dense": torch_dense,
    "PyTorch attention": torch_attention,
    "tokamax chunked": tokamax_chunked,
    "KeOps": keops,
}
PYTORCH = ("PyTorch dense", "PyTorch attention")


def sgemms(data: np.ndarray, x: np.ndarray) -> dict[str, Callable[[], Any]]:
    """The two matmuls of a pass and nothing else, in NumPy and PyTorch."""
    weights = np.full((len(x), len(data)), 1 / len(data), np.float32)
    of_numpy: dict[str, Callable[[], Any]] = {"NumPy": lambda: (x @ data.T, weights @ data)}
    try:
        import torch
    except ImportError:
        return of_numpy
    y, q, w = torch.from_numpy(data), torch.from_numpy(x), torch.from_numpy(weights)
    return of_numpy | {"PyTorch": lambda: (q @ y.T, w @ y)}


def reference_velocity(data: np.ndarray, x: np.ndarray, t: float) -> Float[np.ndarray, "B D"]:
    """The velocity in float64, from the same float32 numbers, by blocks of samples."""
    t = float(np.float32(t))
    rate, curvature = _rates(t)
    center = data[: 2**12].mean(axis=0, dtype=np.float64)
    q = x.astype(np.float64) - t * center
    step = max(1, 2**24 // data.shape[1])
    blocks = [slice(start, start + step) for start in range(0, len(data), step)]
    moved = (data[block].astype(np.float64) - center for block in blocks)
    scores = np.concatenate([rate * q @ y.T - curvature * np.sum(y**2, axis=1) for y in moved], axis=1)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    mean = sum(weights[:, block] @ (data[block].astype(np.float64) - center) for block in blocks) / weights.sum(axis=1, keepdims=True)
    return (mean + center - x) / (1 - t)


def _rates(t: float) -> tuple[float, float]:
    """α/σ² and α²/2σ² of rectified flow."""
    return t / (1 - t) ** 2, t**2 / (2 * (1 - t) ** 2)


def _velocity_of(mean: np.ndarray, x: np.ndarray, t: float) -> np.ndarray:
    return (mean - x) / np.float32(1 - t)
