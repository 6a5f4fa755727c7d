"""Strips of samples of any shape."""

import numpy as np
import pytest

from flowjax.reporting import strip
from tests.flowjax.reporting.drawing import drawn


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (6, 9, 3), (4, 4, 32), (50,), (1,), (2, 3, 4, 5)])
def test_strip_shows_samples_of_any_shape(tmp_path, shape):
    rng = np.random.default_rng(0)
    t = np.linspace(0, 0.9, 5)
    images = rng.normal(size=(2, 5, *shape)).astype(np.float32)
    figure = strip.strip_figure(t, images, images / 2, (-1.0, 1.0), 0.3 if shape == (8, 8) else None)
    assert len(figure.axes[0].get_yticklabels()) == 4
    drawn(figure, tmp_path) if shape == (8, 8) else figure.draw_without_rendering()


def test_strip_places_every_image_at_its_row_and_column():
    t = np.array([0.1, 0.5, 0.9])
    queries = np.arange(2 * 3, dtype=np.float32).reshape(2, 3, 1, 1, 1) * np.ones((4, 4, 1), np.float32)
    figure = strip.strip_figure(t, queries, queries + 6, (0.0, 12.0), 0.5)
    mosaic = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(mosaic[1::5, 1::5, 0] * 12, [[0, 1, 2], [6, 7, 8], [3, 4, 5], [9, 10, 11]], atol=1e-6)


def test_as_image_keeps_values():
    vector = np.arange(7, dtype=np.float32)
    image = strip.as_image(vector)
    assert image.shape == (3, 3, 3)
    np.testing.assert_array_equal(image[..., 0].ravel()[:7], vector)
    assert np.isnan(image[..., 0].ravel()[7:]).all()
    rgb = np.random.default_rng(0).normal(size=(2, 2, 3))
    np.testing.assert_array_equal(strip.as_image(rgb), rgb)
    latent = np.random.default_rng(0).normal(size=(2, 2, 5))
    np.testing.assert_array_equal(strip.as_image(latent)[..., 2], latent[..., 0])
