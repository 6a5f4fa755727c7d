"""Skipping with a certificate: the bounds hold for every query, and what is left out stays within `error_bound`."""

import dataclasses
import functools
import itertools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from flowjax.oracle import Oracle
from kernels.posterior import posterior
from kernels.posterior.cpu.bounds import COARSE, COLUMNS, HALF, LEAF, MORE, NORMS, bounds_of_leaves, multiply, panels_of
from kernels.posterior.cpu.cost_model import Costs, choose, count_survivors
from kernels.posterior.cpu.host_samples import HostSamples
from kernels.posterior.cpu.index import Index, beyond, build_index
from kernels.posterior.cpu.pruned_search import PrunedSearch, pruned_posterior
from kernels.posterior.cpu.query_tables import QueryTables
from kernels.posterior.cpu.results import Answer, Queries
from kernels.posterior.samples import by_class, prepare
from tests import float64_oracle as exact

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
    """Of rectified flow, for the host's ways."""
    t = t.astype(np.float64)
    return Queries(x.astype(np.float32), t, 1 - t, np.ones(len(x)), 1 / (1 - t), np.full(len(x), -1))


def pruned(own: Index, queries: Queries, tolerance: float = 0.0, by_products: bool = False) -> Answer:
    found = Answer.none(*queries.x.shape)
    pruned_posterior(own, queries, np.arange(len(queries.x)), found, tolerance=tolerance, by_products=by_products)
    return found


def log_weights(own: Index, queries: Queries) -> np.ndarray:
    """-‖x - α y‖² / 2σ² in float64, from differences."""
    gaps = queries.x[:, None] - queries.alpha[:, None, None] * own.rows[None].astype(np.float64)
    return -np.sum(gaps**2, axis=2) / (2 * queries.sigma[:, None] ** 2)


