"""The pass over all samples on the host: as exact as float32 can be, or it says that it is not."""

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from kernels.posterior.cpu.full_pass import dense_posterior
from kernels.posterior.cpu.host_samples import HostSamples
from kernels.posterior.cpu.results import HostMoments
from kernels.posterior.cpu.tuning import CpuTuning
from kernels.posterior.types import Queries, by_class, prepare
from tests import float64_oracle as exact

RNG = np.random.default_rng(0)
KINDS = {
    "images": RNG.integers(0, 256, (700, 48)).astype(np.uint8),
    "images as floats": (RNG.integers(0, 256, (700, 48)) / 127.5 - 1).astype(np.float32),
    "floats": (RNG.standard_normal((700, 48)) * np.geomspace(3, 0.1, 48)).astype(np.float32),
    "far from the origin": (RNG.standard_normal((700, 48)) + 50).astype(np.float32),
    "copies": np.repeat(RNG.standard_normal((70, 48)), 10, axis=0).astype(np.float32),
    "outliers": np.concatenate([RNG.standard_normal((699, 48)), np.full((1, 48), 1000.0)]).astype(np.float32),
    "one sample": RNG.standard_normal((1, 48)).astype(np.float32),
}


def answered(
    data: np.ndarray, x: np.ndarray, t: np.ndarray, label: np.ndarray | None = None, rows: np.ndarray | None = None, **more: np.ndarray
) -> HostMoments:
    t64 = t.astype(np.float64)
    queries = Queries(x, t64, 1 - t64, np.full(len(x), -1) if label is None else label, np.ones(len(x)), 1 / (1 - t64))
    found = HostMoments.none(*x.shape)
    samples = by_class(jnp.asarray(data), **more) if "labels" in more else prepare(jnp.asarray(data))
    dense_posterior(HostSamples.of(samples), queries, np.arange(len(x)) if rows is None else rows, found)
    return found


