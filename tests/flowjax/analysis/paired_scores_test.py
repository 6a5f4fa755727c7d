"""Scores of several settings on shared seeds are compared seed by seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowjax.analysis.paired_scores import PairedScores


def test_what_all_settings_share_on_a_seed_does_not_widen_a_comparison() -> None:
    seeds = np.array([1.0, 1.6, 0.7, 1.2])
    paired = PairedScores(np.stack([10 * seeds, 11 * seeds, 9 * seeds]))
    assert paired.best == 2
    np.testing.assert_allclose(paired.change(1, 0), 0.1, rtol=1e-9)
    np.testing.assert_allclose(paired.regret(0), 10 / 9 - 1, rtol=1e-9)
    np.testing.assert_allclose(paired.regret(2), 0, atol=1e-12)
    assert paired.score(0).high - paired.score(0).low > 5
    np.testing.assert_allclose(paired.beside(1, 0), 11 * seeds.mean(), rtol=1e-9)


@given(st.integers(0, 2**31))
def test_the_best_of_many_equal_settings_is_not_taken_for_better(seed: int) -> None:
    """Chosen and measured on the same seeds, the best of 50 equals would beat a fixed one by two spreads."""
    paired = PairedScores(np.exp(0.1 * np.random.default_rng(seed).standard_normal((50, 20))))
    best, fixed = paired.best, 17
    assert paired.scores[best].mean() < paired.scores[fixed].mean() or best == fixed
    low, high = paired.regret(fixed)[1:]
    assert low < 0.06
    assert high > -0.06


@pytest.mark.parametrize("scores", [np.ones((3, 1)), np.zeros((2, 3)), np.full((2, 3), np.nan), np.ones(4)])
def test_invalid_scores_are_refused(scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match="settings, seeds"):
        PairedScores(scores)
