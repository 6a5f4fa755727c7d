"""Hybrids: the oracle first, then the model; and which samples are copies of the training set."""

import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.analysis.hybrid import Hybrid, Steps, checked_switches, hybrid_samples, memorized
from flowjax.fields import OracleField
from flowjax.oracle import Oracle
from flowjax.sampling import HEUN, noise, sample, states
from flowjax.schedules import uniform_timesteps
from tests.flowjax.growth import Growth

MODEL = Growth(jnp.float32(0.2))


@pytest.mark.long
def test_hybrids_follow_the_oracle_first_and_end_in_the_training_set_without_a_model(digits: tuple[np.ndarray, np.ndarray]) -> None:
    oracle, x_0, t = OracleField(Oracle(digits[0][:60], precision="high")), noise(5, (8, 8, 1), 0), uniform_timesteps(10)
    found = hybrid_samples(oracle, MODEL, x_0, Steps(t, np.array([0.0, 0.5])))
    edges = jnp.asarray(t, jnp.float32)
    np.testing.assert_allclose(found.samples[0], sample(MODEL, x_0, edges), rtol=1e-5)
    followed = states(oracle, x_0, edges)
    np.testing.assert_allclose(found.samples[1], sample(MODEL, followed[5], edges[5:]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.ends, followed[-1], rtol=1e-4, atol=1e-5)
    heun = hybrid_samples(MODEL, MODEL, x_0, Steps(t, np.array([0.3])), solver=HEUN)  # of one field, both parts are one run
    np.testing.assert_allclose(heun.samples[0], sample(MODEL, x_0, edges, solver=HEUN), rtol=1e-4, atol=1e-5)
    seen = memorized(found, digits[0][:60], digits[0][100:160])
    rows = digits[0][seen.own_row]
    unit = np.sqrt(((digits[0][100:160, None] - digits[0][None, :60]) ** 2).sum((2, 3, 4))).min(1).mean()
    np.testing.assert_allclose(seen.own[1], np.sqrt(((found.samples[1] - rows) ** 2).sum((1, 2, 3))) / unit, rtol=1e-5)


def test_what_is_the_training_set_is_copied_and_what_is_held_out_is_not(digits: tuple[np.ndarray, np.ndarray]) -> None:
    samples = np.stack([digits[0][500:540], digits[0][:40] + np.float32(1e-3)])
    seen = memorized(Hybrid(np.array([0.0, 1.0]), samples, samples[1]), digits[0][:400], digits[0][600:900])
    assert [part.value for part in seen.shares()] == [0, 1]
    assert seen.nearest[0].mean() == pytest.approx(1, abs=0.2)
    np.testing.assert_array_equal(seen.row[1], np.arange(40))
    assert seen.baseline.value == 0


@pytest.mark.parametrize("t_switch", [[], [0.5, 0.2], [0.2, 0.2], [0.5, 1.5], [-0.1], [float("nan")]])
def test_times_to_switch_at_must_rise_within_the_path(t_switch: list[float]) -> None:
    with pytest.raises(ValueError, match="t_switch"):
        checked_switches(np.array(t_switch))