def bounds(way: str, own: Index, aim: QueryTables) -> np.ndarray:
    """At least the score of each sample for each query, `[B, places]`; as the code has it, of columns by its formula."""
    table, places = own.table, len(own.row)
    if way == "leaves":
        of_leaves = np.empty((places // LEAF, len(aim.g)), np.float32)
        bounds_of_leaves(0, len(of_leaves), table, aim, of_leaves)
        return np.repeat(of_leaves.T, LEAF, axis=1) + aim.slack[:, None]
    if way == "products":
        scores = np.empty((places, len(aim.g)), np.float32)
        multiply(scores, table.whole.digits, panels_of(aim.whole.bits), aim.whole.step.astype(np.float32))
        return scores.T + (aim.offset + aim.slack_of_products + aim.widest(own))[:, None] - np.outer(aim.kappa, table.norms)
    group, last = {"first": (0, MORE), "half": (1, MORE + HALF - COARSE), "all": (2, COLUMNS)}[way]
    used = [*range(NORMS), *range(NORMS + group, MORE), *range(MORE, last)]
    columns = table.columns.transpose(1, 0, 2).reshape(COLUMNS, places)
    return aim.columns[:, used] @ columns[used] + aim.slack[:, None]


@keys
@pytest.mark.parametrize("way", ["leaves", "first", "half", "all", "products"])
@settings(max_examples=3)
@given(seed=st.integers(0, 1000))
def test_no_sample_weighs_more_than_its_bound(key, way, seed):
    own, tile = index(key), host(*queries(DATA[key], seed))
    truth, aim = log_weights(own, tile), QueryTables.at(own, tile.x, tile.alpha, tile.sigma)
    there = own.row >= 0
    found = bounds(way, own, aim)[:, there] + aim.constant[:, None]
    rounding = 1e-9 * (1 + np.abs(truth).max(axis=1)) + 1e-6 * np.abs(aim.constant)
    assert (found >= truth[:, own.row[there]] - rounding[:, None]).all()


@keys
@pytest.mark.parametrize("by_products", [False, True])
@settings(max_examples=3)
@given(seed=st.integers(0, 1000))
def test_what_stands_is_all_that_lies_within_the_cut_of_a_weight_that_some_sample_has(key, by_products, seed):
    own, tile = index(key), host(*queries(DATA[key], seed))
    truth, aim = log_weights(own, tile), QueryTables.at(own, tile.x, tile.alpha, tile.sigma)
    rounding = 1e-9 * (1 + np.abs(truth).max(axis=1))
    heavy, cut, pairs = PrunedSearch(own, slice(0, own.n), tile, 0.0).standing(by_products, np.full(len(tile.x), np.inf))
    assert (np.abs(truth[np.arange(len(truth)), heavy.row] - heavy.log_weight) <= rounding).all()
    stands = np.zeros(truth.shape, bool)
    stands[pairs.queries, pairs.rows] = True
    assert (stands | (truth <= (heavy.log_weight - cut + rounding)[:, None])).all()
    off = np.abs(pairs.values + aim.constant[pairs.queries] - truth[pairs.queries, pairs.rows])
    assert (off <= pairs.widths + rounding[pairs.queries]).all()


@keys
def test_every_sample_has_one_place_in_a_leaf_of_its_class(key):
    n = len(DATA[key])
    own = index_of(DATA[key], labels=np.sort(np.arange(n) % 7).astype(np.int32))
    np.testing.assert_array_equal(np.sort(own.row[own.row >= 0]), np.arange(n))
    for rows in own.classes.values():
        leaves = own.leaves_of(rows)
        mine = own.row[leaves.start * LEAF : leaves.stop * LEAF]
        np.testing.assert_array_equal(np.sort(mine[mine >= 0]), np.arange(rows.start, rows.stop))


@keys
def test_bytes_and_what_they_lack_are_the_numbers(key):
    """Samples are their bytes and what is left; so are directions, of 16 bits; coordinates are those of an orthonormal basis."""
    own, tile = index(key), host(*queries(DATA[key], 1))
    aim, table = QueryTables.at(own, tile.x, tile.alpha, tile.sigma), own.table
    g = (tile.alpha / tile.sigma**2)[:, None] * (tile.x - tile.alpha[:, None] * own.center)
    np.testing.assert_allclose(aim.g, g, rtol=1e-9, atol=1e-9 * np.abs(g).max())
    lost = np.linalg.norm(g * own.step - aim.whole.bits * aim.whole.step[:, None], axis=1)
    assert (lost <= aim.whole.lost * (1 + 1e-6)).all()
    assert (np.linalg.norm(g, axis=1) <= aim.whole.length).all()
    there = own.row >= 0
    samples = DATA[key][own.row[there]].astype(np.float64)
    left = np.linalg.norm(samples - (own.origin + own.step * table.whole.digits[there]), axis=1)
    assert (left <= table.whole.left[there] + 1e-12 * np.abs(DATA[key]).max()).all()
    assert (np.linalg.norm(table.whole.digits.astype(np.float64), axis=1) <= table.whole.lengths).all()
    basis = own.basis.astype(np.float64)
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-5)
    z = (samples - own.center) @ basis
    others = beyond(z, len(own.middle_step))
    digits = table.middle.digits.transpose(0, 2, 1, 3).reshape(len(there), -1)[there]
    away = np.linalg.norm(others - own.middle_step * digits, axis=1)
    assert (away <= table.middle.left.ravel()[there] + 2 * own.rounding * np.sqrt(table.norms[there])).all()
    np.testing.assert_array_equal(own.square_norms[own.row[there]], table.norms[there])


def test_of_images_nothing_is_left():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 30)).astype(np.uint8)
    for rows, whole in ((images, True), (images / np.float32(127.5) - 1, True), (rng.standard_normal((40, 30)).astype(np.float32), False)):
        own = index_of(rows)
        assert (own.table.whole.left.max() < 1e-5) == whole


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
    sparse, dense = (Oracle(data, labels, counts=counts, implementation=name)(x, t, label) for name in ("pruned", "streaming"))
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


