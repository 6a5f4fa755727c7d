"""Autoencoders learn by the loop of every other task, alone or towards the features of a frozen network, and what they learn encodes."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flowjax import data
from flowjax.data.encoder import Encoder
from flowjax.data.encoding import EncodingSettings, encode_records
from flowjax.data.pipeline import Batch, Batches
from flowjax.models.autoencoder import FILE, Autoencoder, load_encoder, save_autoencoder
from flowjax.training.autoencoding import AutoencoderTask, Drawn
from flowjax.training.loop import Observers, Schedule, train
from flowjax.training.metrics import MetricWriter, read_metrics
from flowjax.training.sharding import make_mesh
from flowjax.training.step import Trainer, make_optimizer
from flowjax.training.tasks import ClassifierTask

FROZEN = ClassifierTask((8, 8, 1), 10, width=4)


def task(align: bool = False, **settings: float) -> AutoencoderTask:
    digits = data.open_records("digits")
    known = {"channels": 2, "factor": 2, "width": 8, **settings}
    return AutoencoderTask((8, 8, 1), **known, align=FROZEN if align else None, normalization=digits.normalization)


@pytest.mark.parametrize(
    "align", [pytest.param(False, marks=pytest.mark.long, id="plain"), pytest.param(True, marks=pytest.mark.slow, id="aligned")]
)
def test_what_the_loop_trains_reconstructs_and_is_taken_by_encode_latents(tmp_path: pathlib.Path, align: bool) -> None:
    digits = data.open_records("digits")
    trainer = Trainer(task(align, align_weight=1.0), make_optimizer(1e-2, warmup=5), make_mesh(1, 1), ema_decay=0.9)
    frozen = nnx.state(FROZEN.build(nnx.Rngs(1)), nnx.Param) if align else None
    trained = train(
        trainer,
        Batches(digits, 64, seed=0),
        Schedule(60, log_every=10),
        seed=0,
        constants=frozen,
        observers=Observers(lambda first: MetricWriter(tmp_path / "metrics.jsonl", tmp_path / "board", first + 1)),
    )
    lines = read_metrics(tmp_path / "metrics.jsonl")
    first, last = lines[0], lines[5]
    assert last["squared_error"] < 0.5 * first["squared_error"]
    assert ("alignment" in last) == align
    assert not align or last["alignment"] < 0.7 * first["alignment"]

    model = trainer.model(trained.state.ema)
    images = jnp.asarray(digits.normalization(digits.rows[:100]))
    mean = model.moments(images)[0]
    assert mean.shape == (100, 4, 4, 2)
    assert float(jnp.mean((model.decode(mean) - images) ** 2)) < 0.5 * float(images.var())

    save_autoencoder(model, tmp_path / FILE)
    encoder = load_encoder(digits, str(tmp_path))
    assert isinstance(encoder, Encoder)
    folder = encode_records(tmp_path / "latents", digits, encoder, EncodingSettings(flips=False))
    stored = data.open_records("latents", path=folder)
    np.testing.assert_allclose(stored.read(np.arange(100)), mean, atol=1e-5)
    assert load_encoder(digits, str(folder)).settings == encoder.settings  # the latents carry what decodes them


def test_the_loss_is_reconstruction_divergence_and_alignment_as_published() -> None:
    """Against float64 NumPy, term by term; margins so that each of the two is above its own at some places and below at others."""
    rng = np.random.default_rng(0)
    aligned = task(True, kl_weight=0.1, align_weight=0.7)
    model = aligned.build(nnx.Rngs(0))
    x = jnp.asarray(rng.standard_normal((3, 8, 8, 1)), jnp.float32)
    noise, features = (jnp.asarray(rng.standard_normal((3, 4, 4, width)), jnp.float32) for width in (2, 8))
    loss, metrics = jax.jit(lambda x, noise, features: aligned.loss(model, Drawn(x, noise, features), None, None))(x, noise, features)

    mean, log_variance = (np.asarray(v, np.float64) for v in model.moments(x))
    drawn = mean + np.exp(log_variance / 2) * np.asarray(noise)
    error = np.mean((np.asarray(model.decode(jnp.asarray(drawn, jnp.float32)), np.float64) - np.asarray(x)) ** 2)
    divergence = 0.5 * np.sum(np.exp(log_variance) + mean**2 - 1 - log_variance) / x.size

    assert model.alignment is not None
    a = (drawn @ np.asarray(model.alignment.kernel[...], np.float64)).reshape(3, 16, 8)
    a, b = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (a, np.asarray(features, np.float64).reshape(3, 16, 8)))
    pointwise, pairs = [], []
    for image in range(3):
        for i in range(16):
            pointwise.append(max(0.0, 1 - aligned.margins[0] - a[image, i] @ b[image, i]))
            pairs += [max(0.0, abs(a[image, i] @ a[image, j] - b[image, i] @ b[image, j]) - aligned.margins[1]) for j in range(16)]
    assert 0 < np.mean(np.array(pointwise) > 0) < 1
    assert 0 < np.mean(np.array(pairs) > 0) < 1
    alignment = np.mean(pointwise) + np.mean(pairs)

    found = {name: float(value) for name, value in metrics.items()}
    assert found == pytest.approx({"squared_error": error, "kl": divergence, "alignment": alignment}, rel=1e-5)
    assert float(loss) == pytest.approx(error + 0.1 * divergence + 0.7 * alignment, rel=1e-5)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Autoencoder((8, 8, 1), 2, 3, rngs=nnx.Rngs(0)), "factor = 3"),
        (lambda: Autoencoder((8, 8, 1), 0, 2, rngs=nnx.Rngs(0)), "channels = 0"),
        (lambda: task(kl_weight=-1.0), "kl_weight = -1.0"),
    ],
)
def test_wrong_settings_are_refused(make, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make()


@pytest.mark.slow
@pytest.mark.parametrize("align", [False, True], ids=["plain", "aligned"])
def test_sides_that_halve_to_fractions_are_rounded_up(align: bool) -> None:
    frozen = ClassifierTask((28, 20, 1), 10, width=4)
    eighth = AutoencoderTask((28, 20, 1), channels=3, factor=8, width=4, align=frozen if align else None)
    model = eighth.build(nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 28, 20, 1)), jnp.float32)
    drawn = eighth.prepare(Batch(x, None), jax.random.key(0), nnx.state(frozen.build(nnx.Rngs(1)), nnx.Param) if align else None)
    assert model.moments(drawn.x)[0].shape == drawn.noise.shape == (2, 4, 3, 3)
    assert model.decode(drawn.noise).shape == (2, 28, 20, 1)
    assert np.isfinite(eighth.loss(model, drawn, None, None)[0])
    if drawn.features is not None:
        maps = np.asarray(frozen.build(nnx.Rngs(1)).maps(drawn.x)[-1])  # 7 x 5: the last of each side stands alone
        np.testing.assert_allclose(drawn.features[:, 0, 0], maps[:, :2, :2].mean((1, 2)), atol=1e-6)
        np.testing.assert_allclose(drawn.features[:, 3, 2], maps[:, 6, 4], atol=1e-6)
