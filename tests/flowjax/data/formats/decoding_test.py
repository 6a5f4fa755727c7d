"""Images are decoded and cropped as ADM does."""

import numpy as np
import PIL.Image
import pytest

from flowjax.data.formats.decoding import center_crop, open_image


def test_the_crop_halves_large_images_by_averages():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    averaged = noise.reshape(16, 4, 16, 4).astype(float).mean((1, 3))
    np.testing.assert_allclose(np.asarray(center_crop(PIL.Image.fromarray(noise), 16)), averaged, atol=2)


def test_a_damaged_image_is_told_from_what_is_no_image():
    with pytest.raises(ValueError, match="it begins as a PNG image, and is damaged or cut short"):
        open_image(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(ValueError, match=r"no image of PNG, .* format that can be read: it is a PDF file"):
        open_image(b"%PDF-1.4")
