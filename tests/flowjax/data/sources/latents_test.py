"""Published layouts of latents, written here by the safetensors library and NumPy alone, and what can be wrong with them."""

import pathlib
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest

from flowjax import data
from flowjax.data.recognize import recognize
from flowjax.oracle import Oracle
from kernels.posterior.distributed.sharded import rows_of_process, shard_samples
from tests.flowjax.data.sources.published_latents import SIZES, STATS_PT, arrays, respoil, with_nan, write


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_shards_are_read_as_channels_last_in_their_dtype_and_normalised_by_the_stored_statistics(tmp_path, dtype):
    shards = arrays(dtype=dtype)
    folder = write(tmp_path / "vavae", shards)
    assert recognize(folder) == "latents"
    found = data.open_records("latents", path=folder)
    assert (found.n, found.shape, found.rows.dtype) == (12, (2, 3, 32), dtype)
    whole, flip = (np.moveaxis(np.concatenate([shard[key] for shard in shards]), 1, -1) for key in ("latents", "latents_flip"))
    index = np.array([11, 0, 4, 5, 7, 8, 0])
    np.testing.assert_array_equal(found.read(index), whole[index])
    np.testing.assert_array_equal(found.labels, np.concatenate([shard["labels"] for shard in shards]))
    mean, std = np.linspace(-1, 1, 32), np.linspace(0.5, 2, 32)
    loaded = found.load(flips=True)
    np.testing.assert_allclose(loaded.data[:12], (whole.astype(float) - mean) / std, atol=2e-6)
    np.testing.assert_allclose(loaded.data[12:], (flip.astype(float) - mean) / std, atol=2e-6)
    np.testing.assert_array_equal(loaded.labels, np.tile(found.labels, 2))
    assert loaded.provenance["stats"] == str(folder / "latents_stats.pt")
    np.testing.assert_allclose(jax.jit(found.normalization.inverse)(loaded.data[:12]), whole.astype(np.float32), atol=1e-5)


class Untouched:
    """Stands for a shard that nobody may read."""

    def __len__(self) -> int:
        return SIZES[1]

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        raise AssertionError("a shard was read that holds none of the rows")


def test_only_the_rows_that_are_asked_for_are_read(tmp_path):
    found = data.open_records("latents", path=write(tmp_path / "vavae", arrays()))
    expected = found.load().data[[0, 2, 9]]
    found.rows._parts[1] = Untouched()
    part = found.load(np.array([0, 2, 9]))  # what one of several processes does
    np.testing.assert_array_equal(part.data, expected)
    np.testing.assert_array_equal(part.labels, found.labels[[0, 2, 9]])


def test_the_part_of_a_process_is_what_a_sharded_oracle_takes(tmp_path):
    found = data.open_records("latents", path=write(tmp_path / "vavae", arrays()))
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]).reshape(4, 1), ("samples", "queries"))
    own = found.load(rows_of_process(found.n, mesh))
    oracle = Oracle(shard_samples(own.data, mesh, labels=own.labels, n=found.n))
    np.testing.assert_array_equal(oracle.data, found.load().data)
    np.testing.assert_array_equal(oracle.labels, found.labels)


def test_multiplier_alone_for_sd_vae_and_both_for_others(tmp_path):
    shards = arrays(channels=4)
    folder = write(tmp_path / "sdvae", shards, stats=False)
    whole = np.moveaxis(np.concatenate([shard["latents"] for shard in shards]), 1, -1)
    plain = data.load("latents", path=folder, normalize="none", multiplier=0.18215)
    np.testing.assert_allclose(plain.data, whole * 0.18215, rtol=1e-6)
    assert not (folder / "latents_stats.safetensors").exists()
    both = data.load("latents", path=folder, multiplier=0.5)
    np.testing.assert_allclose(both.data, (whole - whole.mean((0, 1, 2))) / whole.std((0, 1, 2), ddof=1) * 0.5, atol=1e-5)


def test_latents_without_stored_mirror_images_are_never_mirrored_by_their_width(tmp_path):
    shards = [{key: array for key, array in shard.items() if key != "latents_flip"} for shard in arrays()]
    with pytest.raises(ValueError, match="flips: samples of vavae are latents without stored mirror images; set it to False"):
        data.load("latents", path=write(tmp_path / "vavae", shards), flips=True)


