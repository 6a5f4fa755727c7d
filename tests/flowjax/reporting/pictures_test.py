"""Samples survive the way into an image file and back, in the room that there is."""

import base64
import io

import numpy as np
from PIL import Image

from flowjax.reporting.pictures import look_of, pictures, sheets


def opened(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"))


def test_each_picture_stands_in_its_row_and_column() -> None:
    data = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 6, 3)).astype(np.float32)
    drawn = pictures(data, look_of(data.reshape(-1, 5, 6, 3), (0.0, 255.0)), 3)
    np.testing.assert_array_equal(drawn, data)
    sheet = opened(sheets({"x": drawn}, 10**6)["x"])
    np.testing.assert_array_equal(sheet[5:10, 18:24], data[1, 3])


def test_what_takes_too_much_room_loses_what_is_seen_least() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 8, 32, 32, 3), np.uint8)
    exact = sheets({"a": noise, "b": noise}, 10**7)
    less = sheets({"a": noise, "b": noise}, 10**5)
    assert exact["a"].startswith("data:image/png")
    assert less["a"].startswith("data:image/webp")
    assert sum(map(len, less.values())) < 0.5 * sum(map(len, exact.values()))
    assert opened(less["a"]).shape == (128, 256, 3)


def test_every_shape_of_sample_is_a_picture_and_words_say_how() -> None:
    rng = np.random.default_rng(0)
    for shape, expected, said in (
        ((8, 8), (8, 8, 3), ""),
        ((8, 6, 1), (8, 6, 3), ""),
        ((200, 100, 3), (50, 25, 3), ""),
        ((10,), (3, 4, 3), "row by row"),
        ((8, 8, 2), (8, 8, 3), "2 channels"),
        ((8, 8, 16), (8, 8, 3), "principal directions"),
    ):
        data = rng.standard_normal((5, *shape)).astype(np.float32)
        look = look_of(data, (float(data.min()), float(data.max())))
        found = pictures(data, look, len(shape))
        assert found.shape == (5, *expected)
        assert found.std() > 5
        assert said in look.words
        assert bool(said) == bool(look.words)
