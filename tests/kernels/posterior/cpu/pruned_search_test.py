"""The pruned search: what it leaves out stays within `error_bound`, and its answers are those of the dense pass."""

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from flowjax.oracle import Oracle
from kernels.posterior import posterior
from kernels.posterior.cpu.index import Index
from kernels.posterior.cpu.pruned_search import PrunedSearch, pruned_posterior
from kernels.posterior.cpu.query_tables import QueryTables
from kernels.posterior.cpu.results import HostMoments
from kernels.posterior.types import Queries
from tests import float64_oracle as exact
from tests.kernels.posterior.cpu.adversaries import DATA, D, N, host, index, index_of, keys, log_weights, queries


def pruned(own: Index, queries: Queries, tolerance: float = 0.0, by_products: bool = False) -> HostMoments:
    found = HostMoments.none(*queries.x.shape)
    pruned_posterior(own, queries, np.arange(len(queries.x)), found, tolerance=tolerance, by_products=by_products)
    return found


@keys
@pytest.mark.parametrize("by_products", [False, True])
@settings(max_examples=3)
@given(seed=st.integers(0, 1000))
def test_survivors_are_all_samples_within_the_cut_of_the_heaviest_weight(key, by_products, seed):
    own, tile = index(key), host(*queries(DATA[key], seed))
    truth, query_tables = log_weights(own, tile), QueryTables.at(own, tile.x, tile.alpha, tile.sigma)
    rounding = 1e-9 * (1 + np.abs(truth).max(axis=1))
    pivots, cut, pairs = PrunedSearch(own, slice(0, own.n), tile, 0.0).survivors(by_products, np.full(len(tile.x), np.inf))
    assert (np.abs(truth[np.arange(len(truth)), pivots.row] - pivots.log_weight) <= rounding).all()
    survives = np.zeros(truth.shape, bool)
    survives[pairs.queries, pairs.rows] = True
    assert (survives | (truth <= (pivots.log_weight - cut + rounding)[:, None])).all()
    off = np.abs(pairs.values + query_tables.constant[pairs.queries] - truth[pairs.queries, pairs.rows])
    assert (off <= pairs.widths + rounding[pairs.queries]).all()


def test_queries_far_from_all_samples():
    """No score of theirs comes near what noise of the path would leave."""
    own = index("falling spectrum")
    x = 100 * np.random.default_rng(0).standard_normal((6, D)).astype(np.float32)
    t = np.resize([0.5, 0.9, 0.99], 6).astype(np.float32)
    for by_products in (False, True):
        found = pruned(own, host(x, t), by_products=by_products)
        assert found.answered.all()
        np.testing.assert_array_equal(found.top1_index, log_weights(own, host(x, t)).argmax(axis=1))


@keys
def test_no_answer_exceeds_its_own_bound(key):
    """Whatever the tolerance: `denoised` is within `error_bound` and rounding of the exact mean."""
    data, own = DATA[key], index(key)
    x, t = queries(data, 7, 24)
    sigma = 1 - t.astype(np.float64)
    wanted = exact.oracle(data, x, t)
    for tolerance, by_products in itertools.product((0.0, 1e-3, 0.2), (False, True)):
        found = pruned(own, host(x, t), tolerance, by_products)
        off = np.linalg.norm(found.denoised - wanted.denoised, axis=1)
        nats = 1e-15 * (np.linalg.norm(x.astype(np.float64), axis=1) + np.linalg.norm(data, axis=1).max()) ** 2 / sigma**2  # float64's own
        light = 1e-7  # of samples that are summed in float32
        rounding = (1e-12 + nats) * (np.abs(wanted.denoised).max() + own.radius) + light * own.radius
        rounding += 2.0**-24 * np.linalg.norm(wanted.denoised, axis=1)  # of the answer itself
        assert (off <= found.error_bound + rounding).all()
        assert (found.error_bound <= 2 * own.radius * max(tolerance, 1e-7) * 1.01).all()


def test_a_tolerance_leaves_more_out():
    own, (x, t) = index("falling spectrum"), queries(DATA["falling spectrum"], 3, 24)
    strict, loose = (pruned(own, host(x, t), v) for v in (0.0, 0.05))
    assert loose.survivors.sum() < strict.survivors.sum() < 24 * N


