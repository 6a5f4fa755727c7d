"""The three paths against their formulas in NumPy float64, to float32's own precision, at both ends too."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.path import Cosine, Path, RectifiedFlow, VariancePreserving, as_time, expand_like, path_by_name
from tests import float64_oracle as exact

CASES = [(RectifiedFlow(), exact.RECTIFIED), (Cosine(), exact.COSINE), (VariancePreserving(), exact.VP)]
TIMES = np.array([0, 1e-6, 0.001, 0.01, *np.arange(1, 10) / 10, 0.99, 0.999, 0.9999, 1], np.float32)
INSIDE = TIMES[(TIMES > 0) & (TIMES < 1)]
FUNCTIONS = ("alpha", "sigma", "alpha_dot", "sigma_dot")
cases = pytest.mark.parametrize(("path", "name"), CASES, ids=[name for _, name in CASES])
EPS = float(np.finfo(np.float32).eps)


@cases
@pytest.mark.parametrize("function", FUNCTIONS)
def test_coefficients_keep_float32_precision_at_every_t(path, name, function):
    """α, σ, α', σ' are right to a few units in the last place of float32, relative to themselves, from t = 0 to t = 1."""
    found = getattr(path, function)(TIMES)
    wanted = np.array([getattr(exact.coefficients(name, t), function) for t in TIMES])
    assert found.dtype == jnp.float32
    # VP's exponent reaches 10, and its slope 20: half a unit in the last place of 1 - t is worth twenty of the result.
    np.testing.assert_allclose(found, wanted, rtol=24 * EPS if name == exact.VP else 3 * EPS, atol=0)


@cases
def test_log_snr_and_the_two_rates_keep_float32_precision(path, name):
    """log SNR, A = α' - ασ'/σ and B = σ'/σ, where σ is not 0."""
    wanted = [exact.coefficients(name, t) for t in INSIDE]
    log_snr = [2 * math.log(c.alpha / c.sigma) for c in wanted]
    np.testing.assert_allclose(path.log_snr(INSIDE), log_snr, rtol=4 * EPS, atol=24 * EPS)
    np.testing.assert_allclose(path.A(INSIDE), [c.A for c in wanted], rtol=20 * EPS)
    np.testing.assert_allclose(path.B(INSIDE), [c.B for c in wanted], rtol=20 * EPS)


@cases
def test_float64_times_give_float64_coefficients(path, name):
    """The dtype of t decides, so that callers in float64 lose nothing."""
    t = np.linspace(0.001, 0.999, 57)
    with jax.enable_x64(True):
        for function in FUNCTIONS:
            found = getattr(path, function)(jnp.asarray(t))
            assert found.dtype == jnp.float64
            np.testing.assert_allclose(found, [getattr(exact.coefficients(name, v), function) for v in t], rtol=1e-13)


