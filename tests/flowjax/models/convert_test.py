"""Checkpoints in the published names: written and read back, and refused by the name of the tensor."""

import pathlib

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from flowjax.models import Architecture, LightningDiT, convert_lightningdit, export_lightningdit
from tests.flowjax.models.small_model import SMALL, noisy


@pytest.mark.slow
@pytest.mark.parametrize("qk_norm", [False, True])
def test_a_checkpoint_that_is_written_is_read_back_the_same(tmp_path: pathlib.Path, qk_norm: bool) -> None:
    model = noisy(LightningDiT(Architecture(**SMALL, qk_norm=qk_norm), rngs=nnx.Rngs(0)))
    export_lightningdit(model, tmp_path / "model.safetensors")
    again = convert_lightningdit(tmp_path / "model.safetensors")
    assert again.shape == model.shape
    for a, b in zip(jax.tree.leaves(nnx.state(again)), jax.tree.leaves(nnx.state(model)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.pop("blocks.1.attn.qkv.bias"), "blocks.1.attn.qkv.bias"),
        (lambda t: t.update({"blocks.0.extra.weight": np.ones(3, np.float32)}), "blocks.0.extra.weight"),
        (lambda t: t.update({"blocks.1.mlp.w3.weight": np.ones((24, 63), np.float32)}), "blocks.1.mlp.w3.weight"),
        (lambda t: t.update({"blocks.1.norm2.weight": np.full(24, np.nan, np.float32)}), "blocks.1.norm2.weight"),
        (lambda t: t.pop("x_embedder.proj.weight"), "x_embedder.proj.weight"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_the_name_of_the_tensor(tmp_path: pathlib.Path, change, named: str) -> None:
    tensors = export_lightningdit(LightningDiT(Architecture(**SMALL), rngs=nnx.Rngs(0)))
    change(tensors)
    save_file(tensors, tmp_path / "bad.safetensors")
    with pytest.raises(ValueError, match=named):
        convert_lightningdit(tmp_path / "bad.safetensors")
