"""The shift is the published one, and a grid of n steps has n steps."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from flowjax.analysis.decision_times import settled_at
from flowjax.analysis.sweep import draw_pairs, sweep
from flowjax.metrics.loss_by_t import LossByTimeMeter
from flowjax.metrics.waviness import waviness
from flowjax.oracle import Oracle
from flowjax.schedules import TimeDistribution, shift, shown_time, uniform_timesteps

shifts = st.floats(0.05, 20)


@pytest.mark.parametrize(("s", "share"), [(1.0, 0.22), (0.7, 0.28), (0.5, 0.34), (0.1, 0.72)])
def test_the_published_shares_of_early_steps_come_out(s: float, share: float) -> None:
    """arXiv 2512.02826, Table 2: of 50 steps, those evaluated at t <= 0.2."""
    evaluated = shift(uniform_timesteps(50)[:-1], s)
    assert np.mean(evaluated <= 0.2 + 1e-12) == pytest.approx(share)


@given(n=st.integers(1, 2000))
def test_n_steps_have_n_equal_steps_from_0_to_1(n: int) -> None:
    edges = uniform_timesteps(n)
    assert edges.shape == (n + 1,)
    assert (edges[0], edges[-1]) == (0.0, 1.0)
    np.testing.assert_allclose(np.diff(edges), 1 / n, rtol=1e-9)


@given(s=shifts, r=shifts)
def test_a_shift_keeps_the_ends_and_the_order_and_composes_by_product(s: float, r: float) -> None:
    t = uniform_timesteps(20)
    shifted = shift(t, s)
    assert (shifted[0], shifted[-1]) == (0.0, 1.0)
    assert (np.diff(shifted) > 0).all()
    assert ((shifted - t)[1:-1] * (s - 1) >= 0).all()  # s > 1 towards the data
    np.testing.assert_allclose(shift(shifted, r), shift(t, s * r), rtol=1e-9)


def test_numpy_stays_numpy_and_jax_can_be_traced() -> None:
    t = np.linspace(0, 1, 5, dtype=np.float32)
    assert isinstance(shift(t, 0.5), np.ndarray)
    assert shift(t, 0.5).dtype == np.float32
    traced = jax.jit(lambda t: shift(t, 0.5))(jnp.asarray(t))
    assert traced.dtype == jnp.float32
    np.testing.assert_allclose(traced, [0, 1 / 7, 1 / 3, 3 / 5, 1], rtol=1e-6)


@pytest.mark.parametrize("s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_shift_that_is_not_positive_is_refused(s: float) -> None:
    with pytest.raises(ValueError, match="s = "):
        shift(np.zeros(2), s)


@pytest.mark.parametrize("t", [-0.1, 1.1, float("nan")])
def test_a_time_outside_the_path_is_not_shifted(t: float) -> None:
    with pytest.raises(ValueError, match="entry 0 is"):
        shift(t, 0.5)
    with pytest.raises(ValueError, match="entry 1 is"):
        shift(np.array([0.5, t]), 0.5)


@pytest.mark.parametrize("setting", [{"mean": float("nan")}, {"std": float("inf")}, {"std": float("nan")}, {"t_min": float("nan")}])
def test_a_distribution_of_times_is_of_finite_numbers(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        TimeDistribution("logit_normal", **setting)


@pytest.mark.parametrize("bad", [[0.2, float("nan")], [0.2, 1.5], [-0.1, 0.5], []])
def test_functions_of_times_refuse_invalid_times(bad: list[float]) -> None:
    data = np.eye(3, dtype=np.float32)
    oracle, pairs, t = Oracle(data), draw_pairs(data, 2, 0), np.array(bad)
    for look in (
        lambda: sweep(oracle, pairs, t),
        lambda: LossByTimeMeter(oracle, pairs, t),
        lambda: waviness(t, np.ones((len(t), 2))),
        lambda: settled_at(t, np.ones((len(t), 2)), 0.5),
    ):
        with pytest.raises(ValueError, match=r"t = \["):
            look()


@pytest.mark.parametrize("n", [0, -3])
def test_a_grid_of_no_steps_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"n = {n}"):
        uniform_timesteps(n)


@pytest.mark.parametrize("t", [0.0, 1e-18, 1.23e-4, 0.0123, 0.5, 0.9, 0.99991, 1 - 2.0**-16, 1.0])
def test_a_time_in_words_is_told_from_either_end(t: float) -> None:
    assert float(shown_time(t)) == pytest.approx(t, rel=0.05)
    assert 1 - float(shown_time(t)) == pytest.approx(1 - t, rel=0.05, abs=1e-9)
    assert shown_time(0.31449) == "0.314"
    assert shown_time(None) == "none"
