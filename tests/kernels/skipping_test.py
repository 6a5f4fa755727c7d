"""Skipping with a certificate: the bounds hold for every query, and what is left out stays within `error_bound`."""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from flowjax.oracle import Oracle
from kernels.posterior import posterior
from kernels.posterior.samples import by_class, prepare
from kernels.posterior.sketch import Sketch, build_sketch
from kernels.posterior.skipping import DENSE, Skipping, choose_level, count_standing, posterior_by_sketch, sketch_of
from tests import float64_oracle as exact

N, D = 500, 70
"""More coordinates than the first two levels have, so that bounds of three kinds are there: 32, 64 and all."""


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


@functools.cache
def sketch(key: str) -> Sketch:
    return build_sketch(DATA[key])


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


@keys
@settings(max_examples=3)
@given(seed=st.integers(0, 1000))
def test_the_product_of_a_window_bounds_every_score(key, seed):
    """x·y - ‖y‖²/2 about the centre, in float64, is at most the float32 product with the sketch, and its slack."""
    data, x = DATA[key].astype(np.float64), queries(DATA[key], seed)[0].astype(np.float64)
    own = sketch(key)
    centred, away = x - own.center, data - own.center
    truth = centred @ away.T - (away**2).sum(1) / 2
    norm = np.linalg.norm(centred, axis=1)
    for level in range(len(own.edges)):
        scores = own.query_coordinates(x, level, np.ones(len(x))) @ own.window(level, slice(None))
        assert (truth <= scores + own.slack(norm, level)[:, None] + 1e-12 * norm[:, None] * own.radius).all()


@pytest.mark.parametrize("key", ["falling spectrum", "in a plane"])
def test_all_coordinates_give_the_scores_themselves(key):
    own, x = sketch(key), queries(DATA[key], 1)[0].astype(np.float64)
    centred, away = x - own.center, DATA[key] - own.center
    truth = centred @ away.T - (away**2).sum(1) / 2
    scores = own.query_coordinates(x, len(own.edges) - 1, np.ones(len(x))) @ own.window(len(own.edges) - 1, slice(None))
    assert (np.abs(scores - truth) <= own.slack(np.linalg.norm(centred, axis=1), 0)[:, None]).all()


@keys
def test_no_answer_exceeds_its_own_bound(key):
    """Whatever the level and the tolerance: `denoised` is within `error_bound` and rounding of the exact mean."""
    data, own = DATA[key], sketch(key)
    x, t = queries(data, 7, 24)
    x64, alpha, sigma = x.astype(np.float64), t.astype(np.float64), 1 - t.astype(np.float64)
    wanted = exact.oracle(data, x, t)
    for tolerance in (0.0, 1e-3, 0.2):
        for level in range(len(own.edges)):
            everywhere = np.full(len(x), level)
            found = posterior_by_sketch(
                own, x64, alpha, sigma, np.full(len(x), -1), np.ones(len(x)), everywhere, tolerance=tolerance, give_up=False
            )
            off = np.linalg.norm(found.denoised - wanted.denoised, axis=1)
            nats = 1e-15 * (np.linalg.norm(x64, axis=1) + np.linalg.norm(data, axis=1).max()) ** 2 / sigma**2  # float64's own
            rounding = (1e-12 + nats) * (np.abs(wanted.denoised).max() + own.radius)
            assert (off <= found.error_bound + rounding).all()
            assert (found.error_bound <= 2 * own.radius * max(tolerance, 1e-7) * 1.01).all()


def test_a_tolerance_leaves_more_out():
    own, (x, t) = sketch("falling spectrum"), queries(DATA["falling spectrum"], 3, 24)
    arguments = (x.astype(np.float64), t.astype(np.float64), 1 - t.astype(np.float64), np.full(24, -1), np.ones(24), np.zeros(24, int))
    strict, loose = (posterior_by_sketch(own, *arguments, tolerance=v, give_up=False) for v in (0.0, 0.05))
    assert loose.standing.sum() < strict.standing.sum() < 24 * N


@keys
def test_the_oracle_by_sketch_is_exact(key):
    """The promised tolerance of the velocity, at every t, on and off the path."""
    data = DATA[key]
    oracle = Oracle(data, implementation="sketch")
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
    sparse, dense = (Oracle(data, labels, counts=counts, implementation=name)(x, t, label) for name in ("sketch", "streaming"))
    for name in ("velocity", "log_density", "entropy", "top1_weight", "effective_samples", "top1_index"):
        np.testing.assert_allclose(getattr(sparse, name), getattr(dense, name), rtol=2e-5, atol=2e-5, err_msg=name)
    through_the_door = posterior(
        x.reshape(12, -1), t, 1 - t, data.reshape(N, -1), labels=labels, query_labels=label, counts=counts, implementation="sketch"
    )
    np.testing.assert_allclose(through_the_door.denoised, dense.denoised.reshape(12, -1), rtol=2e-5, atol=1e-4)


