"""Losses by t: a reduction is paired over queries, and the oracle has the posterior variance for its loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.analysis.sweep import draw_pairs
from flowjax.metrics.loss_by_t import LossByTimeMeter, reduction
from flowjax.oracle import Oracle
from tests.flowjax.metrics.errors_of_queries import errors


def test_a_reduction_is_paired_over_queries() -> None:
    before = errors(np.ones(20), noise=1.0)
    found = reduction(before, before - 0.1)
    np.testing.assert_allclose(found.absolute, 0.1, rtol=1e-9)
    assert found.relative.low < 0.1 / before.mean() < found.relative.high
    with pytest.raises(ValueError, match="same times and queries"):
        reduction(before, before[:, 1:])


@pytest.mark.slow
def test_loss_by_t_of_the_oracle_itself_is_the_posterior_variance(digits: tuple[np.ndarray, np.ndarray]) -> None:
    oracle = Oracle(digits[0][:200], precision="high")  # a small program
    pairs = draw_pairs(digits[0][:200], 64, seed=0)
    meter = LossByTimeMeter(oracle, pairs, np.array([0.2, 0.35]))
    found = meter(jax.jit(lambda x, t, label: oracle(x, t, moments="velocity").velocity))
    np.testing.assert_allclose(found.oracle, 0, atol=1e-6)
    gap = [float(oracle(oracle.path.interpolate(pairs.x_0, pairs.x_1, jnp.float32(t)), t).cfm_gap.mean()) / 64 for t in (0.2, 0.35)]
    np.testing.assert_allclose(found.cfm, gap, rtol=0.25)  # its expectation, over 64 pairs
    assert found.split(0.3)["cfm/navigation"] == pytest.approx(found.cfm[0])
    assert set(found.split(None)) == {"cfm/all", "oracle/all"}
