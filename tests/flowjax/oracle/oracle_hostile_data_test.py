"""Data sets and queries on which an oracle was wrong once: on every kind of oracle each output keeps the promised tolerances.

`python -m tests.fuzz` draws such data at random; what it found stands here.
"""

import warnings
from typing import Any

import jax
import numpy as np
import pytest

from flowjax.oracle import Oracle, OracleOutput
from flowjax.path import RectifiedFlow
from kernels.posterior import posterior
from tests import float64_oracle as exact
from tests import tolerances
from tests.fuzz import PATHS, on_kind, run

KINDS = ("memory", "pruned", "mesh", "disk")
COMPILED = ("mesh", "disk")
"""Where a program is compiled for each dtype, with a unit and without, with labels and without."""
each_kind = pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in COMPILED)) for kind in KINDS])
N, D, B = 2000, 4, 32
"""One shape for most tests, and with it few programs to compile."""
TIMES = np.resize(np.float32([0.001, 0.05, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 0.99, 0.999]), B)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def clusters(values: int, copies: int, d: int, spread: float) -> np.ndarray:
    """A few values with many near-copies each."""
    y = rng().standard_normal((values, 1, d)) + spread * rng().standard_normal((values, copies, d))
    return y.reshape(-1, d).astype(np.float32)


