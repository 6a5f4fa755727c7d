"""Published layouts of latents, written here by the safetensors library and NumPy alone, and what can be wrong with them."""

import ast
import json
import pathlib
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from flowjax import data
from flowjax.data.formats.safetensors_file import read_safetensors
from flowjax.data.recognize import recognize
from flowjax.data.sources import latent_stats
from flowjax.data.sources.latents import SD_VAE_MULTIPLIER
from flowjax.oracle import Oracle
from kernels.posterior.distributed.sharded import rows_of_process, shard_samples

STATS_PT = pathlib.Path(__file__).parents[1] / "files" / "latents_stats.pt"  # of 32 channels, written by PyTorch
SIZES = (5, 3, 4)


def arrays(channels: int = 32, dtype: type = np.float32) -> list[dict[str, np.ndarray]]:
    """Shards as LightningDiT's extraction leaves them."""
    rng = np.random.default_rng(0)
    return [
        {
            "latents": (rng.standard_normal((n, channels, 2, 3)) * 3 + 1).astype(dtype),
            "latents_flip": (rng.standard_normal((n, channels, 2, 3)) * 3 + 1).astype(dtype),
            "labels": rng.integers(0, 4, n),
        }
        for n in SIZES
    ]


def write(folder: pathlib.Path, shards: list[dict[str, np.ndarray]], stats: bool = True) -> pathlib.Path:
    folder.mkdir(exist_ok=True)
    for k, shard in enumerate(shards):
        save_file(shard, folder / f"latents_rank{k // 2:02d}_shard{k % 2:03d}.safetensors", {"total_size": str(len(shard["latents"]))})
    if stats:
        shutil.copy(STATS_PT, folder)
    return folder


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


def test_multiplier_alone_for_sd_vae_and_both_for_others(tmp_path):
    shards = arrays(channels=4)
    folder = write(tmp_path / "sdvae", shards, stats=False)
    whole = np.moveaxis(np.concatenate([shard["latents"] for shard in shards]), 1, -1)
    plain = data.load("latents", path=folder, normalize="none", multiplier=0.18215)
    np.testing.assert_allclose(plain.data, whole * 0.18215, rtol=1e-6)
    assert not (folder / "latents_stats.safetensors").exists()
    both = data.load("latents", path=folder, multiplier=0.5)
    np.testing.assert_allclose(both.data, (whole - whole.mean((0, 1, 2))) / whole.std((0, 1, 2), ddof=1) * 0.5, atol=1e-5)


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


def respoil(**changes):
    """Writes the second shard anew, with some arrays changed."""

    def spoil(folder: pathlib.Path) -> None:
        shard = arrays()[1]
        for key, change in changes.items():
            changed = change(shard.pop(key))
            shard |= {} if changed is None else {key: changed}
        save_file(shard, folder / "latents_rank00_shard001.safetensors")

    return spoil


def with_nan(latents: np.ndarray) -> np.ndarray:
    latents[1, 3, 0, 0] = np.nan
    return latents


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


def test_nan_is_found_before_statistics_are_written(tmp_path):
    folder = write(tmp_path / "vavae", arrays(), stats=False)
    respoil(latents=with_nan)(folder)
    with pytest.raises(ValueError, match="sample 6 has NaN"):
        data.open_records("latents", path=folder)
    assert not list(folder.glob("*stats*"))


@pytest.fixture
def repa(tmp_path) -> pathlib.Path:
    """A folder as EDM2's dataset_tools and REPA leave it: mean and standard deviation in each file."""
    root = tmp_path / "imagenet" / "vae-sd" / "00000"
    root.mkdir(parents=True)
    moments, labels = np.random.default_rng(0).standard_normal((6, 8, 2, 3)).astype(np.float32), [3, 1, 0, 1, 2, 3]
    for k, moment in enumerate(moments):
        np.save(root / f"img-mean-std-{k:08d}.npy", moment)
    index = {"labels": [[f"00000/img-mean-std-{k:08d}.npy", label] for k, label in enumerate(labels)]}
    (root.parent / "dataset.json").write_text(json.dumps(index))
    np.save(tmp_path / "moments.npy", moments)
    return tmp_path / "imagenet"


