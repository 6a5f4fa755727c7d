"""The Fréchet distance against closed forms."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from flowjax.metrics.frechet import Moments, frechet_distance, frechet_extrapolated, moments


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


@pytest.mark.slow
def test_extrapolation_removes_what_the_number_of_samples_adds() -> None:
    """Unit Gaussians, one of them moved by 0.5: the distance is 0.25. Of 400 samples in 30 dimensions it comes out much too large."""
    truth = Moments(np.r_[0.5, np.zeros(29)], np.eye(30))
    found = [frechet_extrapolated(np.random.default_rng(seed).standard_normal((400, 30)), truth, seed=seed) for seed in range(12)]
    assert np.mean([one.plain for one in found]) > 0.6
    assert np.mean([one.value for one in found]) == pytest.approx(0.25, abs=0.06)
    assert np.mean([one.low <= 0.25 <= one.high for one in found]) >= 0.8


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda x: frechet_distance(x, x * np.nan), "finite"),
        (lambda x: frechet_distance(x[:1], x), "a: 1 rows"),
        (lambda x: frechet_distance(x, x[:, :2]), "expected the same"),
        (lambda x: Moments(np.zeros(2), np.array([[1.0, 0.5], [0.0, 1.0]])), "symmetric"),
        (lambda x: frechet_extrapolated(x[:20], x), "at least 32"),
    ],
)
def test_samples_that_cannot_be_measured_are_refused_by_name(call, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        call(np.random.default_rng(0).standard_normal((50, 3)))
