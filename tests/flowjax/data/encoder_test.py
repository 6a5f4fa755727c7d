"""The linear encoder of patches, and encoders of the user."""

import jax.numpy as jnp
import numpy as np
import pytest

from flowjax import data
from flowjax.data.encoder import Encoder, PatchPca


def test_the_linear_encoder_is_the_best_linear_one(images, pca):
    values = images.normalization(images.rows).astype(np.float64)
    patches = values.reshape(60, 2, 4, 4, 4, 1).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 16)
    centred = patches - patches.mean(0)
    _, singular, basis = np.linalg.svd(centred, full_matrices=False)
    latents = np.asarray(pca.encode(jnp.asarray(values, jnp.float32)))
    assert latents.shape == (60, 2, 4, 5)
    np.testing.assert_allclose(np.abs(latents.reshape(-1, 5)), np.abs(centred @ basis[:5].T), atol=2e-5)
    lost = np.mean((np.asarray(pca.decode(jnp.asarray(latents))) - values) ** 2)
    assert lost == pytest.approx((singular[5:] ** 2).sum() / values.size, rel=1e-3)
    np.testing.assert_allclose(pca.explained, np.cumsum(singular**2) / (singular**2).sum(), atol=1e-5)
    assert isinstance(pca, Encoder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch": 3}, "patch=3: expected a divisor"),
        ({"patch": 2, "channels": 5}, "channels=5: expected 1 to 4"),
        ({"patch": 0}, "patch=0"),
    ],
)
def test_impossible_patches_are_named(images, settings, message):
    with pytest.raises(ValueError, match=message):
        PatchPca.fit(images, **{"channels": 1, **settings})
    with pytest.raises(ValueError, match="expected images"):
        PatchPca.fit(data.open_records("gaussian", n=5, d=4), 1, 1)