def test_repa_layout_gives_the_means_times_sd_vaes_multiplier(repa, tmp_path):
    moments = np.load(tmp_path / "moments.npy")
    for path in (repa, repa / "vae-sd"):
        assert recognize(path) == "repa"
        found = data.load("repa", path=path)
        assert (found.n, found.shape, found.name) == (6, (2, 3, 4), "imagenet")
        assert found.labels.tolist() == [3, 1, 0, 1, 2, 3]
        np.testing.assert_allclose(found.data, np.moveaxis(moments[:, :4], 1, -1) * SD_VAE_MULTIPLIER, rtol=1e-6)
    np.testing.assert_array_equal(data.load("repa", path=repa, normalize="none").data, np.moveaxis(moments[:, :4], 1, -1))


def test_repa_is_read_without_the_parser_that_fails_under_threads(repa, monkeypatch):
    """Of CPython 3.11, where two threads in `ast.literal_eval` can end in a SystemError."""

    def fail(*_):
        raise SystemError("AST constructor recursion depth mismatch")

    monkeypatch.setattr(ast, "literal_eval", fail)
    assert data.load("repa", path=repa).n == 6


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "dataset.json").write_text("{"), "dataset.json: not read"),
        (lambda root: (root / "dataset.json").write_text("[" * 100_000), "dataset.json: not read"),
        (lambda root: (root / "dataset.json").write_text('{"labels": [["a.npy", 1e400]]}'), "no whole number"),
        (lambda root: (root / "dataset.json").write_text(f'{{"labels": [["a.npy", {2**70}]]}}'), "no whole number"),
        (lambda root: (root / "dataset.json").write_text('{"labels": [["/etc/passwd", 0]]}'), "leads out of its folder"),
        (lambda root: (root / "dataset.json").write_text('{"labels": [["../../moments.npy", 0]]}'), "leads out of its folder"),
        (lambda root: (root / "dataset.json").write_text('{"labels": [["a.npy", [0.5]]]}'), "no whole number"),
        (lambda root: (root / "00000" / "img-mean-std-00000003.npy").unlink(), "00000003.npy: no such file"),
        (lambda root: np.save(root / "00000" / "img-mean-std-00000003.npy", np.zeros((8, 3, 3), np.float32)), "00000003.npy: latents are"),
        (lambda root: (root / "00000" / "img-mean-std-00000003.npy").write_bytes(b"\x93NUMPY"), "not readable"),
        (lambda root: np.save(root / "00000" / "img-mean-std-00000003.npy", np.array([{}], object)), "nothing is unpickled"),
    ],
)
def test_what_is_wrong_with_repas_folder_is_named(repa, spoil, message):
    spoil(repa / "vae-sd")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        data.load("repa", path=repa)


def test_plain_safetensors_files_are_arrays(tmp_path):
    values, labels = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32), np.array([0, 1, 2, 1])
    save_file({"images": values, "labels": labels}, tmp_path / "x.safetensors")
    assert recognize(tmp_path / "x.safetensors") == "arrays"
    found = data.load("arrays", path=tmp_path / "x.safetensors", multiplier=2.0)
    np.testing.assert_array_equal(found.data, values * 2)
    np.testing.assert_array_equal(found.labels, labels)
    (tmp_path / "x.safetensors").write_bytes((tmp_path / "x.safetensors").read_bytes()[:-1])
    with pytest.raises(ValueError, match="cut short"):
        data.load("arrays", path=tmp_path / "x.safetensors")


def test_large_npy_files_stay_on_disk_until_they_are_read(tmp_path):
    np.lib.format.open_memmap(tmp_path / "large.npy", "w+", np.float32, (2**15, 600)).flush()
    found = data.open_records("arrays", path=tmp_path / "large.npy")
    assert isinstance(found.rows, np.memmap)
    np.testing.assert_array_equal(found.read(np.array([3, 4])), np.zeros((2, 600)))