def queries(data: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy samples, and points off the path, t from 0 to where one sample has most of the weight."""
    rng = np.random.default_rng(seed)
    t = np.resize([0.0, 0.001, 0.02, 0.1, 0.25, 0.4, 0.6], 21).astype(np.float32)
    spread = float(data.std()) or 1.0
    own = data[rng.integers(len(data), size=21)] * (np.arange(21) % 3 != 0)[:, None]
    return (t[:, None] * own + (1 - t)[:, None] * max(spread, 1.0) * rng.standard_normal(own.shape)).astype(np.float32), t


def is_exact(found: HostMoments, wanted: exact.Exact, t: np.ndarray) -> None:
    """What is answered keeps the promises of the whole."""
    yes, size = found.answered, np.linalg.norm(wanted.velocity, axis=1)
    assert (np.linalg.norm(found.velocity - wanted.velocity, axis=1)[yes] <= 1e-5 * size[yes]).all()
    assert (np.abs(found.entropy - wanted.entropy)[yes] <= 1e-4).all()
    np.testing.assert_allclose(found.log_density[yes], wanted.log_density[yes], rtol=1e-4)
    np.testing.assert_allclose(found.top1_weight[yes], wanted.top1_weight[yes], rtol=1e-4)
    spread = wanted.variance + ((1 - t) * size) ** 2  # (1 - t)² E‖u_cond‖²
    assert (np.abs(found.variance - wanted.variance)[yes] <= np.maximum(1e-4 * wanted.variance, 1e-6 * spread)[yes]).all()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=4)
@given(seed=st.integers(0, 1000))
def test_answers_of_the_dense_pass_are_exact(kind, seed):
    """Against float64, the promises of the whole: the velocity within 1e-5, and so on; early in time it does answer."""
    data = KINDS[kind]
    x, t = queries(data, seed)
    found, wanted = answered(data, x, t), exact.oracle(data, x, t)
    if kind not in ("one sample", "outliers", "images"):  # of bytes from 0 to 255, t = 0.02 is late
        assert found.answered[t <= 0.02].all()
    is_exact(found, wanted, t)
    yes = found.answered
    radius = np.linalg.norm(data - data.mean(axis=0, dtype=np.float64), axis=1).max()
    assert (found.error_bound[yes] <= 2e-7 * radius * 1.01).all()
    assert (found.error_bound[t == 0] == 0).all()


@pytest.mark.parametrize("at_once", [1, 2**21])
def test_however_cores_share_the_work(at_once, monkeypatch):
    """Block by block, and all scores at once; many weights, and few; answers have the places that were asked for."""
    monkeypatch.setattr("kernels.posterior.cpu.dense_sums.TUNING", CpuTuning(scores_at_once=at_once))
    data, t = RNG.standard_normal((900, 600)).astype(np.float32), np.resize([0.001, 0.02, 0.05, 0.2], 60).astype(np.float32)
    x = (t[:, None] * data[:60] + (1 - t)[:, None] * RNG.standard_normal((60, 600))).astype(np.float32)
    found, wanted = answered(data, x, t), exact.oracle(data, x, t)
    assert found.answered.all()
    is_exact(found, wanted, t)
    some = np.arange(1, 60, 2)
    apart = answered(data, x, t, rows=some).without_others()
    np.testing.assert_array_equal(np.flatnonzero(apart.answered), some)
    np.testing.assert_allclose(apart.velocity[some], found.velocity[some], rtol=1e-4, atol=1e-5)
    assert np.isnan(apart.velocity[::2]).all()


def test_a_copy_that_comes_first_is_named():
    """Of equal samples the caller's lowest index, also where the rows lie sorted by class."""
    data = KINDS["copies"]
    x, t = queries(data, 1)
    plain = answered(data, x, t)
    sorted_ = answered(data, x, t, labels=jnp.arange(700, dtype=jnp.int32) % 3)
    both = plain.answered & sorted_.answered
    assert both.sum() > 10
    np.testing.assert_array_equal(plain.top1_index[both] % 10, 0)
    np.testing.assert_array_equal(plain.top1_index[both], sorted_.top1_index[both])


@pytest.mark.parametrize(("one_core", "asked"), [(2**22, [0, 1, 2, -1]), (1, [0, 1, 2, -1]), (1, [0, 2])])
def test_classes_and_counts(one_core, asked, monkeypatch):
    """A query of a class sees that class alone, and a sample that counts twice is two; on one core, by classes, and on all of them."""
    monkeypatch.setattr("kernels.posterior.cpu.full_pass.TUNING", CpuTuning(one_core=one_core))
    data, labels = KINDS["floats"], np.sort(RNG.integers(0, 3, 700)).astype(np.int32)
    counts = RNG.integers(1, 4, 700)
    x, t = queries(data, 2)
    label = np.resize(asked, 21)
    found = answered(data, x, t, label, labels=jnp.asarray(labels), counts=jnp.asarray(counts, jnp.float32))
    assert found.answered[t < 0.3].all()
    for one in asked:
        mine = (label == one) & found.answered
        rows = np.repeat(data, counts, axis=0)[(np.repeat(labels, counts) == one) | (one < 0)]
        wanted = exact.oracle(rows, x[mine], t[mine])
        np.testing.assert_allclose(found.denoised[mine], wanted.denoised, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.log_density[mine], wanted.log_density, rtol=1e-5)


def test_near_duplicates_late_in_time_are_told_apart():
    """By float32's scores they weigh the same; as candidates they are weighed from differences."""
    data = np.repeat(KINDS["floats"], 2, axis=0) + 1e-6 * RNG.standard_normal((1400, 48))
    data = data.astype(np.float32)
    x = (0.999 * data[:16] + 0.001 * RNG.standard_normal((16, 48))).astype(np.float32)
    t = np.full(16, 0.999, np.float32)
    found, wanted = answered(data, x, t), exact.oracle(data, x, t)
    assert found.answered.all()
    error = np.linalg.norm(found.velocity - wanted.velocity, axis=1)
    assert (error <= 1e-5 * np.linalg.norm(wanted.velocity, axis=1)).all()
    np.testing.assert_allclose(found.top1_weight, wanted.top1_weight, rtol=1e-6)


def test_a_query_with_too_many_candidates_is_left_unanswered(monkeypatch):
    """In two clusters that lie far apart six hundred near-copies have a share each, and float32 cannot say which."""
    data = (RNG.standard_normal((1, 48)) + 1e-5 * RNG.standard_normal((600, 48))) * np.where(np.arange(600) % 2, 100, -100)[:, None]
    data = data.astype(np.float32)
    x, t = (0.99 * data[:4] + 0.01 * RNG.standard_normal((4, 48))).astype(np.float32), np.full(4, 0.99, np.float32)
    assert answered(data, x, t).answered.all()
    monkeypatch.setattr("kernels.posterior.cpu.full_pass.TUNING", CpuTuning(most_candidates=100, most_candidates_of_all=100))
    assert not answered(data, x, t).answered.any()
