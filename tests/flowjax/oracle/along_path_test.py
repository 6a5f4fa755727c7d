"""Whole paths at once: each output at each time against float64, on every kind of oracle."""

import jax
import numpy as np
import pytest

from flowjax.oracle import Oracle
from flowjax.oracle.along_path import PathOutput
from flowjax.path import Cosine, RectifiedFlow, VariancePreserving
from tests import float64_oracle as exact

RNG = np.random.default_rng(0)
N, D, B = 600, 24, 12
IMAGES = (RNG.integers(0, 256, (N, D)) / 127.5 - 1).astype(np.float32)
NEAR = (np.repeat(IMAGES[:60], 10, axis=0) + 1e-4 * RNG.standard_normal((N, D))).astype(np.float32)
LABELS = (np.arange(N) % 3).astype(np.int32)
X_0 = RNG.standard_normal((B, D)).astype(np.float32)
T = np.array([0.9, 0.001, 0.2, 0.35, 0.5, 0.7, 0.99, 0.999], np.float32)  # in no order
PATHS = {exact.RECTIFIED: RectifiedFlow(), exact.COSINE: Cosine(), exact.VP: VariancePreserving()}


def agrees(
    out: PathOutput, data: np.ndarray, x_1: np.ndarray, t: np.ndarray, name: str, label: np.ndarray | None, *, loose: float = 1
) -> None:
    """To the tolerances that are promised of the oracle."""
    for k, time in enumerate(t):
        c = exact.coefficients(name, time)
        x = c.alpha * x_1.astype(np.float64) + c.sigma * X_0.astype(np.float64)
        want = exact.oracle(data, x, time, name, labels=LABELS, label=label)
        of_pair = c.A**2 * np.sum((x_1 - want.denoised) ** 2, axis=1)
        np.testing.assert_allclose(out.top1_weight[k], want.top1_weight, atol=1e-4 * loose)
        np.testing.assert_allclose(out.entropy[k], want.entropy, atol=1e-4 * loose)
        np.testing.assert_allclose(out.effective_samples[k], want.effective_samples, rtol=2e-4 * loose)
        np.testing.assert_allclose(out.log_density[k], want.log_density, rtol=1e-4 * loose)
        clear = want.top1_weight > want.runner_up * (1 + 1e-3)
        np.testing.assert_array_equal(np.asarray(out.top1_index[k])[clear], want.top1_index[clear])
        if out.cfm_gap is not None and out.monte_carlo_gap is not None:
            most = np.maximum(1e-4 * want.cfm_gap, 1e-6 * want.conditional_square) * loose
            assert (np.abs(out.cfm_gap[k] - want.cfm_gap) <= most).all()
            most = np.maximum(1e-4 * of_pair, 1e-6 * (want.conditional_square + of_pair)) * loose
            assert (np.abs(out.monte_carlo_gap[k] - of_pair) <= most).all()


