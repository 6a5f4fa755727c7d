"""The float32 pass over all samples: the same Partial whatever the blocks, and the heaviest samples as candidates."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.float64 import float64_scope
from kernels.posterior import BlockSizes, prepare
from kernels.posterior.partial import Partial
from kernels.posterior.types import CentredQueries, Queries
from kernels.posterior.xla import streaming as streaming_module
from kernels.posterior.xla.streaming import streaming
from tests.kernels.posterior.small_problem import ALPHA, DATA, SIGMA, N, X


@functools.partial(jax.jit, static_argnames=("samples_at_once", "shift", "dtype"))
def partial_of(x: Any, alpha: Any, sigma: Any, data: Any, samples_at_once: int, shift: bool, dtype: Any) -> Partial:
    samples = prepare(data, shift=shift)
    with float64_scope():
        queries = CentredQueries.of(Queries(x, alpha, sigma, jnp.full(x.shape[0], -1, jnp.int32)), samples)
        found = streaming(queries, samples, full=True, dtype=dtype, blocks=BlockSizes(samples=samples_at_once), precision="highest")
        return jax.tree.map(lambda v: v if v.dtype == jnp.int32 else v.astype(jnp.float32), found)


@pytest.mark.parametrize(("samples_at_once", "shift"), [(1, False), (10, True), (52, False), (53, False), (4096, True)])
def test_blocks_of_any_size_give_the_same_partial(samples_at_once, shift):
    """One row at a time, a last block of one or three rows, all at once, larger than the data: the definition each time."""
    sigma = np.maximum(SIGMA, 0.2)
    found = partial_of(X, ALPHA, sigma, DATA, samples_at_once, shift, jnp.float32)
    center = DATA.mean(0, dtype=np.float64).astype(np.float32)
    rows = DATA.astype(np.float64) - center
    score = -np.square(X[:, None].astype(np.float64) - ALPHA[:, None, None] * DATA).sum(-1) / (2 * sigma[:, None].astype(np.float64) ** 2)
    order = np.argsort(-score, axis=1, kind="stable")
    np.testing.assert_array_equal(found.top_index, order[:, :16])
    others = np.take_along_axis(score, order, axis=1)[:, 16] + np.square(X - ALPHA[:, None] * center).sum(1) / (2 * sigma**2)
    assert (np.asarray(found.rest_peak) >= others - 1e-4).all()  # a bound on the samples that are not candidates
    w = np.exp(score - score.max(1, keepdims=True))
    mean = w @ rows / w.sum(1)[:, None]
    np.testing.assert_allclose(found.weight, w.sum(1), rtol=2e-5)
    np.testing.assert_allclose(found.mean, mean, atol=2e-5)
    np.testing.assert_allclose(found.second, (w * np.square(rows - mean[:, None]).sum(-1)).sum(1), rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(found.weight_square, (w * w).sum(1), rtol=2e-5)
    np.testing.assert_allclose(found.weighted_score, (w * np.log(np.maximum(w, 1e-300))).sum(1), rtol=1e-4, atol=2e-5)
    np.testing.assert_array_equal(found.mass, N)


@given(st.integers(0, 2**31 - 1), st.integers(1, 5), st.sampled_from([100, 2048, 2049, 4096]), st.sampled_from([1, 3, 16]))
def test_candidates_are_the_largest_and_equal_ones_the_first(seed: int, distinct: int, n: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 10**distinct, (3, n)).astype(np.float32)
    x[0, rng.integers(n)] = -np.inf
    values, positions = streaming_module._largest(jnp.asarray(x), k)
    order = np.argsort(-x, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(positions, order)
    np.testing.assert_array_equal(values, np.take_along_axis(x, order, axis=1))
