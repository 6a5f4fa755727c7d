"""LightningDiT is the published one: its numbers, its parameters, its files."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from flowjax.models import SIZES, Architecture, LightningDiT, convert_lightningdit, export_lightningdit, parameter_count
from tests import numpy_lightningdit

SMALL = {"image_shape": (8, 8, 3), "patch": 2, "depth": 2, "width": 24, "heads": 2, "num_classes": 5}


def noisy(model: LightningDiT, seed: int = 0) -> LightningDiT:
    """Every parameter random: at initialisation half of them are 0."""
    rng = np.random.default_rng(seed)
    for parameter in jax.tree.leaves(nnx.state(model, nnx.Param), is_leaf=lambda leaf: isinstance(leaf, nnx.Variable)):
        parameter.set_value(parameter[...] + jnp.asarray(0.3 * rng.standard_normal(parameter.shape), jnp.float32))
    return model


velocity = nnx.jit(lambda model, x, t, label: model(x, t, label))


def inputs(shape: Architecture, batch: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return (
        rng.standard_normal((batch, *shape.image_shape)).astype(np.float32),
        rng.random(batch).astype(np.float32),
        np.arange(batch, dtype=np.int32) % (shape.num_classes + 1),
    )


@pytest.mark.parametrize("changes", [{"qk_norm": True, "patch": 1}, {"learn_sigma": True, "width": 48}], ids=str)
def test_outputs_are_those_of_a_float64_derivation_from_the_published_tensors(changes: dict) -> None:
    shape = Architecture(**(SMALL | changes))
    model = noisy(LightningDiT(shape, rngs=nnx.Rngs(0)))
    x, t, label = inputs(shape)
    expected = numpy_lightningdit.forward(export_lightningdit(model), x.transpose(0, 3, 1, 2), t, label, shape.head_dim)
    found = np.asarray(velocity(model, x, t, label)).transpose(0, 3, 1, 2)
    assert np.abs(found - expected).max() < 1e-5 * max(1, np.abs(expected).max())


@pytest.mark.slow
def test_scanned_unrolled_and_rematerialised_layers_are_one_function() -> None:
    shape = Architecture(**SMALL)
    x, t, label = inputs(shape)

    @nnx.jit
    def value_and_gradient(model: LightningDiT) -> tuple[jax.Array, nnx.State]:
        return nnx.value_and_grad(lambda model: jnp.mean(model(x, t, label) ** 2))(model)

    value, gradient = value_and_gradient(noisy(LightningDiT(shape, rngs=nnx.Rngs(0), scan=False)))
    for remat in ("none", "dots", "full"):
        other = value_and_gradient(noisy(LightningDiT(shape, rngs=nnx.Rngs(0), scan=True, remat=remat)))
        np.testing.assert_allclose(other[0], value, rtol=1e-5)
        for a, b in zip(jax.tree.leaves(other[1]), jax.tree.leaves(gradient), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4 * float(jnp.abs(b).max()))


def test_bfloat16_computes_near_float32_and_keeps_its_parameters() -> None:
    shape = Architecture(**SMALL)
    exact = LightningDiT(shape, rngs=nnx.Rngs(0))
    rough = LightningDiT(shape, rngs=nnx.Rngs(0), dtype=jnp.bfloat16)
    for model in (exact, rough):
        noisy(model)
    x, t, label = inputs(shape)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(rough, nnx.Param))} == {np.dtype(np.float32)}
    wanted, found = (np.asarray(velocity(model, x, t, label)) for model in (exact, rough))
    assert found.dtype == np.float32
    assert 0 < np.sqrt(((found - wanted) ** 2).mean()) < 0.05 * wanted.std()


@pytest.mark.parametrize(("size", "millions"), [("XL/1", 675.26), ("L/1", 458.15), ("B/1", 130.56), ("S/1", 32.99)])
def test_published_sizes_have_the_published_number_of_parameters(size: str, millions: float) -> None:
    """The published count, 675.26M for XL/1, includes the fixed position vectors."""
    model = nnx.eval_shape(lambda: LightningDiT(Architecture.named(size, (16, 16, 32), 1000), rngs=nnx.Rngs(0)))
    assert (parameter_count(model) + 256 * model.shape.width) / 1e6 == pytest.approx(millions, abs=0.005)


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


@pytest.mark.parametrize(
    ("size", "shape", "named"),
    [("XXL/1", (16, 16, 4), "XXL/1"), ("B", (16, 16, 4), "SIZE/PATCH"), ("B/3", (16, 16, 4), "patch"), ("B/1", (64,), r"\[H, W, C\]")],
)
def test_unknown_sizes_and_patches_that_do_not_divide_are_refused(size: str, shape: tuple[int, ...], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Architecture.named(size, shape, 10)


def test_every_named_size_has_heads_that_rotate() -> None:
    for depth, width, heads in SIZES.values():
        assert Architecture((8, 8, 1), 1, depth, width, heads, 10).head_dim % 4 == 0
