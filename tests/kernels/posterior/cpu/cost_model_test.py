"""The cost model says why in words and figures, early dense and late by bounds."""

import dataclasses

import numpy as np
import pytest

from flowjax.oracle import Oracle
from kernels.posterior.cpu.cost_model import Costs, choose, count_survivors
from tests.kernels.posterior.cpu.adversaries import DATA, index_of


@pytest.mark.slow
def test_the_plan_says_why_in_words_and_figures():
    """Early dense, late by bounds; the shares are what was counted on the data."""
    rng = np.random.default_rng(0)
    own = index_of((rng.standard_normal((4000, 200)) * np.geomspace(10, 0.01, 200)).astype(np.float32))
    survivors, costs = count_survivors(own), Costs(query=400.0, box=0.0, bound=1.0, score=50.0, product=5.0, weigh=100.0, dense=10.0)
    early, late = choose(own.n, costs, survivors, 30.0), choose(own.n, costs, survivors, 0.05)
    assert (early.way, early.cost) == ("dense", 1)
    assert str(early).startswith("dense: at σ/α = 30 bounds leave 100% of the 4,000 samples;")
    assert late.way == "bounds"
    assert late.cost < 0.5
    assert "of the 4,000 samples" in str(late)
    cheap = choose(own.n, dataclasses.replace(costs, product=0.2), survivors, 0.3)
    assert cheap.way == "products"
    assert "a product with the bytes of all 4,000 samples" in str(cheap)
    assert choose(20, costs, survivors, 0.05).way == "dense"  # a class so small that the query's tables cost more than a pass
    oracle = Oracle(DATA["falling spectrum"], implementation="pruned")
    assert [line.split(":")[0] for line in oracle.plan(np.array([0.0, 0.9])).splitlines()] == ["t = 0", "t = 0.9"]
    assert "streaming" in Oracle(DATA["gaussians"], implementation="streaming").plan(0.5)
    cost = oracle.relative_cost(np.array([0.0, 0.9]))
    assert cost[0] == 1
    assert 0 <= cost[1] < 1
    np.testing.assert_array_equal(Oracle(DATA["gaussians"], implementation="streaming").relative_cost(0.9), [1])
