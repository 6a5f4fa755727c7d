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