def test_classes_and_a_number_of_samples_are_chosen(tmp_path):
    found = data.open_records("latents", path=write(tmp_path / "vavae", arrays()), classes=(1, 3))
    whole = data.open_records("latents", path=tmp_path / "vavae")
    np.testing.assert_array_equal(found.labels, whole.labels[np.isin(whole.labels, (1, 3))])
    np.testing.assert_array_equal(
        found.load(flips=True).data[found.n :], whole.load(flips=True).data[whole.n :][np.isin(whole.labels, (1, 3))]
    )
    few = data.load("latents", path=tmp_path / "vavae", max_samples=5)
    assert few.n == 5
    with pytest.raises(ValueError, match="no samples of class 9"):
        data.open_records("latents", path=tmp_path / "vavae", classes=(9,))


def test_bfloat16_in_memory_is_the_rounded_set(tmp_path):
    folder = write(tmp_path / "vavae", arrays())
    rounded = data.load("latents", path=folder, dtype="bfloat16")
    assert rounded.data.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(rounded.data, data.load("latents", path=folder).data.astype(ml_dtypes.bfloat16))
    with pytest.raises(ValueError, match="dtype='float16'"):
        data.load("latents", path=folder, dtype="float16")


def cut(folder: pathlib.Path) -> None:
    file = folder / "latents_rank00_shard001.safetensors"
    file.write_bytes(file.read_bytes()[:-7])


def damage_header(folder: pathlib.Path) -> None:
    file = folder / "latents_rank00_shard001.safetensors"
    file.write_bytes(file.read_bytes().replace(b'"latents"', b'"latents\xff', 1))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut, r"shard001.safetensors: not read: it is cut short"),
        (damage_header, r"shard001.safetensors: not read: its header is damaged"),
        (lambda folder: (folder / "latents_rank00_shard001.safetensors").write_bytes(b""), "the file is empty"),
        (lambda folder: (folder / "latents_rank00_shard001.safetensors").write_bytes(b"PK\3\4" + bytes(90)), "no .safetensors file"),
        (respoil(latents=lambda x: x.astype(np.int32)), r"latents are int32 .*expected real numbers"),
        (respoil(latents=lambda x: x.astype(np.float16)), r"latents_flip are float32"),
        (
            respoil(latents=lambda x: x[:, :4].copy(), latents_flip=lambda x: x[:, :4].copy()),
            r"shard001.* \(4, 2, 3\), those of .*\(32, 2, 3\)",
        ),
        (respoil(latents=lambda x: None), "holds the arrays .*expected one called latents"),
        (respoil(latents_flip=lambda x: None), "shard001.*has no latents_flip"),
        (respoil(labels=lambda x: None), "shard001.*has no labels"),
        (respoil(labels=lambda x: x[:-1].copy()), r"labels have shape \(2,\), expected \(3,\)"),
        (respoil(labels=lambda x: x - 9), "labels span"),
        (respoil(labels=lambda x: x.astype(np.float32)), "labels are float"),
        (respoil(latents=with_nan), "NaN"),
        (lambda folder: shutil.rmtree(folder), "vavae"),
        (lambda folder: shutil.copy(STATS_PT.parent / "malicious.pt", folder / "latents_stats.pt"), "nothing of it was run"),
        (lambda folder: shutil.copy(STATS_PT.parent / "legacy.pt", folder / "latents_stats.pt"), "before PyTorch 1.6"),
        (lambda folder: np.savez(folder / "latents_stats.npz", mean=np.zeros(4), std=np.ones(4)), "mean has 4 values, .*32 channels"),
        (lambda folder: np.savez(folder / "latents_stats.npz", mean=np.zeros(32), std=np.zeros(32)), "std is not finite and above 0"),
        (lambda folder: np.savez(folder / "latents_stats.npz", mean=np.zeros(32)), "holds mean; expected mean and std"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path, spoil, message):
    folder = write(tmp_path / "vavae", arrays())
    spoil(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        data.load("latents", path=folder)
    assert "\n" not in str(error.value)
