"""Distances between distributions, precision and recall, memorisation: against closed forms and against what is known of the data."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from flowjax.metrics.frechet import Moments, frechet_distance, frechet_extrapolated, moments
from flowjax.metrics.memorization import NearestSamples, share
from flowjax.metrics.precision_recall import precision_recall


def rotation(d: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]


@given(st.integers(1, 40), st.integers(0, 1000), st.floats(0, 0.9))
def test_gaussians_with_common_axes_have_a_closed_form_singular_ones_too(d: int, seed: int, null: float) -> None:
    rng = np.random.default_rng(seed)
    axes = rotation(d, seed)
    a, b = (np.exp(2 * rng.standard_normal(d)) * (rng.random(d) > null) for _ in range(2))
    shift = rng.standard_normal(d)
    one, other = (Moments(mean, (axes * values) @ axes.T) for mean, values in ((np.zeros(d), a), (shift, b)))
    expected = (shift**2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-6)


def test_features_are_taken_by_their_moments() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((500, 5)) @ rng.standard_normal((5, 5)), rng.standard_normal((400, 5)) + 0.5
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(a, moments(b)) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    few = rng.standard_normal((4, 300))
    assert frechet_distance(few, few + 2) == pytest.approx(4 * 300, rel=1e-6)


def test_extrapolation_removes_what_the_number_of_samples_adds() -> None:
    """Unit Gaussians, one of them moved by 0.5: the distance is 0.25. Of 400 samples in 30 dimensions it comes out much too large."""
    truth = Moments(np.r_[0.5, np.zeros(29)], np.eye(30))
    found = [frechet_extrapolated(np.random.default_rng(seed).standard_normal((400, 30)), truth, seed=seed) for seed in range(12)]
    assert np.mean([one.plain for one in found]) > 0.6
    assert np.mean([one.value for one in found]) == pytest.approx(0.25, abs=0.06)
    assert np.mean([one.low <= 0.25 <= one.high for one in found]) >= 0.8


def test_precision_and_recall_tell_missing_modes_from_bad_samples() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((300, 4)), rng.standard_normal((300, 4)) + 20
    both = np.concatenate([left, right])
    same = precision_recall(both + rng.standard_normal(both.shape) * 0.1, both)
    assert same.precision.value > 0.95
    assert same.recall.value > 0.95
    dropped = precision_recall(left, both)
    assert dropped.precision.value > 0.95
    assert dropped.recall.value == pytest.approx(0.5, abs=0.05)
    assert dropped.recall.low < 0.5 < dropped.recall.high
    astray = precision_recall(np.concatenate([left, left + 100]), left)
    assert astray.precision.value == pytest.approx(0.5, abs=0.05)


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
        (lambda x: frechet_distance(x, x * np.nan), "finite"),
        (lambda x: frechet_distance(x[:1], x), "a: 1 rows"),
        (lambda x: frechet_distance(x, x[:, :2]), "expected the same"),
        (lambda x: Moments(np.zeros(2), np.array([[1.0, 0.5], [0.0, 1.0]])), "symmetric"),
        (lambda x: frechet_extrapolated(x[:20], x), "at least 32"),
        (lambda x: precision_recall(x[:3], x), "samples: 3 rows"),
        (lambda x: precision_recall(x, x[:, :2]), "the same"),
        (lambda x: NearestSamples(x)(x[:, :2]), "D = 3 as in training"),
        (lambda x: NearestSamples(x)(x * np.inf), "finite"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(call, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        call(np.random.default_rng(0).standard_normal((50, 3)))
