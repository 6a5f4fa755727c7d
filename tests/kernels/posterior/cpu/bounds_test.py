"""Bounds on scores: no sample weighs more than its bound, and products of bytes are those of integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.posterior.cpu.bounds import COARSE, COLUMNS, HALF, LEAF, MORE, NORMS, SOME, TALL, WIDE, bounds_of_leaves, multiply, panels_of
from kernels.posterior.cpu.index import Index
from kernels.posterior.cpu.query_tables import Bits, QueryTables
from tests.kernels.posterior.cpu.adversaries import DATA, host, index, keys, log_weights, queries

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
    bits = Bits.room(1, m)
    bits.fill(slice(0, 1), np.ones((1, m)), np.ones(m), longest)
    assert 2**30 < 128 * bits.bits.astype(np.int64).sum() < 2**31 or bits.bits.max() == 2**15 - 1
    worst = np.full((1, m), -128, np.int8)
    scores = np.zeros((1, 1), np.float32)
    multiply(scores, worst, panels_of(bits.bits), np.ones(1, np.float32))
    np.testing.assert_allclose(scores, -128.0 * bits.bits.astype(np.float64).sum(), rtol=1e-6)


def bounds(way: str, own: Index, query_tables: QueryTables) -> np.ndarray:
    """At least the score of each sample for each query, `[B, places]`; as the code has it, of columns by its formula."""
    table, places = own.table, len(own.row)
    if way == "leaves":
        of_leaves = np.empty((places // LEAF, len(query_tables.g)), np.float32)
        bounds_of_leaves(0, len(of_leaves), table, query_tables, of_leaves)
        return np.repeat(of_leaves.T, LEAF, axis=1) + query_tables.slack[:, None]
    if way == "products":
        scores = np.empty((places, len(query_tables.g)), np.float32)
        multiply(scores, table.whole.digits, panels_of(query_tables.whole.bits), query_tables.whole.step.astype(np.float32))
        return (
            scores.T
            + (query_tables.offset + query_tables.slack_of_products + query_tables.widest(own))[:, None]
            - np.outer(query_tables.kappa, table.norms)
        )
    group, last = {"first": (0, MORE), "half": (1, MORE + HALF - COARSE), "all": (2, COLUMNS)}[way]
    used = [*range(NORMS), *range(NORMS + group, MORE), *range(MORE, last)]
    columns = table.columns.transpose(1, 0, 2).reshape(COLUMNS, places)
    return query_tables.columns[:, used] @ columns[used] + query_tables.slack[:, None]


@keys
@pytest.mark.parametrize("way", ["leaves", "first", "half", "all", "products"])
@settings(max_examples=3)
@given(seed=st.integers(0, 1000))
def test_no_sample_weighs_more_than_its_bound(key, way, seed):
    own, tile = index(key), host(*queries(DATA[key], seed))
    truth, query_tables = log_weights(own, tile), QueryTables.at(own, tile.x, tile.alpha, tile.sigma)
    there = own.row >= 0
    found = bounds(way, own, query_tables)[:, there] + query_tables.constant[:, None]
    rounding = 1e-9 * (1 + np.abs(truth).max(axis=1)) + 1e-6 * np.abs(query_tables.constant)
    assert (found >= truth[:, own.row[there]] - rounding[:, None]).all()
