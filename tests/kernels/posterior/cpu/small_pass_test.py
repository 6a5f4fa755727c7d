"""The pass over small data: exact where it answers, and it answers what a user asks of small data."""

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from flowjax.oracle import Oracle
from kernels.posterior.cpu.host_samples import HostSamples
from kernels.posterior.cpu.results import HostMoments
from kernels.posterior.cpu.small_pass import small_posterior
from kernels.posterior.types import Queries, by_class, prepare
from tests import float64_oracle as exact
from tests.kernels.posterior.cpu.full_pass_test import KINDS, RNG, is_exact

LATE = [0.0, 0.001, 0.02, 0.1, 0.25, 0.4, 0.6, 0.8, 0.95, 0.99, 0.999]


def answer(data: np.ndarray, x: np.ndarray, t: np.ndarray, label: np.ndarray | None = None, **more: np.ndarray) -> HostMoments:
    t64 = t.astype(np.float64)
    label = np.full(len(x), -1, np.int32) if label is None else label.astype(np.int32)
    samples = by_class(jnp.asarray(data), **more) if "labels" in more else prepare(jnp.asarray(data))
    return small_posterior(HostSamples.of(samples), Queries(x, t64, 1 - t64, label, np.ones(len(x)), 1 / (1 - t64)))


def queries(data: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy samples at all times, and every third point off the path."""
    rng, t = np.random.default_rng(seed), np.resize(LATE, 33).astype(np.float32)
    own = data[rng.integers(len(data), size=33)] * (np.arange(33) % 3 != 0)[:, None]
    return (t[:, None] * own + (1 - t)[:, None] * rng.standard_normal(own.shape)).astype(np.float32), t


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=3)
@given(seed=st.integers(0, 1000))
def test_answers_are_exact(kind, seed):
    data = KINDS[kind]
    x, t = queries(data, seed)
    found, wanted = answer(data, x, t), exact.oracle(data, x, t)
    yes = found.answered
    assert yes[t <= (0.99 if data.std() < 10 else 0.1)].all() or kind == "outliers"
    is_exact(found, wanted, t)
    np.testing.assert_allclose(found.effective_samples[yes], wanted.effective_samples[yes], rtol=1e-4)
    np.testing.assert_array_equal(found.top1_index[yes], wanted.top1_index[yes])


def test_classes_and_counts_and_near_copies():
    data = np.repeat(KINDS["floats"], 2, axis=0)
    data = (data + 1e-6 * RNG.standard_normal(data.shape)).astype(np.float32)
    labels, counts = np.repeat(np.sort(RNG.integers(0, 3, 700)), 2).astype(np.int32), RNG.integers(1, 4, 1400)
    x, t = queries(data, 2)
    label = np.resize([0, 1, 2, -1], 33)
    found = answer(data, x, t, label, labels=jnp.asarray(labels), counts=jnp.asarray(counts, jnp.float32))
    for one in (-1, 0, 2):
        mine = (label == one) & found.answered
        rows = np.repeat(data, counts, axis=0)[(np.repeat(labels, counts) == one) | (one < 0)]
        wanted = exact.oracle(rows, x[mine], t[mine])
        error = np.linalg.norm(found.velocity[mine] - wanted.velocity, axis=1)
        assert mine.sum() > 5
        assert (error <= 1e-5 * np.linalg.norm(wanted.velocity, axis=1)).all()
        np.testing.assert_allclose(found.log_density[mine], wanted.log_density, rtol=1e-5)


def test_a_class_without_samples_and_a_query_that_is_no_number_are_left():
    data = KINDS["floats"]
    x, t = queries(data, 3)
    x[4] = np.nan
    found = answer(data, x, t, np.where(np.arange(33) == 7, 5, 0), labels=jnp.arange(700, dtype=jnp.int32) % 2)
    assert not found.answered[[4, 7]].any()
    assert found.answered[[0, 5, 8]].all()


def test_the_oracle_of_small_data_takes_it(monkeypatch):
    data = KINDS["floats"]
    x, t = queries(data, 4)
    oracle = Oracle(data)
    first = oracle(x, t)
    monkeypatch.setattr("kernels.posterior.cpu.dispatch.dense_posterior", lambda *_: pytest.fail("the pass over large data was taken"))
    np.testing.assert_array_equal(oracle(x, t).velocity, first.velocity)
