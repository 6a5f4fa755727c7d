"""What can be done exactly where an assumption of the oracle does not hold: noise of another strength, and mirror images."""

import jax.numpy as jnp
import numpy as np
import pytest

from flowjax import data
from flowjax.data.normalization import BYTES
from flowjax.fields import external_field
from flowjax.oracle import Oracle
from flowjax.schedules import shift

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 3, 1)).astype(np.uint8)
TIMES = (0.05, 0.3, 0.6, 0.9)


def posterior(samples: np.ndarray, z: np.ndarray, t: float, c: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights and velocity of z = t x_1 + (1 - t) c x_0, in float64, every difference formed."""
    flat, point = samples.reshape(len(samples), -1).astype(np.float64), z.reshape(-1).astype(np.float64)
    scores = -((point - t * flat) ** 2).sum(1) / (2 * (c * (1 - t)) ** 2)
    weights = np.exp(scores - scores.max())
    weights /= weights.sum()
    return weights, ((weights @ flat - point) / (1 - t)).reshape(z.shape)


@pytest.mark.parametrize("c", [0.5, 2.0, 3.0])
@pytest.mark.parametrize("t", TIMES)
def test_data_divided_by_the_noise_scale_give_the_oracle_of_the_noisier_path(c: float, t: float) -> None:
    whole = data.Records("bytes", IMAGES, normalization=BYTES, value_range=(-1.0, 1.0))
    plain, divided = whole.load(), whole.for_noise(c).load()
    assert divided.provenance["noise_scale"] == c
    rng = np.random.default_rng(1)
    z = (t * plain.data[:5] + (1 - t) * c * rng.standard_normal(plain.data[:5].shape)).astype(np.float32)
    found = Oracle(divided.data)(z / np.float32(c), np.float32(t))
    for i in range(len(z)):
        weights, velocity = posterior(plain.data, z[i], float(np.float32(t)), c)
        np.testing.assert_allclose(c * np.asarray(found.velocity[i]), velocity, rtol=1e-5, atol=1e-5 * np.abs(velocity).max())
        assert float(found.top1_weight[i]) == pytest.approx(weights.max(), abs=1e-4)


@pytest.mark.parametrize("t", TIMES)
def test_a_models_noise_scale_means_the_same(t: float) -> None:
    """`external_field(noise_scale=c)` is the field of the data as they are, at the t that a shift by c takes to the model's own."""
    c, samples = 2.0, (IMAGES / 127.5 - 1).astype(np.float32)

    def model(z: np.ndarray, time: np.ndarray, label: None) -> np.ndarray:
        return np.stack([posterior(samples, one, float(at), c)[1] for one, at in zip(z, time, strict=True)]).astype(np.float32)

    x = (t * samples[:3] + (1 - t) * np.random.default_rng(2).standard_normal(samples[:3].shape)).astype(np.float32)
    field = external_field(model, noise_scale=c, framework="numpy")
    oracle = Oracle(samples)(x, np.float32(t))
    np.testing.assert_allclose(
        field(jnp.asarray(x), jnp.float32(t), None), oracle.velocity, atol=1e-4 * float(np.abs(oracle.velocity).max())
    )
    own = shift(t, c)  # where data divided by c show it
    divided = Oracle(samples / np.float32(c))((own / t * x / c).astype(np.float32), np.float32(own))
    np.testing.assert_allclose(divided.top1_weight, oracle.top1_weight, atol=1e-4)


@pytest.mark.parametrize("s", [0.1, 0.7])
def test_latents_drawn_anew_weigh_as_their_means_do_at_equal_noise(s: float) -> None:
    means, t = (IMAGES / 127.5 - 1).astype(np.float32), 0.5
    x = (t * means[:3] + np.hypot(1 - t, t * s) * np.random.default_rng(4).standard_normal(means[:3].shape)).astype(np.float32)
    ratio = np.hypot(1 - t, t * s) / t
    there = 1 / (1 + ratio)
    found = Oracle(means)((there / t * x).astype(np.float32), np.float32(there))
    scores = -((x[:, None] - t * means[None]).astype(np.float64) ** 2).sum((2, 3, 4)) / (2 * np.hypot(1 - t, t * s) ** 2)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    np.testing.assert_allclose(found.top1_weight, (weights / weights.sum(1, keepdims=True)).max(1), atol=1e-4)


def test_mirror_images_are_samples_and_symmetric_ones_count_twice() -> None:
    images = IMAGES.copy()
    images[0] = np.concatenate([images[0][:, :2], images[0][:, :1]], axis=1)  # its own mirror image
    samples = data.Records("bytes", images, normalization=BYTES).load(flips=True)
    both = np.concatenate([images, images[:, :, ::-1]]).astype(np.float64) / 127.5 - 1
    assert (samples.n, samples.provenance["duplicates"]) == (24, 1)
    oracle = Oracle(samples.data)
    distinct = oracle.unique()
    assert (len(distinct.data), sorted(np.asarray(distinct.counts))[-1]) == (23, 2)
    rng = np.random.default_rng(3)
    for t in TIMES:
        x = (t * samples.data[[0, 5, 20]] + (1 - t) * rng.standard_normal((3, 4, 3, 1))).astype(np.float32)
        for asked in (oracle, distinct):
            found = asked(x, np.float32(t)).velocity
            for i in range(3):
                expected = posterior(both, x[i], float(np.float32(t)), 1.0)[1]
                np.testing.assert_allclose(found[i], expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("c", [0.0, -1.0, float("inf"), float("nan")])
def test_a_noise_scale_is_a_number_above_0(c: float) -> None:
    with pytest.raises(ValueError, match=r"noise_scale=.*expected a number above 0"):
        data.open_records("digits", noise_scale=c)
