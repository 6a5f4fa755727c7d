"""The spectrum of the samples' covariance."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from flowjax.stages import (
    covariance_spectrum,
    predict_turning_point,
)
from tests.flowjax.softmax_turning_point import gaussians

# The spectrum itself.


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 40), d=st.integers(1, 40), offset=st.floats(-50, 50))
def test_spectrum_is_the_covariances_for_any_shape(n: int, d: int, offset: float) -> None:
    data = gaussians(n, d) + np.float32(offset)
    exact = np.linalg.eigvalsh(np.cov(data.T.astype(np.float64)).reshape(d, d))[::-1][: min(d, n - 1)]
    np.testing.assert_allclose(covariance_spectrum(data.reshape(n, d, 1)), np.maximum(exact, 0), rtol=1e-6, atol=1e-9)


def test_a_spectrum_from_some_of_the_samples_predicts_as_the_whole_does() -> None:
    scales = np.arange(1, 601) ** -0.5
    data = gaussians(2000, 600) * scales.astype(np.float32)
    some = covariance_spectrum(data, max_exact=512)
    assert len(some) == 255
    assert some.sum() == pytest.approx(np.sum(scales**2), rel=0.1)
    whole = predict_turning_point(covariance_spectrum(data), 2000)
    assert predict_turning_point(some, 2000) == pytest.approx(whole, rel=0.05)


@pytest.mark.parametrize("rank", [150, 20])
def test_float32_products_move_eigenvalues_by_less_than_is_said(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    data = ((rng.standard_normal((400, rank)) / np.arange(1, rank + 1)) @ rng.standard_normal((rank, 150)) + 0.3).astype(np.float32)
    wanted = covariance_spectrum(data)
    monkeypatch.setattr("flowjax.analysis.spectrum.FLOAT32_FROM", 100)
    found = covariance_spectrum(data)
    assert 0 < np.abs(found - wanted).max() < 1e-5 * wanted.mean()
    rho = np.sqrt(np.expm1(2 * np.log(400) / 3) / wanted[2])  # three directions hold log N nats or more
    assert abs(np.log1p(rho**2 * found).sum() - np.log1p(rho**2 * wanted).sum()) / 2 < 1e-3
