"""Statistics of latents: read from every format, computed where they are missing."""

import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from flowjax import data
from flowjax.data.formats.safetensors_file import read_safetensors
from flowjax.data.sources import latent_stats
from tests.flowjax.data.sources.published_latents import STATS_PT, arrays, respoil, with_nan, write


def test_missing_statistics_are_computed_stored_and_said(tmp_path):
    shards = arrays()
    folder = write(tmp_path / "vavae", shards, stats=False)
    found = data.open_records("latents", path=folder)
    assert found.provenance["stats"].startswith("computed from all 12 latents, and written to ")
    written = read_safetensors(folder / "latents_stats.safetensors")
    whole = np.concatenate([shard["latents"] for shard in shards]).astype(np.float64)
    np.testing.assert_allclose(written["mean"], whole.mean((0, 2, 3), keepdims=True), rtol=1e-6)
    np.testing.assert_allclose(written["std"], whole.std((0, 2, 3), keepdims=True, ddof=1), rtol=1e-6)
    again = data.open_records("latents", path=folder)
    assert again.provenance["stats"] == str(folder / "latents_stats.safetensors")
    np.testing.assert_array_equal(again.load().data, found.load().data)


def test_statistics_hold_far_from_the_origin():
    rows = (np.random.default_rng(0).standard_normal((50, 4, 4, 3)) * 1e-3 + 1000).astype(np.float32)
    mean, std = latent_stats.compute_stats(rows)
    np.testing.assert_allclose(mean, rows.astype(float).mean((0, 1, 2)), rtol=1e-7)
    np.testing.assert_allclose(std, rows.astype(float).std((0, 1, 2), ddof=1), rtol=1e-4)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt"])
def test_statistics_of_every_format(tmp_path, suffix):
    mean, std = np.linspace(-1, 1, 32, dtype=np.float32), np.linspace(0.5, 2, 32, dtype=np.float32)
    file = tmp_path / f"mine{suffix}"
    if suffix == ".npz":
        np.savez(file, mean=mean, std=std)
    elif suffix == ".safetensors":
        save_file({"mean": mean.reshape(32, 1, 1), "std": std.reshape(32, 1, 1)}, file)
    else:
        shutil.copy(STATS_PT, file)
    for got, expected in zip(latent_stats.read_stats(file, 32), (mean, std), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_nan_is_found_before_statistics_are_written(tmp_path):
    folder = write(tmp_path / "vavae", arrays(), stats=False)
    respoil(latents=with_nan)(folder)
    with pytest.raises(ValueError, match="sample 6 has NaN"):
        data.open_records("latents", path=folder)
    assert not list(folder.glob("*stats*"))
