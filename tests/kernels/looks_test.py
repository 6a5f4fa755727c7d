"""Products of bytes with 16 bits: equal to those of integers, whatever the shapes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.posterior.cpu.bounds import SOME, TALL, WIDE, multiply, panels_of
from kernels.posterior.cpu.query_tables import Bits

sizes = st.integers(1, 3 * WIDE + 1)


@settings(max_examples=25)
@given(n=st.integers(1, 2 * SOME + TALL + 1), b=sizes, m=sizes, seed=st.integers(0, 100))
def test_equal_to_products_of_integers(n, b, m, seed):
    """Times each query's step."""
    rng = np.random.default_rng(seed)
    digits, bits = rng.integers(-128, 128, (n, m)).astype(np.int8), rng.integers(-32768, 32768, (b, m)).astype(np.int16)
    scores, step = np.full((n, b), np.nan, np.float32), rng.uniform(0.5, 2, b).astype(np.float32)
    multiply(scores, digits, panels_of(bits), step)
    wanted = step * (digits.astype(np.int64) @ bits.T.astype(np.int64)).astype(np.float32)
    np.testing.assert_allclose(scores, wanted, rtol=1e-6)


@pytest.mark.parametrize("m", [2, 784, 20_000])
def test_no_product_of_queries_with_samples_exceeds_32_bits(m):
    """Of samples and queries that point the same way, all of the largest numbers, the worst there are."""
    longest = 128 * m**0.5
    bits = Bits.of(np.ones((1, m)), np.ones(m), longest)
    assert 2**30 < 128 * bits.bits.astype(np.int64).sum() < 2**31 or bits.bits.max() == 2**15 - 1
    worst = np.full((1, m), -128, np.int8)
    scores = np.zeros((1, 1), np.float32)
    multiply(scores, worst, panels_of(bits.bits), np.ones(1, np.float32))
    np.testing.assert_allclose(scores, -128.0 * bits.bits.astype(np.float64).sum(), rtol=1e-6)
