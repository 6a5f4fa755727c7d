"""The field of Wiener masks against loops in float64, and its limits."""

import numpy as np
import pytest

from flowjax.analytic import pca_local
from flowjax.oracle import Oracle
from flowjax.path import Path
from tests.flowjax.analytic.small_data import ASKED, LABELS, PATHS, coefficients, error, images, queries, velocity


def by_loops(y: np.ndarray, labels: np.ndarray, x: np.ndarray, asked: int, alpha: float, sigma: float, threshold: float) -> np.ndarray:
    rows = y.astype(np.float64)
    covariance = np.cov(rows.T)
    wiener = np.abs(alpha**2 * covariance @ np.linalg.inv(alpha**2 * covariance + sigma**2 * np.eye(rows.shape[1])))
    some = rows if asked < 0 else rows[labels == asked]
    found = []
    for i in range(rows.shape[1]):
        seen = wiener[i] > threshold * wiener[i].max()
        scores = -np.sum((x - alpha * some)[:, seen] ** 2, axis=1) / (2 * sigma**2)
        weights = np.exp(scores - scores.max())
        found.append(weights @ some[:, i] / weights.sum())
    return np.array(found)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_each_number_sees_what_the_covariance_says(path: Path) -> None:
    y = images((2, 3, 2))
    flat = y.reshape(30, -1)
    field = pca_local(y, LABELS, path, threshold=0.1)
    for t in (0.1, 0.6, 0.97):
        alpha, sigma, _, _ = coefficients(path, t)
        x = queries(y, path, t)
        rows = zip(x.reshape(4, -1).astype(np.float64), ASKED, strict=True)
        wanted = np.stack([by_loops(flat, LABELS, one, label, alpha, sigma, 0.1) for one, label in rows]).reshape(x.shape)
        assert error(field.denoised(x, t, ASKED), wanted) < 1e-5
        assert error(field(x, t, ASKED), velocity(path, t, x, wanted)) < 1e-5


def test_masks_shrink_in_time_and_without_a_threshold_it_is_the_oracle(digits: tuple[np.ndarray, np.ndarray]) -> None:
    y = digits[0][:300]
    field = pca_local(y)
    seen = [field.mask(t, 1 - t).mean() for t in (0.1, 0.5, 0.9)]
    assert seen[0] > seen[1] > seen[2] > 1 / 64
    assert field.mask(0.0, 1.0).sum() == 64
    small = images()
    x = queries(small, PATHS[0], 0.3)
    assert error(pca_local(small, LABELS, threshold=0.0)(x, 0.3, ASKED), np.asarray(Oracle(small, LABELS)(x, 0.3, ASKED).velocity)) < 1e-5


def test_bad_input_is_refused_in_a_line() -> None:
    with pytest.raises(ValueError, match="threshold = 1"):
        pca_local(images(), threshold=1.0)
    with pytest.raises(ValueError, match=r"t = 1: .* give a t below 1"):
        pca_local(images())(images()[:1], 1.0)
