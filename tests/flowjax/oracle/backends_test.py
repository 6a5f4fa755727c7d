"""Every public method of an oracle, on every kind of oracle: it works, or says in one line what does."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from flowjax.oracle import Oracle
from kernels.posterior import posterior

N, D, B = 65, 6, 4
RNG = np.random.default_rng(0)
DATA = RNG.standard_normal((N, D)).astype(np.float32)
LABELS = np.arange(N) % 3
X, T = DATA[:B], np.full(B, 0.5, np.float32)
KINDS = ("memory", "pruned", "mesh", "disk")


@pytest.fixture(scope="module")
def oracles() -> dict[str, Oracle]:
    mesh = jax.make_mesh((2, 1), ("samples", "queries"), devices=jax.devices()[:2])
    return {
        "memory": Oracle(DATA, LABELS, precision="high"),  # which compiles to a third: the numbers are held elsewhere
        "pruned": Oracle(DATA, LABELS, implementation="pruned"),
        "mesh": Oracle(DATA, LABELS, mesh=mesh, precision="high"),
        "disk": Oracle.from_source(DATA, LABELS),
    }


def velocity(oracle: Oracle) -> Callable[[Any], Any]:
    return lambda x: oracle(x, T, moments="velocity").velocity


WORKS: dict[str, tuple[Callable[[Oracle], Any], tuple[str, ...]]] = {
    "plan": (lambda o: o.plan([0.5]).startswith("t = 0.5: "), KINDS),
    "relative_cost": (lambda o: o.relative_cost([0.1, 0.5]).shape == (2,), KINDS),
    "labels": (lambda o: (o.labels == LABELS).all(), KINDS),
    "counts": (lambda o: o.counts is None, KINDS),
    "conditional": (lambda o: o.conditional, KINDS),
    "repr": (lambda o: f"n={N}" in repr(o), KINDS),
    "data": (lambda o: (np.asarray(o.data) == DATA).all(), KINDS[:3]),
    "unique": (lambda o: o.unique().data.shape == (N, D), KINDS[:3]),
    "jvp": (lambda o: o.jvp(X, T, X).shape == (B, D), KINDS[:3]),
    "no queries": (lambda o: o(X[:0], T[:0], LABELS[:0]).velocity.shape == (0, D) and o(X[:0], 0.5).entropy.shape == (0,), KINDS),
    "no queries, velocity only": (lambda o: o(X[:0], 0.5, moments="velocity").entropy is None, KINDS),
    "jvp of no queries": (lambda o: o.jvp(X[:0], T[:0], X[:0]).shape == (0, D), KINDS),
    "deepcopy": (lambda o: (copy.deepcopy(o)(X, T).velocity == o(X, T).velocity).all(), KINDS),
    "pickle": (lambda o: (pickle.loads(pickle.dumps(o))(X, T).velocity == o(X, T).velocity).all(), ("memory", "pruned", "disk")),
    "jax.grad": (lambda o: jax.grad(lambda x: velocity(o)(x).sum())(X).shape == (B, D), ("memory", "mesh")),
    "jax.vmap": (lambda o: jax.vmap(velocity(o))(X[None]).shape == (1, B, D), ("memory", "mesh")),
    "jax.jvp": (lambda o: jax.jvp(velocity(o), (X,), (X,)), ()),
    "jax.hessian": (lambda o: jax.hessian(lambda x: velocity(o)(x).sum())(X), ()),
    "jax.hessian of the log-density": (lambda o: jax.hessian(lambda x: o(x, T).log_density.sum())(X), ()),
    "jax.grad of a gradient": (lambda o: jax.grad(lambda x: jax.grad(lambda y: velocity(o)(y).sum())(x).sum())(X), ()),
}


@pytest.mark.parametrize("kind", [*KINDS[:2], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[2:])])
@pytest.mark.parametrize("method", WORKS)
def test_every_method_works_or_names_what_does(oracles, kind, method):
    """No message of JAX's own, no AttributeError: the right result, or NotImplementedError in one line."""
    call, works_on = WORKS[method]
    if kind in works_on:
        assert call(oracles[kind])
        return
    with pytest.raises(NotImplementedError, match=r"Oracle\(data\)|oracle\.jvp|leave implementation out|shard them again") as caught:
        call(oracles[kind])
    assert "\n" not in str(caught.value)


def test_the_posterior_of_no_queries_is_empty():
    found = posterior(X[:0], T[:0], T[:0], DATA)
    assert found.denoised.shape == (0, D)
    assert found.entropy.shape == (0,)
    assert posterior(X[:0], T[:0], T[:0], DATA, moments="velocity").entropy is None
