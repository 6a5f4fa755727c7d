"""posterior(...): exact for any α and σ, whatever the dtype, the blocks, the order and the counts; and what it refuses."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.posterior import BlockSizes, Moments, posterior
from kernels.posterior.api import plan
from tests import float64_oracle as exact
from tests.kernels.posterior.small_problem import ALPHA, DATA, RNG, SIGMA, B, D, N, X

UNEVEN = BlockSizes(samples=7, queries=4)
LABELS = (np.arange(N) % 3).astype(np.int32)
ALL = np.full(B, -1, np.int32)


def ask(x: Any = X, alpha: Any = ALPHA, sigma: Any = SIGMA, data: Any = DATA, query_labels: Any = ALL, labels: Any = LABELS) -> Moments:
    """One compiled program for most tests: 11 queries in tiles of 4, 53 samples in blocks of 7."""
    return posterior(x, alpha, sigma, data, labels=labels, query_labels=query_labels, block_sizes=UNEVEN, implementation="streaming")


def check(out: Moments, data: np.ndarray, x: np.ndarray, alpha: np.ndarray, sigma: np.ndarray, prior: Any = None, label: Any = ALL) -> None:
    """Every moment of every query against float64 from differences."""
    for i in range(len(x)):
        keep = np.flatnonzero((LABELS[: len(data)] == label[i]) | (label[i] == -1))
        wanted = exact.posterior(np.asarray(data)[keep], x[i], alpha[i], sigma[i], None if prior is None else prior[keep])
        residual = np.linalg.norm(x[i] - alpha[i] * wanted["denoised"])
        np.testing.assert_allclose(out.denoised[i], wanted["denoised"], rtol=2e-7, atol=1e-5 * residual / alpha[i])
        if out.entropy is None:
            continue
        np.testing.assert_allclose(out.log_density[i], wanted["log_density"], rtol=1e-4)
        np.testing.assert_allclose(out.entropy[i], wanted["entropy"], atol=1e-4)
        np.testing.assert_allclose(out.top1_weight[i], wanted["top1_weight"], atol=1e-4)
        np.testing.assert_allclose(out.effective_samples[i], wanted["effective_samples"], rtol=2e-4)
        np.testing.assert_allclose(out.variance[i], wanted["variance"], rtol=1e-4, atol=1e-6 * residual**2)
        assert out.top1_index[i] == keep[wanted["top1_index"]]


@pytest.mark.slow
def test_every_moment_is_exact_for_any_alpha_and_sigma():
    """Uneven last blocks and query tiles, classes mixed in one batch."""
    label = np.resize([-1, 0, 1, 2], B).astype(np.int32)
    check(ask(query_labels=label), DATA, X, ALPHA, SIGMA, label=label)


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.bfloat16])
def test_narrow_dtypes_are_read_exactly(dtype):
    """uint8 and bfloat16 samples: the moments of the same values, near-equal ones included."""
    data = jnp.asarray(np.resize([0, 1, 2, 100, 254, 255, 128, 127, 17, 3, 66], (N, D))).astype(dtype)
    values = np.asarray(data.astype(jnp.float32))
    sigma = 3 * SIGMA
    x = (ALPHA[:, None] * values[:B] + sigma[:, None] * RNG.standard_normal((B, D))).astype(np.float32)
    check(posterior(x, ALPHA, sigma, data, moments="velocity"), values, x, ALPHA, sigma)


def test_one_sample():
    """N = 1: it is the posterior, whatever x; the log density is a Gaussian's; no spread, no entropy."""
    out = posterior(X, ALPHA, SIGMA, DATA[:1])
    np.testing.assert_allclose(out.denoised, np.repeat(DATA[:1], B, 0), rtol=1e-7)
    np.testing.assert_array_equal(out.top1_index, 0)
    np.testing.assert_array_equal(out.top1_weight, 1)
    np.testing.assert_array_equal(out.effective_samples, 1)
    for name in ("entropy", "variance", "error_bound"):
        np.testing.assert_array_equal(getattr(out, name), 0)
    check(out, DATA[:1], X, ALPHA, SIGMA)


def test_counts_are_repeated_samples():
    """A sample that counts three times is three copies: the same moments, but weights are those of all its copies together."""
    data, counts = DATA[:9], np.array([1, 3, 2, 1, 1, 5, 1, 1, 4])
    out = posterior(X, ALPHA, SIGMA, data, counts=counts)
    check(out, data, X, ALPHA, SIGMA, prior=counts)
    repeated = np.repeat(data, counts, axis=0)
    for i in range(B):
        wanted = exact.posterior(repeated, X[i], ALPHA[i], SIGMA[i])
        np.testing.assert_allclose(out.log_density[i], wanted["log_density"], rtol=1e-4)
        np.testing.assert_allclose(out.variance[i], wanted["variance"], rtol=1e-4, atol=1e-8)


