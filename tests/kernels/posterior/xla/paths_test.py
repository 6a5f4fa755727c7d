"""Whole paths by two products, compiled: XLA's pass and the TPU's kernel (interpreted) against float64."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.float64 import float64_scope
from kernels.posterior.api import run_paths
from kernels.posterior.pallas.tpu_blocks import GENERATIONS
from kernels.posterior.pallas.tpu_paths import path_pass_tpu
from kernels.posterior.settings import BlockSizes, PosteriorSettings
from kernels.posterior.types import Samples, by_class, prepare
from kernels.posterior.xla.paths import PathMoments, PathRows, path_moments64
from tests import float64_oracle as exact

N, D, B = 700, 200, 21
RNG = np.random.default_rng(0)
IMAGES = (RNG.integers(0, 256, (N, D)) / 127.5 - 1).astype(np.float32)
NEAR = (np.repeat(IMAGES[: N // 2], 2, axis=0) + 1e-5 * RNG.standard_normal((N, D))).astype(np.float32)
DATA = {"images": IMAGES, "near-copies": NEAR, "far from the origin": IMAGES + 100, "bytes": RNG.integers(0, 3, (N, D)).astype(np.uint8)}
LABELS, COUNTS = RNG.integers(0, 3, N).astype(np.int32), RNG.integers(1, 4, N)
X_0 = RNG.standard_normal((B, D)).astype(np.float32)
LABEL = np.resize([-1, 0, 1], B).astype(np.int32)
T = np.float64([0.001, 0.05, 0.2, 0.35, 0.5, 0.7, 0.95, 0.999])
HOW = PosteriorSettings(True, BlockSizes(samples=256, queries=64), "highest", "streaming")


def found(samples: Samples, x_1: np.ndarray, label: np.ndarray, once=None) -> PathMoments:
    with float64_scope():
        rows = PathRows(jnp.asarray(X_0), jnp.asarray(x_1), jnp.asarray(label), jnp.asarray(np.tile(T / (1 - T), (B, 1))))
        program = jax.jit(lambda rows, samples: path_moments64(rows, samples, HOW, once=once))
        return jax.tree.map(np.asarray, program(rows, samples))


def agrees(out: PathMoments, rows: np.ndarray, x_1: np.ndarray, mine: np.ndarray) -> None:
    for k, t in enumerate(T):
        x = t * x_1[mine].astype(np.float64) + (1 - t) * X_0[mine]
        want = exact.oracle(rows, x, np.full(mine.sum(), t))
        yes = out.answered[mine, k]
        np.testing.assert_allclose(out.top1_weight[mine, k][yes], want.top1_weight[yes], rtol=1e-4)
        np.testing.assert_allclose(out.entropy[mine, k][yes], want.entropy[yes], atol=1e-4)
        np.testing.assert_allclose(out.effective_samples[mine, k][yes], want.effective_samples[yes], rtol=2e-4)
        density = out.log_weight[mine, k] - D / 2 * np.log(2 * np.pi * (1 - t) ** 2)
        np.testing.assert_allclose(density[yes], want.log_density[yes], rtol=1e-4)
        clear = yes & (want.top1_weight > want.runner_up * (1 + 1e-3))
        np.testing.assert_array_equal(out.top1_index[mine, k][clear], want.top1_index[clear])


@pytest.mark.slow
@pytest.mark.parametrize("kind", DATA)
def test_paths_are_exact_and_all_are_answered(kind: str) -> None:
    """By XLA in float32, and again in float64 where that could show."""
    data = DATA[kind]
    x_1 = data[:B].astype(np.float32)
    out = found(prepare(jnp.asarray(data)), x_1, np.full(B, -1, np.int32))
    assert out.answered.all()
    agrees(out, data, x_1, np.ones(B, bool))


def test_classes_and_counts() -> None:
    """From the definition: weights in proportion to the counts, of the path's class."""
    samples = by_class(jnp.asarray(IMAGES), jnp.asarray(LABELS), jnp.asarray(COUNTS, jnp.float32))
    out = found(samples, IMAGES[:B], LABEL)
    assert out.answered.all()
    for b in range(B):
        for k, t in enumerate(T):
            off = t * (IMAGES[b].astype(np.float64) - IMAGES) + (1 - t) * X_0[b]
            prior = np.where((LABEL[b] == LABELS) | (LABEL[b] < 0), COUNTS, 0)
            with np.errstate(divide="ignore"):
                logs = np.log(prior) - np.sum(off**2, axis=1) / (2 * (1 - t) ** 2)
            weight = np.exp(logs - logs.max())
            gamma = weight / weight.sum()
            np.testing.assert_allclose(out.top1_weight[b, k], gamma.max(), rtol=1e-4)
            assert out.top1_index[b, k] == gamma.argmax()
            np.testing.assert_allclose(out.entropy[b, k], -np.sum(gamma[gamma > 0] * np.log(gamma[gamma > 0])), atol=1e-4)
            np.testing.assert_allclose(out.log_weight[b, k], logs.max() + np.log(weight.sum()) - np.log(prior.sum()), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["images", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("bytes", "far from the origin"))])
def test_the_kernel_for_tpus(kind: str) -> None:
    """Interpreted: what it answers is exact; late in time float32 no longer holds the log-density, and it leaves points to others."""
    data = DATA[kind]
    x_1 = data[:B].astype(np.float32)
    once = functools.partial(path_pass_tpu, generation=GENERATIONS["v5e"], interpret=True)
    out = found(prepare(jnp.asarray(data)), x_1, np.full(B, -1, np.int32), once)
    assert out.answered[:, :2].all() or kind == "far from the origin"
    agrees(out, data, x_1, np.ones(B, bool))


@pytest.mark.long
def test_the_kernel_knows_classes_and_counts() -> None:
    samples = by_class(jnp.asarray(IMAGES), jnp.asarray(LABELS), jnp.asarray(COUNTS, jnp.float32))
    once = functools.partial(path_pass_tpu, generation=GENERATIONS["v5e"], interpret=True)
    out, want = found(samples, IMAGES[:B], LABEL, once), found(samples, IMAGES[:B], LABEL)
    assert out.answered.mean() > 0.5
    for name in ("log_weight", "top1_weight", "entropy"):
        np.testing.assert_allclose(getattr(out, name)[out.answered], getattr(want, name)[out.answered], rtol=1e-4, atol=1e-4)


def test_an_oracle_on_a_tpu_takes_the_kernel() -> None:
    """By tracing alone: there is no TPU here."""
    how = dataclasses.replace(HOW, implementation="pallas_tpu", generation=GENERATIONS["v5e"])
    samples = prepare(jnp.asarray(IMAGES))
    with float64_scope():
        ratio = jnp.asarray(np.tile(T / (1 - T), (B, 1)))
        rows = PathRows(jnp.asarray(X_0), jnp.asarray(IMAGES[:B]), jnp.full(B, -1, jnp.int32), ratio)
        assert "path_pass" in str(jax.make_jaxpr(lambda rows, samples: run_paths(rows, samples, how))(rows, samples))
        assert "path_pass" not in str(jax.make_jaxpr(lambda rows, samples: run_paths(rows, samples, HOW))(rows, samples))
