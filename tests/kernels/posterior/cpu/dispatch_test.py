"""The CPU engine: when it makes an index, and that the host drives it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.oracle import Oracle
from kernels.posterior import posterior
from kernels.posterior.cpu.dispatch import Calibration
from kernels.posterior.cpu.tuning import CpuTuning
from tests.kernels.posterior.cpu.adversaries import DATA


@pytest.mark.slow
def test_pruned_search_refuses_tracing_and_the_default_computes_densely():
    """Asked for by name it refuses to be traced, in one line; the default takes the dense pass there."""
    x = jnp.asarray(DATA["gaussians"][:2])
    for traced in (jax.jit(lambda oracle, x: oracle(x, 0.5).velocity), lambda o, x: jax.grad(lambda x: o(x, 0.5).velocity.sum())(x)):
        with pytest.raises(NotImplementedError, match="driven by the host and cannot run under jit"):
            traced(Oracle(DATA["gaussians"], implementation="pruned"), x)
    traced = jax.jit(lambda oracle, x: oracle(x, 0.5, moments="velocity").velocity)(Oracle(DATA["gaussians"], precision="high"), x)
    np.testing.assert_allclose(traced, Oracle(DATA["gaussians"])(x, 0.5).velocity, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_default_makes_an_index_when_it_pays(monkeypatch):
    """Small data never; large data once it would have answered enough queries; then the answers are the dense ones, at every t."""
    data = DATA["falling spectrum"]
    oracle = Oracle(data)
    monkeypatch.setattr("kernels.posterior.cpu.dispatch.TUNING", CpuTuning(index_cost=200))
    times = (0.05, 0.3, 0.9)
    dense = [oracle(data[:8], t) for t in (*times, *times)]
    oracle(0.9 * data, 0.9)
    assert "no index is made" in oracle.plan(0.9)
    assert not oracle._backend.engine.ready
    monkeypatch.setattr("kernels.posterior.cpu.dispatch.TUNING", CpuTuning(index_cost=200, least_indexed=1000, least_indexed_samples=100))
    oracle(0.9 * data, 0.9)
    assert not oracle._backend.engine.ready
    oracle(0.9 * data[:1], 0.9)
    assert oracle._backend.engine.ready
    for t, wanted in zip(times, dense, strict=False):
        found = oracle(data[:8], t)
        np.testing.assert_allclose(found.velocity, wanted.velocity, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.variance, wanted.variance, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(found.top1_index, wanted.top1_index)


def test_classes_that_are_small_by_themselves_make_no_index(monkeypatch):
    """Queries of a class count for its share of the samples, and not at all where an index would not serve it."""
    data, tuning = DATA["falling spectrum"], CpuTuning(index_cost=200, least_indexed=1000, least_indexed_samples=200)
    labels = np.repeat([0, 1], [400, 100]).astype(np.int32)
    monkeypatch.setattr("kernels.posterior.cpu.dispatch.TUNING", tuning)
    oracle, engine = Oracle(data, labels), lambda: oracle._backend.engine
    for _ in range(5):
        oracle(0.9 * data[400:], 0.9, 1)
    assert engine()._prunable == 0
    oracle(0.9 * data[:100], 0.9, 0)
    assert engine()._prunable == pytest.approx(80)
    assert not engine().ready


def test_prepare_keeps_the_index_and_decides_as_before(tmp_path):
    """From a calibration that went through JSON and an index from a file, another oracle gives the same bits."""
    data, file = DATA["falling spectrum"], tmp_path / "folder" / "index.npz"
    first, second = Oracle(data), Oracle(data)
    seen: list[object] = []
    chosen = first.prepare(cache=file, progress=lambda parts: [seen.append(part) or part for part in parts])
    assert seen
    again = Calibration.from_dict(json.loads(json.dumps(chosen.as_dict())))
    made = file.stat().st_mtime_ns
    assert second.prepare(calibration=again, cache=file).as_dict() == chosen.as_dict()
    assert file.stat().st_mtime_ns == made
    for t in (0.05, 0.9):
        one, other = first(0.9 * data[:8], t), second(0.9 * data[:8], t)
        np.testing.assert_array_equal(one.velocity, other.velocity)
        np.testing.assert_array_equal(one.log_density, other.log_density)
    assert Oracle(data, implementation="streaming").prepare() is None
    with pytest.raises(ValueError, match=r"a calibration is what Calibration\.as_dict gave"):
        Calibration.from_dict({"costs": {}})


@pytest.mark.slow
def test_a_query_of_a_class_without_samples_is_nan():
    """Also where the host computes; the others of its batch are answered."""
    data = DATA["gaussians"]
    found = posterior(data[:3], 0.5, 0.5, data, labels=np.arange(500) % 2, query_labels=np.array([0, 7, 1]))
    np.testing.assert_array_equal(np.isnan(found.denoised).all(axis=1), [False, True, False])


@pytest.mark.parametrize("sigma", [pytest.param(0.0, marks=pytest.mark.long), pytest.param(0.5, marks=pytest.mark.slow)])
def test_a_class_whose_samples_never_count_is_nan(sigma):
    """With noise and without; so are queries of all samples where none counts."""
    data, labels = DATA["gaussians"], np.arange(500) % 2
    asked = {"labels": labels, "query_labels": np.array([1, 0, -1])}
    found = posterior(data[:3], 1.0, sigma, data, counts=1.0 - labels, **asked)
    np.testing.assert_array_equal(np.isnan(found.denoised).all(axis=1), [True, False, False])
    assert np.isnan(posterior(data[:3], 1.0, sigma, data, counts=np.zeros(500), **asked).denoised).all()