@pytest.mark.slow
def test_at_sigma_0_the_nearest_sample_takes_all():
    """And equal ones share: copies, and samples at the same distance; within a class its own nearest."""
    data = DATA.copy()
    data[[5, 20, 40]] = 7.0  # copies, of classes 2, 2, 1
    data[30], data[31] = -9.0, -11.0  # equally far from -10
    x = np.stack([data[5], np.full(D, -10, np.float32), data[3], data[3] + np.float32(1e-3), data[5], *X[:6]])
    label = np.array([-1, -1, -1, -1, 1, *[-1] * 6], np.int32)
    out = ask(x, np.ones(B, np.float32), np.zeros(B, np.float32), data, label)
    np.testing.assert_array_equal(out.top1_index[:5], [5, 30, 3, 3, 40])
    np.testing.assert_allclose(out.top1_weight[:5], [1 / 3, 1 / 2, 1, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(out.entropy[:5], [np.log(3), np.log(2), 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(out.effective_samples[:5], [3, 2, 1, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(out.variance[:5], [0, D, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(out.denoised[:5], [data[5], np.full(D, -10), data[3], data[3], data[5]], rtol=1e-6)
    np.testing.assert_array_equal(out.log_density[:5], [np.inf, -np.inf, np.inf, -np.inf, np.inf])
    distance = np.square(X[:6, None].astype(np.float64) - data).sum(-1)
    np.testing.assert_array_equal(out.top1_index[5:], distance.argmin(1))


def test_rows_without_an_answer_are_nan_and_leave_the_others_alone():
    """NaN in a query, and a class without samples; index -1."""
    x, label = X.copy(), ALL.copy()
    x[2, 1], label[6] = np.nan, 9
    out = ask(x, query_labels=label)
    good = np.setdiff1d(np.arange(B), [2, 6])
    for field in dataclasses.fields(Moments):
        value = np.asarray(getattr(out, field.name), np.float64)
        if field.name == "top1_index":
            np.testing.assert_array_equal(value[[2, 6]], -1)
        else:
            assert np.isnan(value[[2, 6]]).all()
        assert np.isfinite(value[good]).all()
    check(jax.tree.map(lambda v: v[good], out), DATA, X[good], ALPHA[good], SIGMA[good])


def test_order_of_the_samples_does_not_matter():
    """A permutation permutes the index; every moment is still exact."""
    order = np.random.default_rng(3).permutation(N)
    out = ask(data=DATA[order])
    check(out, DATA[order], X, ALPHA, SIGMA)
    np.testing.assert_array_equal(order[np.asarray(out.top1_index)], ask().top1_index)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["high", "default"])
def test_lower_precision_on_cpu_leaves_out_only_the_recomputing(precision):
    """Matmuls on CPU are float32 all the same: here no query needs more."""
    sigma = np.maximum(SIGMA, 0.05)
    check(posterior(X, ALPHA, sigma, DATA, precision=precision), DATA, X, ALPHA, sigma)


@pytest.mark.parametrize(("shape", "data"), [((1, 1), (2, 1)), ((3, 2), (17, 2))])
def test_few_dimensions_and_few_samples(shape, data):
    """D = 1 and 2, N = 2 and 17: one more than the candidates."""
    rng = np.random.default_rng(5)
    values, x = rng.standard_normal(data).astype(np.float32), rng.standard_normal(shape).astype(np.float32)
    alpha, sigma = np.full(shape[0], 0.6, np.float32), np.full(shape[0], 0.4, np.float32)
    check(posterior(x, alpha, sigma, values, moments="velocity"), values, x, alpha, sigma)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"queries": X[0]}, r"queries must be \[B, D\] and data \[N, D\]; got queries \(5,\) and data \(53, 5\)"),
        ({"queries": X[:, :3]}, r"got queries \(11, 3\) and data \(53, 5\)"),
        ({"data": DATA[None]}, r"data \(1, 53, 5\)"),
        ({"data": np.zeros((0, D))}, r"data must hold at least one sample.*\(0, 5\)"),
        ({"data": np.where(np.arange(N)[:, None] == 4, np.inf, DATA)}, "data has NaN or infinity in 1 of 53 samples, the first at index 4"),
        ({"alpha": ALPHA[:2]}, r"alpha must be a scalar or of shape \(11,\), got shape \(2,\)"),
        ({"sigma": SIGMA[:, None]}, r"sigma must be a scalar or of shape \(11,\), got shape \(11, 1\)"),
        ({"labels": LABELS[:4]}, r"labels must be a scalar or of shape \(53,\)"),
        ({"counts": np.ones(3)}, r"counts must be a scalar or of shape \(53,\)"),
        ({"query_labels": ALL}, "query_labels were given, but data without labels"),
        ({"labels": LABELS, "query_labels": ALL[:3]}, r"query_labels must be a scalar or of shape \(11,\)"),
    ],
)
def test_wrong_shapes_are_named(arguments, message):
    """ValueError with the argument and the shape."""
    right = {"queries": X, "alpha": ALPHA, "sigma": SIGMA, "data": DATA}
    with pytest.raises(ValueError, match=message):
        posterior(**(right | arguments))


def test_unknown_choices_are_named():
    """ValueError with the choices; NotImplementedError for an implementation that is not there."""
    with pytest.raises(ValueError, match="precision must be one of highest, high, default; got 'exact'"):
        plan("all", None, None, "exact")
    with pytest.raises(ValueError, match="moments must be 'all' or 'velocity', got 'variance'"):
        plan("variance", None, None, "highest")
    with pytest.raises(NotImplementedError, match="implementation 'pallas' is not available here; have: streaming"):
        posterior(X, ALPHA, SIGMA, DATA, implementation="pallas")
