"""Memorisation: the two nearest training samples, and the share of copies."""

import numpy as np
import pytest

from flowjax.metrics.memorization import NearestSamples, share


def test_the_nearest_two_are_those_of_exact_differences_and_duplicates_count_once() -> None:
    rng = np.random.default_rng(0)
    training = (rng.standard_normal((200, 3, 3, 1)) + 1000).astype(np.float32)
    training[150] = training[3]
    look = NearestSamples(training)
    samples = training[:20] + 1e-3 * rng.standard_normal((20, 3, 3, 1)).astype(np.float32)
    distances = np.sqrt(((samples[:, None].astype(np.float64) - training[None].astype(np.float64)) ** 2).sum((2, 3, 4)))
    found = look(samples)
    np.testing.assert_array_equal(found.row, np.arange(20))
    np.testing.assert_allclose(found.distance, distances[np.arange(20), np.arange(20)], rtol=1e-9)
    distances[:, 150] = np.inf
    distances[np.arange(20), np.arange(20)] = np.inf
    np.testing.assert_allclose(found.second, distances.min(1), rtol=1e-9)
    assert found.copies.all()
    assert not look(rng.standard_normal((50, 3, 3, 1)).astype(np.float32) + 1000).copies.any()
    alone = NearestSamples(training[:1])(samples)
    assert np.isinf(alone.second).all()
    assert (look(training).ratio == 0).all()


def test_the_interval_of_a_share_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    for truth in (0.02, 0.5):
        found = [share(rng.random(80) < truth) for _ in range(400)]
        assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.92
    assert share(np.zeros(10, bool)).low == 0
    assert 0.2 < share(np.zeros(10, bool)).high < 0.4


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda x: NearestSamples(x)(x[:, :2]), "D = 3 as in training"),
        (lambda x: NearestSamples(x)(x * np.inf), "finite"),
    ],
)
def test_samples_that_cannot_be_compared_are_refused(call, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        call(np.random.default_rng(0).standard_normal((50, 3)))
