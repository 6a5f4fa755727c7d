"""Data and queries that would catch a bound cheating, and the exact log weights."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from kernels.posterior.cpu.host_samples import HostSamples
from kernels.posterior.cpu.index import Index, build_index
from kernels.posterior.types import Queries, by_class, prepare

N, D = 500, 70


def attacks() -> dict[str, np.ndarray]:
    """Data that would catch a bound cheating."""
    rng = np.random.default_rng(0)
    gauss = rng.standard_normal((N, D))
    spectrum = gauss * np.geomspace(10, 0.01, D)
    heavy = spectrum.copy()
    heavy[: N // 2] = heavy[0] + 1e-4 * rng.standard_normal((N // 2, D))
    copies = spectrum.copy()
    copies[100:300] = copies[100]
    sphere = gauss / np.linalg.norm(gauss, axis=1, keepdims=True)
    return {
        "gaussians": gauss,
        "falling spectrum": spectrum,
        "near-duplicates": np.repeat(spectrum[: N // 2], 2, axis=0) + 1e-5 * gauss,
        "two hundred copies": copies,
        "a heavy cluster": heavy,
        "a sphere about the query": sphere,
        "one sample": spectrum[:1],
        "all alike": np.repeat(spectrum[:1], 40, axis=0),
        "in a plane": gauss[:, :2] @ gauss[:2],
        "far from the origin": spectrum + 1000,
        "two numbers": gauss[:, :2],
        "twenty thousand numbers": rng.standard_normal((60, 20_000)) * np.geomspace(10, 0.1, 20_000),
    }


DATA = {key: data.astype(np.float32) for key, data in attacks().items()}
keys = pytest.mark.parametrize("key", DATA)


def index_of(data: np.ndarray, labels: np.ndarray | None = None) -> Index:
    values = jnp.asarray(data)
    return build_index(HostSamples.of(prepare(values) if labels is None else by_class(values, jnp.asarray(labels))))


@functools.cache
def index(key: str) -> Index:
    return index_of(DATA[key])


def queries(data: np.ndarray, seed: int, count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """x float32 and t: noisy samples, midpoints, samples themselves, the mean, and points far off; t from near 0 to near 1."""
    rng = np.random.default_rng(seed)
    t = np.resize([0.02, 0.3, 0.6, 0.9, 0.99, 0.999], count)
    own, other = data[rng.integers(len(data), size=(2, count))].astype(np.float64)
    noise = rng.standard_normal(own.shape)
    kinds = [
        t[:, None] * own + (1 - t[:, None]) * noise,
        t[:, None] * (own + other) / 2,
        own,
        np.broadcast_to(data.mean(0, dtype=np.float64), own.shape),
        100 * noise,
    ]
    return np.stack([kinds[rng.integers(len(kinds))][i] for i in range(count)]).astype(np.float32), t.astype(np.float32)


def host(x: np.ndarray, t: np.ndarray) -> Queries:
    """Queries of rectified flow, for the CPU engine."""
    t = t.astype(np.float64)
    return Queries(x.astype(np.float32), t, 1 - t, np.full(len(x), -1), np.ones(len(x)), 1 / (1 - t))


def log_weights(own: Index, queries: Queries) -> np.ndarray:
    """-‖x - α y‖² / 2σ² in float64, from differences."""
    gaps = queries.x[:, None] - queries.alpha[:, None, None] * own.rows[None].astype(np.float64)
    return -np.sum(gaps**2, axis=2) / (2 * queries.sigma[:, None] ** 2)
