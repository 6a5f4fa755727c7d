"""A trained autoencoder is one file, and what it says of itself is checked."""

import pathlib

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from flowjax import data
from flowjax.models.autoencoder import FILE, Autoencoder, TrainedEncoder, load_encoder


@pytest.mark.parametrize(
    "told", ["{", "[]", "[" * 100_000, "{}", '{"image_shape": [8, 8, 1], "rngs": 0}', '{"image_shape": [8, 8], "factor": 2}']
)
def test_what_an_autoencoder_is_made_of_is_checked(tmp_path: pathlib.Path, told: str) -> None:
    save_file({"made_of": np.frombuffer(told.encode(), np.uint8)}, tmp_path / FILE)
    with pytest.raises(ValueError, match="what it is made of cannot be read"):
        load_encoder(data.open_records("digits"), str(tmp_path))


def test_weights_that_do_not_fit_are_refused(tmp_path: pathlib.Path) -> None:
    digits = data.open_records("digits")
    with pytest.raises(FileNotFoundError, match=FILE):
        load_encoder(digits, str(tmp_path))
    TrainedEncoder(Autoencoder((16, 8, 1), 2, 2, width=4, rngs=nnx.Rngs(0))).save(tmp_path)
    with pytest.raises(ValueError, match=r"encodes images of shape \(16, 8, 1\), digits has \(8, 8, 1\)"):
        load_encoder(digits, str(tmp_path))
