"""The cost model: which engine computes a query, when an index is made, and why, in words."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.oracle import Oracle
from kernels.posterior.cpu.cost_model import Costs, choose, count_survivors
from tests.kernels.posterior.cpu.adversaries import DATA, index_of


def test_it_is_driven_by_the_host():
    """Asked for by name it refuses to be traced, in one line; the default takes the dense pass there."""
    x = jnp.asarray(DATA["gaussians"][:2])
    for traced in (jax.jit(lambda oracle, x: oracle(x, 0.5).velocity), lambda o, x: jax.grad(lambda x: o(x, 0.5).velocity.sum())(x)):
        with pytest.raises(NotImplementedError, match="driven by the host and cannot run under jit"):
            traced(Oracle(DATA["gaussians"], implementation="pruned"), x)
    eager, traced = (f(Oracle(DATA["gaussians"]), x) for f in (lambda o, x: o(x, 0.5), jax.jit(lambda o, x: o(x, 0.5))))
    np.testing.assert_allclose(eager.velocity, traced.velocity, rtol=1e-5)


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
    monkeypatch.setattr("kernels.posterior.cpu.dispatch.INDEX_COST", 200)
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