def test_noise_alone_and_the_end_take_a_dense_pass():
    """At t = 0 an index knows nothing, and at t = 1 the limit is asked for: these rows of a batch come from the dense pass."""
    data = DATA["falling spectrum"]
    t = np.float32([0, 0.5, 1, 0.95])
    x = np.stack([data[3] * a for a in (0.1, 1, 1, 1)])
    sparse, dense = (Oracle(data, implementation=name)(x, t) for name in ("pruned", "streaming"))
    np.testing.assert_allclose(sparse.velocity, dense.velocity, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(sparse.top1_index, dense.top1_index)


def test_where_too_many_stand_the_query_is_given_up():
    """On a sphere about the query nothing can be skipped; and the planner, which counted on data of the path, does not know."""
    data = np.concatenate([DATA["a sphere about the query"], 50 * np.eye(D, dtype=np.float32)])
    x, ones = np.zeros((70, D), np.float32), np.ones(70)
    found = Answer.none(70, D)
    pruned_posterior(
        index_of(data), Queries(x, 0.5 * ones, 0.5 * ones, ones, ones, np.full(70, -1)), np.arange(70), found, most=np.full(70, 0.3)
    )
    assert not found.answered.any()


def test_a_query_that_float32_cannot_bound_is_given_up():
    """So far off that its scores might become infinite; the others of its tile are answered."""
    own, x = index("falling spectrum"), DATA["falling spectrum"][:3].copy()
    x[1] = 1e32
    for by_products in (False, True):
        found = pruned(own, host(x, np.full(3, 0.9, np.float32)), by_products=by_products)
        np.testing.assert_array_equal(found.answered, [True, False, True])


def test_a_query_with_nan_gives_nan_and_leaves_the_others_alone():
    data = DATA["falling spectrum"]
    x = data[:4].copy()
    x[1, 2] = np.nan
    sparse, dense = (posterior(x, 0.5, 0.5, data, implementation=name) for name in ("pruned", "streaming"))
    np.testing.assert_allclose(sparse.denoised, dense.denoised, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(sparse.top1_index, dense.top1_index)
    assert np.isnan(sparse.denoised[1]).all()


def test_it_is_driven_by_the_host():
    """Asked for by name it refuses to be traced, in one line; the default takes the dense pass there."""
    x = jnp.asarray(DATA["gaussians"][:2])
    for traced in (jax.jit(lambda oracle, x: oracle(x, 0.5).velocity), lambda o, x: jax.grad(lambda x: o(x, 0.5).velocity.sum())(x)):
        with pytest.raises(NotImplementedError, match="driven by the host and cannot run under jit"):
            traced(Oracle(DATA["gaussians"], implementation="pruned"), x)
    eager, traced = (f(Oracle(DATA["gaussians"]), x) for f in (lambda o, x: o(x, 0.5), jax.jit(lambda o, x: o(x, 0.5))))
    np.testing.assert_array_equal(eager.velocity, traced.velocity)


def test_the_plan_says_why_in_words_and_figures():
    """Early dense, late by bounds; the shares are what was counted on the data."""
    rng = np.random.default_rng(0)
    own = index_of((rng.standard_normal((4000, 200)) * np.geomspace(10, 0.01, 200)).astype(np.float32))
    standing, costs = count_survivors(own), Costs(start=0.1, bound=1.0, look=50.0, product=5.0, weigh=100.0, dense=10.0)
    early, late = choose(own.n, costs, standing, 30.0), choose(own.n, costs, standing, 0.05)
    assert (early.way, early.cost) == ("dense", 1)
    assert str(early).startswith("dense: at σ/α = 30 bounds leave 100% of the 4,000 samples")
    assert late.way == "bounds"
    assert late.cost < 0.5
    assert "of the 4,000 samples" in str(late)
    cheap = choose(own.n, dataclasses.replace(costs, product=0.2), standing, 0.3)
    assert cheap.way == "products"
    assert "a product with the bytes of all 4,000 samples" in str(cheap)
    oracle = Oracle(DATA["falling spectrum"], implementation="pruned")
    assert [line.split(":")[0] for line in oracle.plan(np.array([0.0, 0.9])).splitlines()] == ["t = 0", "t = 0.9"]
    assert "streaming" in Oracle(DATA["gaussians"], implementation="streaming").plan(0.5)
    cost = oracle.relative_cost(np.array([0.0, 0.9]))
    assert cost[0] == 1
    assert 0 <= cost[1] < 1
    np.testing.assert_array_equal(Oracle(DATA["gaussians"], implementation="streaming").relative_cost(0.9), [1])


def test_the_default_makes_an_index_when_it_pays(monkeypatch):
    """Small data never; large data once it would have answered enough queries; then the answers are the dense ones, at every t."""
    data = DATA["falling spectrum"]
    oracle = Oracle(data)
    monkeypatch.setattr("kernels.posterior.cpu.dispatch.INDEX_COST", len(data))
    times = (0.05, 0.3, 0.9)
    dense = [oracle(data[:8], t) for t in (*times, *times)]
    oracle(data, 0.9)
    assert "no index is made" in oracle.plan(0.9)
    assert not oracle._backend.engine.ready
    monkeypatch.setattr("kernels.posterior.cpu.dispatch.LEAST_NUMBERS", 1000)
    oracle(data[:1], 0.9)
    assert oracle._backend.engine.ready
    for t, wanted in zip(times, dense, strict=False):
        found = oracle(data[:8], t)
        np.testing.assert_allclose(found.velocity, wanted.velocity, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.variance, wanted.variance, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(found.top1_index, wanted.top1_index)


def test_a_class_is_looked_at_alone():
    data, labels = DATA["falling spectrum"], (np.arange(N) % 5).astype(np.int32)
    own = index_of(data, labels)
    assert {key: part.stop - part.start for key, part in own.classes.items()} == dict.fromkeys(range(5), N // 5)