def test_ties_go_to_the_lowest_index_of_the_caller():
    data = DATA["two hundred copies"]
    out = Oracle(data, np.arange(N)[::-1] % 3, implementation="sketch")(data[100][None], 0.9)
    assert int(out.top1_index[0]) == 100
    np.testing.assert_allclose(out.top1_weight, 1 / 200, rtol=1e-5)


def test_noise_alone_and_the_end_take_a_dense_pass():
    """At t = 0 a sketch knows nothing, and at t = 1 the limit is asked for: these rows of a batch come from the dense pass."""
    data = DATA["falling spectrum"]
    t = np.float32([0, 0.5, 1, 0.95])
    x = np.stack([data[3] * a for a in (0.1, 1, 1, 1)])
    sparse, dense = (Oracle(data, implementation=name)(x, t) for name in ("sketch", "streaming"))
    np.testing.assert_allclose(sparse.velocity, dense.velocity, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(sparse.top1_index, dense.top1_index)


def test_where_too_many_stand_the_query_is_given_up():
    """On a sphere about the query nothing can be skipped; and the planner, which counted on data of the path, does not know."""
    samples = prepare(jnp.asarray(np.concatenate([DATA["a sphere about the query"], 50 * np.eye(D, dtype=np.float32)])))
    skipping = Skipping(always=False)
    x, ones = np.zeros((70, D)), np.ones(70)
    found = skipping(samples, x, 0.5 * ones, 0.5 * ones, ones, np.full(70, -1), tolerance=0.0)
    assert found is None or not found.answered.any()


def test_it_is_driven_by_the_host():
    """Asked for by name it refuses to be traced, in one line; the default takes the dense pass there."""
    x = jnp.asarray(DATA["gaussians"][:2])
    for traced in (jax.jit(lambda oracle, x: oracle(x, 0.5).velocity), lambda o, x: jax.grad(lambda x: o(x, 0.5).velocity.sum())(x)):
        with pytest.raises(NotImplementedError, match="driven by the host and cannot run under jit"):
            traced(Oracle(DATA["gaussians"], implementation="sketch"), x)
    eager, traced = (f(Oracle(DATA["gaussians"]), x) for f in (lambda o, x: o(x, 0.5), jax.jit(lambda o, x: o(x, 0.5))))
    np.testing.assert_array_equal(eager.velocity, traced.velocity)


def test_the_plan_says_why_in_words_and_figures():
    """Early dense, late by few coordinates; the shares are what was counted on the data."""
    rng = np.random.default_rng(0)
    own = sketch_of(prepare(jnp.asarray((rng.standard_normal((4000, 200)) * np.geomspace(10, 0.01, 200)).astype(np.float32))))
    shares = count_standing(own)
    early, late = choose_level(own, shares, 30.0), choose_level(own, shares, 0.05)
    assert early.level == DENSE
    assert str(early).startswith("dense: at σ/α = 30")
    assert late.level != DENSE
    assert late.cost < 0.5
    assert f"{late.coordinates} of 200 coordinates" in str(late)
    assert "of the 4,000 samples" in str(late)
    oracle = Oracle(DATA["falling spectrum"], implementation="sketch")
    assert [line.split(":")[0] for line in oracle.plan(np.array([0.0, 0.9])).splitlines()] == ["t = 0", "t = 0.9"]
    assert "streaming" in Oracle(DATA["gaussians"], implementation="streaming").plan(0.5)
    cost = oracle.relative_cost(np.array([0.0, 0.9]))
    assert cost[0] == 1
    assert 0 < cost[1] < 1
    np.testing.assert_array_equal(Oracle(DATA["gaussians"], implementation="streaming").relative_cost(0.9), [1])


def test_the_default_makes_a_sketch_when_it_pays(monkeypatch):
    """Small data never; large data after some tens of queries late enough; then the answers are the dense ones."""
    data = DATA["falling spectrum"]
    oracle = Oracle(data)
    oracle(data, 0.9)
    assert oracle._skipping._sketch is None
    monkeypatch.setattr("kernels.posterior.skipping.LEAST_NUMBERS", 1000)
    dense = oracle(data[:8], 0.9)
    assert oracle._skipping._sketch is None
    oracle(data, 0.9)
    assert oracle._skipping._sketch is not None
    np.testing.assert_allclose(oracle(data[:8], 0.9).velocity, dense.velocity, rtol=1e-5, atol=1e-6)


def test_a_class_is_looked_at_alone():
    data, labels = DATA["falling spectrum"], (np.arange(N) % 5).astype(np.int32)
    samples = by_class(jnp.asarray(data), jnp.asarray(labels))
    own = sketch_of(samples)
    assert {key: part.stop - part.start for key, part in own.classes.items()} == dict.fromkeys(range(5), N // 5)
