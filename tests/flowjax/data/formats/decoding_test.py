"""Images are decoded and cropped as ADM does."""

import numpy as np
import PIL.Image

from flowjax.data.formats.decoding import center_crop


def test_the_crop_halves_large_images_by_averages():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    averaged = noise.reshape(16, 4, 16, 4).astype(float).mean((1, 3))
    np.testing.assert_allclose(np.asarray(center_crop(PIL.Image.fromarray(noise), 16)), averaged, atol=2)
