"""Speciation and collapse beside the turning point, where closed forms know them."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import norm

from flowjax import stages
from flowjax.analysis.regime_times import regime_times
from flowjax.path import Cosine, RectifiedFlow, VariancePreserving

D, N, WIDTH = 64, 1024, 1.0


def two_gaussians(distance: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """N samples of ½ N(m, s² I) + ½ N(-m, s² I), |m| = distance, and their classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(N) % 2
    x = WIDTH * rng.standard_normal((N, D))
    x[:, 0] += distance * (2 * labels - 1)
    return x.astype(np.float32), labels


def information(ratio: float, distance: float) -> float:
    """I(x_1; x) in nats at ρ: h(ρ x_1 + z) - h(z); one direction has two modes, by quadrature, the others are Gaussian."""
    spread = np.sqrt(1 + ratio**2 * WIDTH**2)
    x = np.linspace(-ratio * distance - 10 * spread, ratio * distance + 10 * spread, 20_001)
    density = (norm.pdf(x, ratio * distance, spread) + norm.pdf(x, -ratio * distance, spread)) / 2
    along = -np.trapezoid(np.where(density > 0, density * np.log(np.maximum(density, 1e-300)), 0), x)
    return float(along - np.log(2 * np.pi * np.e) / 2 + (D - 1) * np.log(spread))


def agreement(ratio: float, distance: float) -> float:
    """φ: the probability that two clones of a query of ratio ρ end in the same of the two classes, by quadrature."""
    spread = np.sqrt(1 + ratio**2 * WIDTH**2)
    x = np.linspace(-ratio * distance - 10 * spread, ratio * distance + 10 * spread, 20_001)
    own = expit(2 * ratio * distance * x / spread**2)
    return float(np.trapezoid(norm.pdf(x, ratio * distance, spread) * own, x))


def ratio_of(t: float) -> float:
    return t / (1 - t)


@pytest.mark.parametrize("distance", [4.0, 8.0])
def test_both_transitions_of_two_gaussians_are_where_closed_forms_have_them(distance: float) -> None:
    data, labels = two_gaussians(distance)
    found = regime_times(data, labels)
    assert found.speciation is not None
    assert ratio_of(found.speciation) == pytest.approx((distance**2 + WIDTH**2) ** -0.5, rel=0.03)
    assert found.chance == pytest.approx(0.5)
    assert found.classes_decided is not None
    assert found.classes_decided.low <= found.classes_decided.t <= found.classes_decided.high
    decided = brentq(lambda ratio: agreement(ratio, distance) - 0.75, 1e-3, 10)
    assert ratio_of(found.classes_decided.t) == pytest.approx(decided, rel=0.1)
    # The collapse: the annealed one of the population, from below (quenched), as near as log log N / log N lets it be.
    annealed = brentq(lambda ratio: information(ratio, distance) - np.log(N), 1e-3, 10)
    collapse = ratio_of(found.collapse.t)
    assert 0.8 * annealed < collapse < annealed
    # The turning point asks for the largest of the others, the collapse for their sum.
    turn = ratio_of(stages.predict_turning_point_from_data(data))
    assert 0.85 * collapse < turn < collapse


def test_every_path_has_them_at_its_own_time_of_the_same_ratio() -> None:
    data, labels = two_gaussians(4.0)
    straight = regime_times(data, labels, RectifiedFlow(), num_queries=64)
    for path in (Cosine(), VariancePreserving()):
        found = regime_times(data, labels, path, num_queries=64)
        for one, other in ((straight.speciation, found.speciation), (straight.collapse.t, found.collapse.t)):
            assert np.exp(path.log_snr(other) / 2) == pytest.approx(ratio_of(one), rel=1e-3)


@pytest.mark.parametrize("num_samples", [128, 4096])
def test_the_order_of_a_gaussian_is_turning_point_collapse_and_closed_form(num_samples: int) -> None:
    data = np.random.default_rng(0).standard_normal((num_samples, D)).astype(np.float32)
    found = regime_times(data)
    turn = stages.predict_turning_point_from_data(data)
    assert turn < found.collapse.t < found.gaussian_collapse
    closed = np.sqrt(num_samples ** (2 / D) - 1)  # D/2 log(1 + ρ²) = log N
    assert ratio_of(found.gaussian_collapse) == pytest.approx(closed, rel=0.04)


def test_within_classes_the_collapse_comes_earlier() -> None:
    """Half of the samples, and one nat less to be told: the class is known."""
    data, labels = two_gaussians(8.0)
    assert regime_times(data, labels, by_class=True).collapse.t < regime_times(data, labels).collapse.t


def test_what_has_no_transition_says_so() -> None:
    alike = regime_times(np.ones((5, 3), np.float32))
    assert alike.speciation is None
    assert alike.collapse.t is None
    assert "alike" in alike.sentence()
    with pytest.raises(ValueError, match="needs labels"):
        regime_times(np.eye(3, dtype=np.float32), by_class=True)
