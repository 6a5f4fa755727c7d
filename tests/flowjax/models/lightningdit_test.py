"""LightningDiT computes what the published one does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flowjax.models import Architecture, LightningDiT, export_lightningdit
from tests import numpy_lightningdit
from tests.flowjax.models.small_model import SMALL, noisy

velocity = nnx.jit(lambda model, x, t, label: model(x, t, label))


def inputs(shape: Architecture, batch: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return (
        rng.standard_normal((batch, *shape.image_shape)).astype(np.float32),
        rng.random(batch).astype(np.float32),
        np.arange(batch, dtype=np.int32) % (shape.num_classes + 1),
    )


@pytest.mark.slow
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
