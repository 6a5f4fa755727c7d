"""Normalisation: on the device as on the host, by channel, and its inverse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.data.normalization import Normalization
from flowjax.data.pipeline import Batches
from tests.flowjax.data.thirteen_images import records


def test_bytes_stay_bytes_and_the_device_makes_of_them_what_the_host_does():
    batches = Batches(records(), 8, seed=0)
    batch = batches[0]
    assert batch.data.dtype == np.uint8
    on_device = jax.jit(lambda stored: batches.normalization(stored))(batch.data)
    assert on_device.dtype == jnp.float32
    np.testing.assert_allclose(on_device, batch.data / 127.5 - 1, atol=2e-7)
    np.testing.assert_allclose(batches.normalization(batch.data), on_device, atol=2e-7)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, jnp.bfloat16, np.float32])
def test_normalisation_by_channel_and_its_inverse(dtype):
    stored = np.random.default_rng(0).integers(0, 9, (4, 2, 3)).astype(dtype)
    normalization = Normalization(mean=np.array([1.0, 2, 3]), std=np.array([0.5, 1, 2]), multiplier=0.25)
    values = normalization(jnp.asarray(stored))
    np.testing.assert_allclose(values, (stored.astype(float) - [1, 2, 3]) / [0.5, 1, 2] * 0.25, rtol=1e-6)
    np.testing.assert_allclose(normalization.inverse(values), stored.astype(float), atol=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"std": 0.0}, {"std": np.array([1.0, -1])}, {"mean": np.nan}, {"multiplier": 0.0}, {"mean": np.ones((1, 3))}]
)
def test_a_normalisation_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Normalization(**wrong)