@keys
def test_the_oracle_pruned_is_exact(key):
    """The promised tolerance of the velocity, at every t, on and off the path."""
    data = DATA[key]
    oracle = Oracle(data, implementation="pruned")
    for seed in range(2):
        x, t = queries(data, seed, 24)
        out, wanted = oracle(x, t), exact.oracle(data, x, t)
        error = np.linalg.norm(np.asarray(out.velocity, np.float64) - wanted.velocity, axis=1)
        assert (error <= 1e-5 * np.linalg.norm(wanted.velocity, axis=1) + 1e-12 * np.abs(data).max() / (1 - t)).all()
        assert (np.abs(np.asarray(out.entropy) - wanted.entropy) <= 1e-4).all()
        np.testing.assert_allclose(out.log_density, wanted.log_density, rtol=1e-5)
        np.testing.assert_allclose(out.top1_weight, wanted.top1_weight, rtol=1e-4)


def test_classes_counts_and_small_dtypes():
    """Every field as the dense pass has it, for uint8 samples that count differently and queries of any class."""
    rng = np.random.default_rng(0)
    data = rng.integers(0, 255, (N, 5, 5)).astype(np.uint8)
    labels, counts = rng.integers(0, 4, N).astype(np.int32), rng.integers(1, 5, N).astype(np.float32)
    t = np.resize([0.3, 0.7, 0.95], 12).astype(np.float32)
    noise = rng.standard_normal((12, 5, 5))
    x = (t[:, None, None] * data[:12] + (1 - t)[:, None, None] * noise).astype(np.float32)
    label = np.where(np.arange(12) % 3 == 0, -1, labels[:12]).astype(np.int32)
    sparse, dense = (Oracle(data, labels, counts=counts, implementation=name)(x, t, label) for name in ("pruned", None))
    for name in ("velocity", "log_density", "entropy", "top1_weight", "effective_samples", "top1_index"):
        np.testing.assert_allclose(getattr(sparse, name), getattr(dense, name), rtol=2e-5, atol=2e-5, err_msg=name)
    through_the_door = posterior(
        x.reshape(12, -1), t, 1 - t, data.reshape(N, -1), labels=labels, query_labels=label, counts=counts, implementation="pruned"
    )
    np.testing.assert_allclose(through_the_door.denoised, dense.denoised.reshape(12, -1), rtol=2e-5, atol=1e-4)


def test_ties_go_to_the_lowest_index_of_the_caller():
    data = DATA["two hundred copies"]
    out = Oracle(data, np.arange(N)[::-1] % 3, implementation="pruned")(data[100][None], 0.9)
    assert int(out.top1_index[0]) == 100
    np.testing.assert_allclose(out.top1_weight, 1 / 200, rtol=1e-5)


@pytest.mark.slow
def test_t_0_and_t_1_take_a_dense_pass():
    """At t = 0 an index knows nothing, and at t = 1 the limit is asked for: these rows of a batch come from the dense pass."""
    data = DATA["falling spectrum"]
    t = np.float32([0, 0.5, 1, 0.95])
    x = np.stack([data[3] * a for a in (0.1, 1, 1, 1)])
    sparse, dense = (Oracle(data, implementation=name)(x, t) for name in ("pruned", None))
    np.testing.assert_allclose(sparse.velocity, dense.velocity, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(sparse.top1_index, dense.top1_index)


def test_a_query_with_too_many_survivors_is_left_unanswered():
    """On a sphere about the query nothing can be pruned; and the cost model, which counted on data of the path, does not know."""
    data = np.concatenate([DATA["a sphere about the query"], 50 * np.eye(D, dtype=np.float32)])
    x, ones = np.zeros((70, D), np.float32), np.ones(70)
    found = HostMoments.none(70, D)
    pruned_posterior(
        index_of(data), Queries(x, 0.5 * ones, 0.5 * ones, np.full(70, -1), ones, ones), np.arange(70), found, most=np.full(70, 0.3)
    )
    assert not found.answered.any()


def test_a_query_that_float32_cannot_bound_is_left_unanswered():
    """So far off that its scores might become infinite; the others of its tile are answered."""
    own, x = index("falling spectrum"), DATA["falling spectrum"][:3].copy()
    x[1] = 1e32
    for by_products in (False, True):
        found = pruned(own, host(x, np.full(3, 0.9, np.float32)), by_products=by_products)
        np.testing.assert_array_equal(found.answered, [True, False, True])


@pytest.mark.slow
def test_a_query_with_nan_gives_nan_and_leaves_the_others_alone():
    data = DATA["falling spectrum"]
    x = data[:4].copy()
    x[1, 2] = np.nan
    sparse, dense = (posterior(x, 0.5, 0.5, data, implementation=name) for name in ("pruned", None))
    np.testing.assert_allclose(sparse.denoised, dense.denoised, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(sparse.top1_index, dense.top1_index)
    assert np.isnan(sparse.denoised[1]).all()