def ties() -> np.ndarray:
    """One-hot rows, each several times, in random order."""
    return np.repeat(np.eye(D, dtype=np.float32), N // D, axis=0)[rng().permutation(N)]


def sparse_bytes() -> np.ndarray:
    """Most of them 0, with copies."""
    rows = (rng().integers(0, 256, (N // 3, D)) * (rng().uniform(size=(N // 3, D)) < 0.3)).astype(np.uint8)
    return rows[rng().integers(N // 3, size=N)]


SETS = {
    "ten values with near-copies": clusters(10, N // 10, D, 1e-4),
    "near-duplicates 1e-7 apart": clusters(1, N, D, 1e-7),
    "near-duplicates 1e-5 apart": clusters(1, N, D, 1e-5),
    "copies": ties(),
    "sparse bytes": sparse_bytes(),
    "equal samples": np.full((N, D), 0.37, np.float32),
}

HARDEST = ("near-duplicates 1e-7 apart", "sparse bytes")
"""Sets, one of each dtype, that CI gives to compiled programs too. The other sets are given to them by hand: `make test-long`."""


def queries(data: np.ndarray, name: str = exact.RECTIFIED, unit: float = 1.0) -> np.ndarray:
    """Noisy samples, with every eighth query far away and every eighth at a sample."""
    c = [exact.coefficients(name, v) for v in TIMES]
    alpha, sigma = (np.array([getattr(v, key) for v in c])[:, None] for key in ("alpha", "sigma"))
    own = data[rng().integers(len(data), size=B)].astype(np.float64)
    x = alpha * own + unit * sigma * rng().standard_normal(own.shape)
    x[1::8] = 1e6 * np.abs(data.astype(np.float64)).max() * rng().standard_normal(x[1::8].shape)
    x[2::8] = (alpha * own)[2::8]
    return x.astype(np.float32)


def check(found: OracleOutput, data: np.ndarray, x: np.ndarray, name: str = exact.RECTIFIED, **labels: Any) -> None:
    for key, error in tolerances.errors(found, exact.oracle(data, x, TIMES, name, **labels), x, TIMES, name).items():
        assert error.max() <= 1, f"{key}: {error.max():.3g} times what is allowed, query {error.argmax()}, t = {TIMES[error.argmax()]}"


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        pytest.param(key, kind, marks=[pytest.mark.slow if key in HARDEST else pytest.mark.long] * (kind in COMPILED))
        for key in SETS
        for kind in KINDS
    ],
)
def test_near_copies_ties_and_far_queries(key, kind):
    """Near-copies of few numbers; the lowest index of equals, more of them than candidates; all equal scores, however large."""
    data = SETS[key]
    x = queries(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = on_kind(kind, data, None, RectifiedFlow())(x, TIMES)
    check(found, data, x)


@pytest.mark.parametrize("name", [exact.COSINE, exact.VP])
def test_ties_on_other_paths(name):
    for kind in ("memory", "pruned"):
        x = queries(SETS["copies"], name)
        check(on_kind(kind, SETS["copies"], None, PATHS[name])(x, TIMES), SETS["copies"], x, name)


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.long] * (kind in COMPILED)) for kind in KINDS])
def test_equal_samples_of_several_classes(kind):
    """Copies lie in all classes: with and without a label, at t = 0 too, the lowest index of those that count is named."""
    data, labels = SETS["copies"], (np.arange(N) * 7 % 5).astype(np.int32)
    label = np.resize([-1, 0, 3], B).astype(np.int32)
    x = queries(data)
    oracle = on_kind(kind, data, labels, RectifiedFlow())
    check(oracle(x, TIMES, label), data, x, labels=labels, label=label)
    start = oracle(x, 0.0, label)
    np.testing.assert_array_equal(start.top1_index[:3], [0, 0, np.flatnonzero(labels == 3)[0]])


@pytest.mark.parametrize(
    ("scale", "kind"),
    [
        *((scale, kind) for scale in (1e-18, 1e18) for kind in KINDS if kind not in COMPILED),
        *(pytest.param(1e18, kind, marks=pytest.mark.slow) for kind in COMPILED),
        *(pytest.param(1e-18, kind, marks=pytest.mark.long) for kind in COMPILED),
    ],
)
def test_data_of_any_size(scale, kind):
    """c · data with queries of their own size and noise of size 1: what float32 squares would lose."""
    data = (scale * rng().standard_normal((N, D))).astype(np.float32)
    x = queries(data)
    oracle = on_kind(kind, data, None, RectifiedFlow())
    check(oracle(x, TIMES), data, x)
    if kind != "disk":
        np.testing.assert_array_equal(oracle.data, data)


@pytest.mark.parametrize("seed", [147, 900103, 900105, 910069, 910136])
def test_rounds_of_fuzz_that_failed(seed):
    """Results and directions beyond float32, many weights that are small beside their sum, queries at a sample, copies that round alike."""
    assert not run(seed)[1]


@pytest.mark.parametrize("scale", [2.0**-40, 2.0**50])
def test_the_posterior_is_the_same_in_any_unit(scale):
    """c · data, c · x, c · σ: weights to the bit where c is a power of two, moments c and c² times as large."""
    data = rng().standard_normal((N, D)).astype(np.float32)
    x = queries(data)
    alpha, sigma, c = TIMES, 1 - TIMES, np.float32(scale)
    plain, scaled = posterior(x, alpha, sigma, data), posterior(c * x, alpha, c * sigma, c * data)
    np.testing.assert_allclose(scaled.denoised / c, plain.denoised, rtol=2e-7, atol=1e-7)
    np.testing.assert_allclose(scaled.entropy, plain.entropy, atol=1e-6)
    np.testing.assert_allclose(scaled.variance / np.float64(c) ** 2, plain.variance, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(scaled.log_density + D * np.log(scale), plain.log_density, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(scaled.top1_index, plain.top1_index)


@pytest.mark.slow
def test_jvp_of_near_copies_is_exact():
    """The covariance of more near-copies than candidates, a thousandth of the noise apart, late in time."""
    data = clusters(3, 40, 4, 1e-3)
    x = queries(data)[3::8]
    t, v = TIMES[3::8], rng().standard_normal(x.shape).astype(np.float32)
    found = Oracle(data).jvp(x, t, v)
    step = 1e-5
    for i in range(len(x)):
        plus, minus = (exact.velocity(data, x[i] + s * step * (1 - t[i]) * v[i].astype(np.float64), t[i]) for s in (1, -1))
        wanted = (plus - minus) / (2 * step * (1 - t[i]))
        np.testing.assert_allclose(found[i], wanted, rtol=1e-3, atol=1e-3 * np.linalg.norm(wanted))


def test_a_source_of_any_size_is_read_in_its_own_unit(tmp_path):
    """From a file: rows are divided as they are read, and the file is as it was."""
    data = (1e15 * rng().standard_normal((N, D))).astype(np.float32)
    np.save(tmp_path / "large.npy", data)
    x = queries(data)
    check(Oracle.from_source(np.load(tmp_path / "large.npy", mmap_mode="r"))(x, TIMES), data, x)
    np.testing.assert_array_equal(np.load(tmp_path / "large.npy"), data)


def test_the_mesh_keeps_data_of_any_size_in_its_unit():
    """The unit is agreed on over all shards, and what is given back is what was given."""
    data = (1e-12 * rng().standard_normal((N, D))).astype(np.float32)
    mesh = jax.make_mesh((4, 2), ("samples", "queries"), devices=jax.devices()[:8])
    np.testing.assert_array_equal(Oracle(data, mesh=mesh).unique().data, data)
