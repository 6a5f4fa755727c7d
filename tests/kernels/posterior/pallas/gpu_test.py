"""The Triton kernels keep streaming's contract: equal in interpret mode, for any sizes, and they lower for CUDA with no GPU at hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh

from kernels.float64 import float64_scope
from kernels.posterior import BlockSizes, posterior, prepare
from kernels.posterior.pallas.gpu import pallas_gpu
from kernels.posterior.partial import Partial
from kernels.posterior.types import CentredQueries, Queries
from kernels.posterior.xla.streaming import streaming


def ask(implementation, data, labels=None, counts=None, *, b, full=True, block=96, precision="highest") -> Partial:
    """A Partial of `b` queries at mixed noise levels."""
    rng = np.random.default_rng(0)
    samples = prepare(jnp.asarray(data), labels, counts)
    t = np.linspace(0.05, 0.9, b).astype(np.float32)
    y = np.asarray(data, np.float32)[rng.integers(len(data), size=b)]
    x = (t[:, None] * y + (1 - t[:, None]) * rng.standard_normal(y.shape)).astype(np.float32)
    label = jnp.arange(b, dtype=jnp.int32) % 4 - 1

    @jax.jit
    def program(x, t, label, samples):
        with float64_scope():
            queries = CentredQueries.of(Queries(x, t, 1 - t, label), samples)
            return implementation(queries, samples, full=full, dtype=jnp.float32, blocks=BlockSizes(samples=block), precision=precision)

    return program(x, t, label, samples)


interpreted = functools.partial(pallas_gpu, interpret=True)


def normal(n: int, d: int, dtype: str = "float32", far: float = 0.0) -> np.ndarray:
    values = np.random.default_rng(1).standard_normal((n, d)) + far
    return (values * 40 + 128).clip(0, 255).astype(np.uint8) if dtype == "uint8" else values.astype(jnp.dtype(dtype))


@pytest.mark.parametrize(
    ("n", "d", "b", "dtype", "far", "full"),
    [
        (250, 70, 5, "float32", 0.0, True),
        pytest.param(130, 33, 70, "float32", 100.0, True, marks=pytest.mark.slow),
        (1, 1, 1, "bfloat16", 0.0, False),
        pytest.param(100, 48, 3, "uint8", 3.2, True, marks=pytest.mark.slow),
    ],
)
def test_equals_streaming(n, d, b, dtype, far, full):
    """Sizes that no tile divides, N = 1, data far from the origin, every dtype; with classes and counts."""
    data = normal(n, d, dtype, 0.0 if dtype == "uint8" else far)
    labels, counts = jnp.arange(n, dtype=jnp.int32) % 3, jnp.arange(1, n + 1, dtype=jnp.float32)
    got, wanted = (ask(f, data, labels, counts, b=b, full=full) for f in (interpreted, streaming))
    reach = float(np.abs(np.asarray(data, np.float32) - np.asarray(data, np.float32).mean(0)).max()) * d**0.5
    for name in ("peak", "weight", "mean", "top_score", "rest_peak", "second", "weight_square", "weighted_score", "mass"):
        a, c = getattr(got, name), getattr(wanted, name)
        if c is None:
            assert a is None
            continue
        # A score is a sum of d products: both err by about eps √d of its size, and the moments of the weights follow.
        rounding = 2.0**-23 * (n + d) ** 0.5 * float(np.abs(np.nan_to_num(wanted.top_score, neginf=0)).max() + 1)
        scale = {"mean": reach, "second": reach**2}.get(name, 1.0)
        np.testing.assert_allclose(a, c, rtol=4 * rounding, atol=4 * rounding * scale, err_msg=name)
    np.testing.assert_array_equal(got.top_index[:, 0], wanted.top_index[:, 0])


def test_float64_is_refused():
    samples = prepare(jnp.ones((3, 2)))
    with float64_scope():
        queries = CentredQueries.of(Queries(jnp.ones((1, 2)), jnp.ones(1), jnp.ones(1), jnp.zeros(1, jnp.int32)), samples)
        with pytest.raises(NotImplementedError, match="float32, got float64"):
            pallas_gpu(queries, samples, full=True, dtype=jnp.float64, blocks=BlockSizes(), precision="highest")


DTYPES, PRECISIONS = ("float32", "bfloat16", "uint8"), ("highest", "high", "default")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "precision"),
    [
        pytest.param(dtype, precision, marks=[] if i == k else pytest.mark.long)
        for i, dtype in enumerate(DTYPES)
        for k, precision in enumerate(PRECISIONS)
    ],
)
def test_lowers_for_cuda(precision, dtype):
    """Through Triton, without a GPU: two kernels, and neither has lost its name."""

    def program(x, t, label, samples):
        with float64_scope():
            queries = CentredQueries.of(Queries(x, t, 1 - t, label), samples)
            return pallas_gpu(queries, samples, full=True, dtype=jnp.float32, blocks=BlockSizes(), precision=precision)

    samples = prepare(jnp.asarray(normal(5000, 784, dtype)))
    x, t, label = jnp.ones((100, 784)), jnp.full(100, 0.5), jnp.zeros(100, jnp.int32)
    gpu = AbstractDevice("NVIDIA H100", None, "cuda")  # which jax 0.12 wants to be told
    with jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=gpu)):
        text = jax.jit(program).trace(x, t, label, samples).lower(lowering_platforms=("cuda",)).as_text()
    assert "products_kernel" in text
    assert "sums_kernel" in text


def test_by_name_on_a_cpu_it_says_why_not():
    with pytest.raises(NotImplementedError, match=r"'pallas_gpu' does not run on cpu: .*Triton"):
        posterior(np.ones((1, 2)), 0.5, 0.5, np.ones((3, 2)), implementation="pallas_gpu")
