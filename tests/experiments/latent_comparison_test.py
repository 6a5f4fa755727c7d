"""`python -m experiments.latent_comparison` as its user runs it."""

import pathlib
from collections.abc import Callable

import numpy as np
import pytest
from flax import nnx

from experiments.latent_comparison import as_image
from flowjax.models import Architecture, LightningDiT
from flowjax.models.trained import save_trained
from tests.binary import Binary
from tests.experiments.trained_models import summary


@pytest.mark.slow
def test_spaces_are_compared_whatever_their_shape(binary_of: Callable[[str], Binary], tmp_path: pathlib.Path) -> None:
    """A model that is there, on images; vectors, whose model is trained here."""
    assert [as_image(shape) for shape in ((5,), (7, 5), (3, 2, 5), (2, 3, 7, 5))] == [(1, 1, 5), (1, 7, 5), (3, 2, 5), (6, 7, 5)]
    rng = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", rng.standard_normal((60, 4, 4, 1), np.float32))
    np.save(tmp_path / "vectors.npy", rng.standard_normal((60, 12), np.float32))
    model = LightningDiT(Architecture((4, 4, 1), 2, 1, 16, 2, num_classes=0), rngs=nnx.Rngs(0))
    save_trained(model, tmp_path / "images.safetensors", {})
    given = (
        f"--config.spaces=('a={tmp_path / 'images.npy'}@{tmp_path / 'images.safetensors'}', 'b={tmp_path / 'vectors.npy'}')",
        "--config.smooth=a",
        "--config.wavy=b",
        "--config.size=Pi",
        "--config.model.steps=2",
        "--config.model.measure=False",
        "--config.num_queries=8",
        "--config.num_t=16",
    )
    done = binary_of("latent_comparison")(*given, f"--workdir={tmp_path / 'run'}")
    assert done.status == 0, done.output
    spaces = summary(tmp_path / "run")["spaces"]
    assert (spaces["a"]["shape"], spaces["b"]["shape"]) == ([4, 4, 1], [1, 1, 12])
    for space in spaces.values():
        assert 0 < space["turning_point"]["measured"] < 1
        assert space["waviness"]["low"] <= space["waviness"]["value"] <= space["waviness"]["high"]
