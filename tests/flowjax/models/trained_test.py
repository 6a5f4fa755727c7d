"""A checkpoint of a trained flow is one file, and what it says of itself is checked."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flowjax.fields import model_field
from flowjax.models import Architecture, LightningDiT, export_lightningdit
from flowjax.models.convert import write_tensors
from flowjax.models.trained import load_trained, save_staged


def model(shape: tuple[int, int, int], depth: int, classes: int = 10) -> LightningDiT:
    found = LightningDiT(Architecture(shape, 2, depth, 16, 2, num_classes=classes), rngs=nnx.Rngs(depth))
    last = found.final_layer.linear.weight
    last.set_value(jax.random.normal(jax.random.key(depth), last.shape, jnp.float32))
    return found


@pytest.mark.slow
def test_a_staged_flow_is_one_file_and_each_model_has_its_turn(tmp_path: pathlib.Path) -> None:
    small, large = model((4, 4, 1), 1), model((4, 4, 1), 3)
    save_staged([small, large], [0.4], tmp_path / "staged.safetensors", {"dataset": "digits"})
    flow = load_trained(tmp_path / "staged.safetensors")
    assert (flow.edges, flow.image_shape, flow.num_classes, flow.about["dataset"]) == ((0.4,), (4, 4, 1), 10, "digits")
    x, label = jnp.ones((2, 4, 4, 1)), jnp.array([1, 2], jnp.int32)
    for t, own in ((0.39, small), (0.4, large), (0.9, large)):
        found, wanted = flow.field(x, jnp.float32(t), label), model_field(own, 10)(x, jnp.float32(t), label)
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)  # two programs, and float32 sums of numbers of about 1


@pytest.mark.parametrize(
    "told",
    [
        "{",
        "[]",
        "[" * 100_000,
        '{"edges": 3}',
        '{"edges": ["x"]}',
        '{"image_shape": [4, 4]}',
        '{"image_shape": [4, 4, -1]}',
        '{"path": ["os.system"]}',
        '{"value_range": "x"}',
        '{"normalization": {"mean": "x"}}',
        '{"frechet": {"ratio": "x"}}',
        '{"config": {"data": 3}}',
    ],
)
def test_what_a_checkpoint_says_of_itself_is_checked(tmp_path: pathlib.Path, told: str) -> None:
    write_tensors(export_lightningdit(model((4, 4, 1), 1)), tmp_path / "x.safetensors", {"flowjax": told})
    with pytest.raises(ValueError, match="what it says of itself cannot be read") as error:
        load_trained(tmp_path / "x.safetensors")
    assert "\n" not in str(error.value)


def test_stages_that_do_not_fit_are_refused(tmp_path: pathlib.Path) -> None:
    for other in (model((4, 6, 1), 1), model((4, 4, 1), 1, classes=3)):
        with pytest.raises(ValueError, match="models of the same samples"):
            save_staged([model((4, 4, 1), 1), other], [0.4], tmp_path / "staged.safetensors", {})
    with pytest.raises(ValueError, match="edges"):
        save_staged([model((4, 4, 1), 1)] * 2, [0.4, 0.2], tmp_path / "staged.safetensors", {})
    assert not list(tmp_path.iterdir())