@pytest.mark.parametrize("name", exact.NAMES)
@pytest.mark.parametrize("data", [IMAGES, NEAR, IMAGES + 1000], ids=["images", "near-copies", "far from the origin"])
def test_a_path_is_what_its_points_are(name: str, data: np.ndarray) -> None:
    """From the samples themselves and from held-out points; of all samples and of one class, in one call."""
    x_1 = np.concatenate([data[: B // 2], data[B // 2 : B] + np.float32(0.1)])
    label = np.resize([-1, 0, 1], B).astype(np.int32)
    oracle = Oracle(data, LABELS, path=PATHS[name])
    out = oracle.along_path(X_0, x_1, T, label)
    agrees(out, data, x_1, T, name, label)
    alone = oracle.along_path(X_0, x_1, T, label, gap=False)
    assert alone.cfm_gap is None
    assert alone.monte_carlo_gap is None
    np.testing.assert_allclose(alone.top1_weight, out.top1_weight, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "t"), [(1e18, 3e-19), (1e18, 0.5), (1e-18, 0.5)])
def test_data_of_any_size_are_taken_in_their_own_unit(scale: float, t: float) -> None:
    data, time = IMAGES * np.float32(scale), np.float32([t])
    out = Oracle(data).along_path(X_0, data[:B], time)
    x = np.float64(time) * data[:B].astype(np.float64) + (1 - np.float64(time)) * X_0
    want = exact.oracle(data, x, time[0])
    np.testing.assert_allclose(out.top1_weight[0], want.top1_weight, atol=1e-4)
    np.testing.assert_allclose(out.entropy[0], want.entropy, atol=1e-4)
    if scale * t < 1e3:  # beyond it float64 loses x_0 in x_t, there and here
        np.testing.assert_allclose(out.log_density[0], want.log_density, rtol=1e-4)


def test_both_ends() -> None:
    """At t = 0 all samples weigh the same, and the first is named; at t = 1 the path is at its own sample."""
    out = Oracle(IMAGES).along_path(X_0, IMAGES[:B], np.float32([0, 1]))
    np.testing.assert_allclose(out.top1_weight, [np.full(B, 1 / N), np.ones(B)], rtol=1e-5)
    np.testing.assert_array_equal(out.top1_index, [np.zeros(B), np.arange(B)])
    np.testing.assert_allclose(out.cfm_gap[0], IMAGES.var(axis=0).sum(), rtol=1e-5)  # type: ignore[index]
    np.testing.assert_array_equal(out.monte_carlo_gap[1], 0)  # type: ignore[index]


@pytest.mark.slow
def test_over_a_mesh() -> None:
    mesh = jax.make_mesh((2, 1), ("samples", "queries"), devices=jax.devices()[:2])
    oracle, t = Oracle(IMAGES, LABELS, mesh=mesh, precision="high"), np.float32([0.2, 0.5, 0.9])
    label = np.resize([-1, 0, 1], B).astype(np.int32)
    agrees(oracle.along_path(X_0, IMAGES[:B], t, label), IMAGES, IMAGES[:B], t, exact.RECTIFIED, label, loose=4)
    assert oracle.times_together == 1


@pytest.mark.parametrize("name", exact.NAMES)
def test_over_a_mesh_by_two_products(name: str) -> None:
    """Without the gaps no time is evaluated by itself; near-copies are told apart, and every shard names the caller's index."""
    mesh = jax.make_mesh((2, 1), ("samples", "queries"), devices=jax.devices()[:2])
    label = np.resize([-1, 0, 1], B).astype(np.int32)
    oracle = Oracle(NEAR, LABELS, mesh=mesh, path=PATHS[name])
    agrees(oracle.along_path(X_0, NEAR[:B], T, label, gap=False), NEAR, NEAR[:B], T, name, label)


@pytest.mark.parametrize("data", [IMAGES, NEAR, (IMAGES * 127.5 + 128).astype(np.uint8)], ids=["images", "near-copies", "uint8"])
def test_from_disk(data: np.ndarray) -> None:
    """Data that are read in several chunks, for several groups of paths; shifted ones too."""
    oracle = Oracle.from_source(data, LABELS, budget=2_000_000)
    label = np.resize([-1, 0, 1], B).astype(np.int32)
    scaled = np.asarray(data, np.float32)
    agrees(oracle.along_path(X_0, scaled[:B], T, label), scaled, scaled[:B], T, exact.RECTIFIED, label)
    agrees(oracle.along_path(X_0, scaled[:B], T, gap=False), scaled, scaled[:B], T, exact.RECTIFIED, None)


@pytest.mark.slow
def test_under_jit() -> None:
    """The oracle and the times as arguments."""
    oracle, t = Oracle(IMAGES, precision="high"), np.float32([0.2, 0.5, 0.9])
    out = jax.jit(lambda o, a, b, t: o.along_path(a, b, t))(oracle, X_0, IMAGES[:B], t)
    agrees(out, IMAGES, IMAGES[:B], t, exact.RECTIFIED, None, loose=4)


def test_counts_at_the_start() -> None:
    """At t = 0 the prior alone decides, whichever samples are candidates at the times beside it."""
    counts = np.where(np.arange(N) % 7 == 3, 3, 1)
    oracle = Oracle(IMAGES, counts=counts)
    out = oracle.along_path(X_0, IMAGES[:B], np.float32([0, 0.3]), gap=False)
    np.testing.assert_allclose(out.top1_weight[0], np.full(B, 3 / counts.sum()), rtol=1e-5)
    np.testing.assert_array_equal(out.top1_index[0], np.full(B, 3))
    want = [oracle(0.3 * IMAGES[:B] + 0.7 * X_0, 0.3).top1_weight, oracle(X_0, 0.0).top1_weight]
    np.testing.assert_allclose(out.top1_weight[::-1], want, rtol=1e-4)


def test_no_pairs_and_no_times() -> None:
    oracle = Oracle(IMAGES)
    assert oracle.along_path(X_0[:0], IMAGES[:0], T).entropy.shape == (len(T), 0)
    assert oracle.along_path(X_0, IMAGES[:B], T[:0]).cfm_gap.shape == (0, B)  # type: ignore[union-attr]
    assert oracle.along_path(X_0, IMAGES[:B], 0.5).top1_index.shape == (1, B)


def test_what_does_not_fit_is_named() -> None:
    oracle = Oracle(IMAGES)
    with pytest.raises(ValueError, match=r"x_0 and x_1 must have one shape, got \(12, 24\) and \(11, 24\)"):
        oracle.along_path(X_0, IMAGES[: B - 1], T)
    with pytest.raises(ValueError, match=r"t must lie in \[0, 1\], got 1.5"):
        oracle.along_path(X_0, IMAGES[:B], np.float32([0.5, 1.5]))
    with pytest.raises(ValueError, match="t must be a scalar or a vector"):
        oracle.along_path(X_0, IMAGES[:B], np.zeros((2, 2)))
    with pytest.raises(ValueError, match="the oracle has no labels"):
        oracle.along_path(X_0, IMAGES[:B], T, 3)
