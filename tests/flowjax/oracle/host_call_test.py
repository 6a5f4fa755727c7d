"""The CPU engine called from compiled programs: the velocity of an eager call, and nothing of JAX on the way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.fields import OracleField, on_host
from flowjax.fields.field import HostOracleField
from flowjax.oracle import Oracle
from flowjax.oracle.host_call import HostCall, host_call
from flowjax.path import Cosine
from flowjax.sampling import sample
from kernels.posterior.cpu.differences import mean_from_differences
from kernels.posterior.cpu.host_samples import HostSamples
from kernels.posterior.types import Queries, by_class
from tests import float64_oracle as exact

RNG = np.random.default_rng(0)
N, B, SHAPE = 300, 6, (4, 4, 1)
DATA = RNG.standard_normal((N, *SHAPE)).astype(np.float32)
LABELS = (np.arange(N) % 3).astype(np.int32)
X = RNG.standard_normal((B, *SHAPE)).astype(np.float32)
LABEL = np.array([-1, 0, 1, 2, -1, 0], np.int32)


def test_a_program_gets_the_velocity_of_an_eager_call() -> None:
    oracle = Oracle(DATA, LABELS, path=Cosine())
    field = on_host(OracleField(oracle), X)
    assert isinstance(field, HostOracleField)
    ask = jax.jit(lambda x, t, label: field(x, t, label))
    for t in (0.0, 0.3, 0.8):
        want = oracle(X, np.float32(t), LABEL).velocity
        np.testing.assert_allclose(ask(X, jnp.float32(t), LABEL), want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.jit(lambda x: field(x, jnp.float32(0.3), None))(X), oracle(X, 0.3).velocity, rtol=1e-5, atol=1e-6)


def test_data_in_a_unit_of_their_own_and_queries_that_the_engine_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = Oracle(DATA * np.float32(1e12), LABELS)
    call, t = host_call(oracle), 1e-12
    assert isinstance(call, HostCall)
    coefficients = np.repeat(np.array([[t], [1 - t], [1.0], [1 / (1 - t)]]), B, axis=1)[..., None].view(np.int32)
    flat = X.reshape(B, -1)
    found = call(flat, coefficients, LABEL)
    monkeypatch.setattr("kernels.posterior.cpu.dispatch.CpuEngine.__call__", lambda *_, **__: None)
    left = call(flat, coefficients, LABEL)
    np.testing.assert_allclose(left, found, rtol=1e-5, atol=1e-6 * np.abs(found).max())


def test_the_mean_from_differences_is_exact_beside_near_copies() -> None:
    rows = np.repeat(DATA[:30].reshape(30, -1), 10, axis=0) + 1e-5 * RNG.standard_normal((N, 16)).astype(np.float32)
    samples = HostSamples.of(by_class(jnp.asarray(rows), jnp.asarray(LABELS)))
    t = 0.999
    x = (t * rows[:B] + (1 - t) * X.reshape(B, -1)).astype(np.float32)
    queries = Queries(x, np.full(B, t), np.full(B, 1 - t), LABEL)
    for row in range(B):
        mine = rows if LABEL[row] < 0 else rows[LABEL[row] == LABELS]
        want = exact.posterior(mine, x[row], t, 1 - t)["denoised"]
        np.testing.assert_allclose(mean_from_differences(samples, queries, row), want, rtol=1e-12, atol=1e-12)


def test_oracles_stay_compiled_where_the_host_cannot_help() -> None:
    """Under tracing, which asks for derivatives; over several devices; by an implementation that was asked for."""
    field = OracleField(Oracle(DATA))
    seen = []
    jax.make_jaxpr(lambda x: seen.append(on_host(field, x)) or x)(X)
    assert seen[0] is field
    devices = jax.make_mesh((2,), ("batch",), devices=jax.devices()[:2])
    spread = jax.device_put(X, jax.NamedSharding(devices, jax.P("batch")))
    assert on_host(field, spread) is field
    streaming = OracleField(Oracle(DATA, implementation="streaming"))
    assert isinstance(on_host(streaming, X), OracleField)


def test_sampling_takes_it() -> None:
    oracle = Oracle(DATA)
    t = np.linspace(0, 1, 5)
    found = sample(OracleField(oracle), jnp.asarray(X), t)
    x = jnp.asarray(X)
    for start, end in zip(np.float32(t[:-1]), np.float32(t[1:]), strict=True):
        x = x + (end - start) * oracle(x, start).velocity
    np.testing.assert_allclose(found, x, rtol=1e-5, atol=1e-6)


def test_each_oracle_has_one_call_and_no_two_share_it() -> None:
    """A compiled program is that of its call: of equal data another oracle has another."""
    one, other = Oracle(DATA), Oracle(DATA)
    assert host_call(one) is host_call(one)
    assert host_call(one) != host_call(other)
