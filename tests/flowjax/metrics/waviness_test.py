"""Waviness sees waves in a curve of losses, and not the noise of few queries."""

import numpy as np
import pytest

from flowjax.metrics.waviness import waviness
from tests.flowjax.metrics.errors_of_queries import errors

T = np.linspace(0.4, 0.98, 30)


def test_waviness_sees_waves_and_not_the_noise_of_few_queries() -> None:
    parabola = np.exp(1 - 3 * (T - 0.6) ** 2)
    waves = parabola * np.exp(0.1 * np.sin(40 * T))
    smooth, wavy = waviness(T, errors(parabola)).value, waviness(T, errors(waves)).value
    assert smooth.low == 0
    assert smooth.value < 0.02 < wavy.low
    assert wavy.low < 0.1 / np.sqrt(2) < wavy.high  # the root mean square of a sine
    np.testing.assert_allclose(waviness(T, 7.3 * errors(waves)).value, wavy, rtol=1e-9)
    np.testing.assert_allclose(waviness(T, parabola[:, None] * np.ones(3)).fit, parabola, rtol=1e-9)


def test_waviness_needs_more_times_than_its_fit_has_coefficients() -> None:
    with pytest.raises(ValueError, match="3 coefficients"):
        waviness(T[:3], np.ones((3, 5)))
    with pytest.raises(ValueError, match="above 0"):
        waviness(T, np.zeros((30, 5)))