@cases
def test_dots_are_the_time_derivatives(path, name):
    """α' and σ' against central differences of the float64 formulas, and against automatic differentiation."""
    t, h = np.linspace(0.02, 0.98, 25), 1e-6
    for value, slope in (("alpha", "alpha_dot"), ("sigma", "sigma_dot")):
        ends = [[getattr(exact.coefficients(name, v + side), value) for v in t] for side in (-h, h)]
        difference = (np.array(ends[1]) - np.array(ends[0])) / (2 * h)
        found = getattr(path, slope)(t.astype(np.float32))
        np.testing.assert_allclose(found, difference, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(found, jax.vmap(jax.grad(getattr(path, value)))(jnp.asarray(t, jnp.float32)), rtol=3e-5, atol=1e-6)


@cases
def test_time_of_log_snr_inverts_log_snr(path, name):
    """t → log SNR → t, in float32 as well as a log SNR can say, and never outside [0, 1]."""
    t = np.linspace(0.01, 0.99, 49).astype(np.float32)
    log_snr = np.array([2 * math.log(exact.coefficients(name, v).alpha / exact.coefficients(name, v).sigma) for v in t])
    np.testing.assert_allclose(path.time_of_log_snr(log_snr.astype(np.float32)), t, atol=3e-6)
    beyond = path.time_of_log_snr(np.array([-200, -80, 80, 200, -np.inf, np.inf], np.float32))
    np.testing.assert_allclose(beyond, [0, 0, 1, 1, 0, 1], atol=1e-6)


@cases
def test_coefficients_at_both_ends(path, name):
    """t = 1 is data, exactly; t = 0 is noise: σ = 1, and α = 0 but for VP."""
    assert float(path.alpha(1.0)) == 1
    assert float(path.sigma(1.0)) == 0
    assert float(path.log_snr(1.0)) == np.inf
    if name == exact.VP:
        assert 0 < float(path.alpha(0.0)) < 0.01
        assert path.t_max == pytest.approx(0.999)
    else:
        assert float(path.alpha(0.0)) == 0
        assert float(path.log_snr(0.0)) == -np.inf
        assert path.t_max == 1
    assert float(path.sigma(0.0)) == pytest.approx(1, abs=3e-5)


@cases
def test_velocity_scale_at_a_sample_is_the_limit(path, name):
    """κ = lim α' + σ'(1 - α)/σ, approached from the float64 formulas."""
    c = exact.coefficients(name, 1 - 1e-7)
    assert path.velocity_scale_at_sample == pytest.approx(c.alpha_dot + c.sigma_dot * (1 - c.alpha) / c.sigma, abs=1e-5)


@cases
def test_snr_only_rises(path, name):
    """Noise goes and data comes, all the way."""
    log_snr = np.asarray(path.log_snr(np.linspace(0, 1, 201, dtype=np.float32)))
    assert (np.diff(log_snr) > 0).all()


@cases
@pytest.mark.parametrize("batched", [False, True])
def test_interpolant_and_its_velocity(path, name, batched):
    """x_t = α x_1 + σ x_0, and the conditional velocity is its derivative in t, for a scalar and a batch of times."""
    rng = np.random.default_rng(0)
    x_0, x_1 = jnp.asarray(rng.standard_normal((2, 4, 3, 2)), jnp.float32)
    t = np.array([0.1, 0.4, 0.7, 0.95], np.float32) if batched else np.float32(0.3)

    def at(shift: float, kind: tuple[str, str]) -> np.ndarray:
        cs = [exact.coefficients(name, float(v) + shift) for v in np.broadcast_to(t, 4)]
        a, s = (np.array([getattr(c, k) for c in cs])[:, None, None] for k in kind)
        return a * np.asarray(x_1, np.float64) + s * np.asarray(x_0, np.float64)

    np.testing.assert_allclose(path.interpolate(x_0, x_1, t), at(0, ("alpha", "sigma")), rtol=2e-6, atol=2e-6)
    derivative = (at(1e-6, ("alpha", "sigma")) - at(-1e-6, ("alpha", "sigma"))) / 2e-6
    np.testing.assert_allclose(path.conditional_velocity(x_0, x_1, t), derivative, rtol=2e-5, atol=2e-5)


def test_rectified_flow_has_the_straight_velocity():
    """x_1 - x_0, at every t, both ends included."""
    x_0, x_1 = jnp.asarray(np.random.default_rng(1).standard_normal((2, 3, 5)), jnp.float32)
    np.testing.assert_array_equal(RectifiedFlow().conditional_velocity(x_0, x_1, np.array([0, 0.5, 1], np.float32)), x_1 - x_0)


@pytest.mark.parametrize("path", [RectifiedFlow(), Cosine(), VariancePreserving()], ids=str)
def test_coefficients_have_the_dtype_of_t(path):
    """Integers become float32; samples keep their dtype, bfloat16 included, whatever t's."""
    assert as_time(1).dtype == as_time(True).dtype == jnp.float32
    assert path.alpha(0).dtype == jnp.float32
    x = jnp.ones((2, 3), jnp.bfloat16)
    assert path.interpolate(x, x, 0.5).dtype == jnp.bfloat16
    assert path.conditional_velocity(x, x, jnp.full(2, 0.5)).dtype == jnp.bfloat16


def test_expand_like_adds_trailing_axes():
    """A scalar stays one; `[B]` becomes `[B, 1, ..., 1]`."""
    x = jnp.zeros((2, 3, 4))
    assert expand_like(jnp.float32(1), x).shape == ()
    assert expand_like(jnp.zeros(2), x).shape == (2, 1, 1)


def test_paths_are_values():
    """Equal paths are one static argument of jit; they cannot be changed under it."""
    assert RectifiedFlow() == RectifiedFlow() != Cosine()
    assert len({VariancePreserving(), VariancePreserving(), VariancePreserving(beta_max=10.0)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        VariancePreserving().beta_max = 1.0
    with pytest.raises(TypeError):
        Path()


def test_vp_takes_other_betas():
    """The schedule's two numbers are the caller's: α = exp(-½ ∫β)."""
    path = VariancePreserving(beta_min=0.5, beta_max=8.0)
    s = 1 - 0.3
    assert float(path.alpha(0.3)) == pytest.approx(math.exp(-(0.5 * s + 7.5 * s**2 / 2) / 2), rel=1e-6)
    assert path.velocity_scale_at_sample == pytest.approx(0.125)


def test_paths_by_name():
    """What a configuration may name; anything else is refused with the names."""
    assert path_by_name("cosine") == Cosine()
    with pytest.raises(ValueError, match="unknown path 'linear'; there are rectified_flow, cosine, variance_preserving"):
        path_by_name("linear")
