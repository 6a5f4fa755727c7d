"""Encoding: there and back, whatever interrupts it."""

import json
import pathlib

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from flowjax import data
from flowjax.data.encoder import PatchPca
from flowjax.data.encoding import EncodingSettings, encode_records


def test_with_every_component_nothing_is_lost(images, tmp_path):
    whole = PatchPca.fit(images, patch=4, channels=16)
    values = jnp.asarray(images.normalization(images.rows))
    np.testing.assert_allclose(whole.decode(whole.encode(values)), values, atol=1e-5)
    whole.save(tmp_path)
    again = PatchPca.load(tmp_path)
    assert again.settings == whole.settings
    np.testing.assert_array_equal(again.decode(again.encode(values)), whole.decode(whole.encode(values)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_what_is_encoded_is_read_as_it_was(images, pca, tmp_path, dtype):
    folder = encode_records(tmp_path / "out", images, pca, EncodingSettings(dtype=dtype, shard_size=25, batch_size=8))
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    values = images.normalization(images.rows)
    expected, flipped = (np.asarray(pca.encode(jnp.asarray(x))).astype(kind) for x in (values, values[:, :, ::-1]))
    found = data.open_records("latents", path=folder)
    assert (found.n, found.shape, found.rows.dtype) == (60, (2, 4, 5), kind)
    tolerance = {"rtol": 0, "atol": 2e-6 if dtype == "float32" else 0.02}
    np.testing.assert_allclose(found.read(np.arange(60)).astype(float), expected.astype(float), **tolerance)
    np.testing.assert_allclose(found.read(np.arange(60), np.ones(60, bool)).astype(float), flipped.astype(float), **tolerance)
    np.testing.assert_array_equal(found.labels, images.labels)
    loaded = found.load().data
    np.testing.assert_allclose(loaded.mean((0, 1, 2), dtype=float), 0, atol=1e-5)
    np.testing.assert_allclose(loaded.std((0, 1, 2), dtype=float, ddof=1), 1, atol=1e-5)
    shard = load_file(folder / "latents_rank00_shard002.safetensors") if dtype == "float32" else {}  # the library's own reader
    for key in shard:
        assert shard[key].shape == {"labels": (10,)}.get(key, (10, 5, 2, 4))


def test_several_processes_write_what_one_does(images, pca, tmp_path):
    one = encode_records(tmp_path / "one", images, pca, EncodingSettings(batch_size=8))
    for process in (2, 1, 0):
        encode_records(
            tmp_path / "three", images, pca, EncodingSettings(shard_size=9, batch_size=8), process_index=process, process_count=3
        )
    whole, parts = (data.open_records("latents", path=folder) for folder in (one, tmp_path / "three"))
    np.testing.assert_array_equal(parts.read(np.arange(60)), whole.read(np.arange(60)))
    np.testing.assert_array_equal(parts.labels, whole.labels)


class Interruption(Exception):
    pass


def stop_after(shards: int):
    """A progress bar during which the power fails."""

    def progress(what):
        def watch(items):
            for k, item in enumerate(items):
                if k == shards:
                    raise Interruption
                yield item

        return watch if what == "shards" else iter

    return progress


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """The bytes of each file."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith(".lock")}


def test_an_interrupted_encoding_is_not_taken_for_whole_and_goes_on_where_it_was(images, pca, tmp_path):
    settings = EncodingSettings(shard_size=20, batch_size=8)
    whole = encode_records(tmp_path / "whole", images, pca, settings)
    folder = tmp_path / "out"
    with pytest.raises(Interruption):
        encode_records(folder, images, pca, settings, progress=stop_after(2))
    with pytest.raises(ValueError, match="interrupted; run encode_latents again"):
        data.open_records("latents", path=folder)
    first, second = (folder / f"latents_rank00_shard00{k}.safetensors" for k in (0, 1))
    second.write_bytes(second.read_bytes()[:-3])  # a disk that lost what it had acknowledged
    for name in ("latents_rank00_shard002.safetensors", "encoding.json"):
        (folder / f".{name}.partial-1").write_bytes(b"half")
    kept = first.stat().st_mtime_ns
    encode_records(folder, images, pca, settings)
    assert first.stat().st_mtime_ns == kept
    assert contents(folder) == contents(whole)


def test_latents_of_other_settings_are_never_mixed(images, pca, tmp_path):
    folder = encode_records(tmp_path / "out", images, pca, EncodingSettings(flips=False))
    before = contents(folder)
    with pytest.raises(ValueError, match="other settings \\(encoder differ\\)"):
        encode_records(folder, images, PatchPca.fit(images, 4, 3), EncodingSettings(flips=False))
    with pytest.raises(ValueError, match="dtype, flips differ"):
        encode_records(folder, images, pca, EncodingSettings(dtype="float16"))
    assert contents(folder) == before
    (folder / "encoding.json").unlink()
    with pytest.raises(ValueError, match="not written here"):
        encode_records(folder, images, pca, EncodingSettings(flips=False))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"finished": 1, "settings": {}}', "[" * 100_000])
def test_a_damaged_encoding_is_named(images, pca, tmp_path, text):
    folder = encode_records(tmp_path / "out", images, pca)
    (folder / "encoding.json").write_text(text)
    for use in (lambda: data.open_records("latents", path=folder), lambda: encode_records(folder, images, pca)):
        with pytest.raises(ValueError, match=r"encoding\.json: not read: it is damaged"):
            use()


class Own:
    """An encoder of the user's: the brightest value of each half, times a factor."""

    def __init__(self, factor: float):
        self.settings = {"encoder": "own", "factor": factor}
        self._factor = factor

    def encode(self, images):
        return images.reshape(len(images), 1, 8, 2, 8).max((2, 4))[..., None] * self._factor

    def decode(self, latents):
        return jnp.repeat(jnp.repeat(latents, 8, 1), 8, 2) / self._factor

    def save(self, folder):
        (folder / "own.json").write_text(json.dumps(self.settings))


def test_an_encoder_of_ones_own(images, tmp_path):
    folder = encode_records(tmp_path / "out", images, Own(3.0), EncodingSettings(flips=False))
    expected = images.normalization(images.rows).reshape(60, 8, 2, 8).max((1, 3))[:, None, :, None] * 3
    np.testing.assert_allclose(data.open_records("latents", path=folder).read(np.arange(60)), expected, rtol=1e-6)
    assert (folder / "own.json").exists()
    with pytest.raises(ValueError, match="settings are to be plain JSON"):
        encode_records(tmp_path / "bad", images, Own(np.float32(1)), EncodingSettings(flips=False))
    with pytest.raises(ValueError, match="the latent of sample 0 is NaN or infinite"):
        encode_records(tmp_path / "bad", images, Own(float("nan")), EncodingSettings(flips=False))
    assert not list((tmp_path / "bad").glob("latents_rank*"))
