"""Arrays of the user: which array of a file is read, its scale, its labels, and what is refused."""

import pathlib

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from flowjax import data
from flowjax.data.recognize import recognize
from tests.flowjax.data.small_images import LABELS

IMAGES = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3)


def saved(path: pathlib.Path, array: np.ndarray) -> pathlib.Path:
    np.save(path, array)
    return path


def test_uint8_is_scaled_unless_told_otherwise(tmp_path):
    path = saved(tmp_path / "images.npy", IMAGES)
    scaled = data.load("arrays", path=path)
    np.testing.assert_allclose(scaled.data, IMAGES / 127.5 - 1, atol=1e-7)
    assert (scaled.name, scaled.value_range, scaled.provenance["scaling"]) == ("images", (-1, 1), "x / 127.5 - 1")
    assert (scaled.provenance["path"], scaled.provenance["dtype"], scaled.provenance["labels"]) == (str(path), "uint8", None)
    np.testing.assert_array_equal(data.load("arrays", path=path, normalize="none").data, IMAGES)


@pytest.mark.parametrize("dtype", ["float64", ">f4", "float16", "int64", "bool"])
def test_other_types_are_left_as_they_are_in_float32(tmp_path, dtype):
    array = IMAGES.astype(dtype)
    loaded = data.load("arrays", path=saved(tmp_path / "x.npy", array)).data
    assert loaded.dtype == np.dtype("float32")
    np.testing.assert_array_equal(loaded, array)


def test_npz_keys_are_looked_up_in_their_order(tmp_path):
    path = tmp_path / "all.npz"
    np.savez(path, arr_0=IMAGES + 1, latents=IMAGES + 2.0, images=IMAGES + 3.0, y=LABELS)
    loaded = data.load("arrays", path=path)
    np.testing.assert_array_equal(loaded.data, IMAGES + 3.0)
    np.testing.assert_array_equal(loaded.labels, LABELS)
    assert loaded.provenance["labels"] == str(path)
    np.savez(path, something=IMAGES)
    assert data.load("arrays", path=path).n == 5
    np.savez(path, something=IMAGES, other=LABELS)
    with pytest.raises(
        ValueError, match=r"holds the arrays something uint8 \[5, 2, 3\], other int64 \[5\], .* called data, images, .*array=NAME"
    ):
        data.load("arrays", path=path)


@pytest.mark.parametrize(
    ("names", "settings", "labels", "not_read"),
    [
        ("arr_0 arr_1", {}, True, None),  # ADM's reference batches
        ("x_train y_train x_test y_test", {}, True, "x_test uint8 [5, 2, 3], y_test int64 [5]"),  # Keras
        ("X_train y_train", {}, True, None),
        ("train_images train_labels", {}, True, None),  # MedMNIST
        ("image label", {}, True, None),
        ("data targets", {}, True, None),
        ("x_test y_test x_train y_train", {"array": "x_test"}, True, "x_train uint8 [5, 2, 3], y_train int64 [5]"),
        ("foo bar", {"array": "foo", "label_array": "bar"}, True, None),
        ("foo bar", {"array": "foo"}, False, "bar int64 [5]"),
        ("data labels", {"label_array": "none"}, False, "labels int64 [5]"),
    ],
)
def test_labels_beside_the_samples_are_found_and_arrays_that_are_not_read_named(tmp_path, names, settings, labels, not_read):
    path = tmp_path / "all.npz"
    np.savez(path, **{name: LABELS if k % 2 else IMAGES for k, name in enumerate(names.split())})
    found = data.open_records("arrays", path=path, **settings)
    np.testing.assert_array_equal(found.rows, IMAGES)
    np.testing.assert_array_equal(found.labels, LABELS if labels else None)
    assert found.provenance.get("not_read") == not_read


def test_a_second_array_that_cannot_be_labels_is_named_and_labels_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "two.npz"
    np.savez(path, IMAGES, IMAGES)
    found = data.open_records("arrays", path=path)
    assert (found.labels, found.provenance["not_read"]) == (None, "arr_1 uint8 [5, 2, 3]")
    np.savez(path, data=IMAGES, y=LABELS + 0.5)
    with pytest.raises(ValueError, match=r"array 'y': label 0 is 0.5, expected whole .* set --config.data.label_array=none"):
        data.load("arrays", path=path)
    with pytest.raises(ValueError, match=r"holds no array 'z'; it has data uint8 \[5, 2, 3\], y float64"):
        data.load("arrays", path=path, label_array="z")


def test_labels_from_a_file_of_their_own(tmp_path):
    path = tmp_path / "images.npz"
    np.savez(path, images=IMAGES, labels=LABELS)
    other = saved(tmp_path / "labels.npy", LABELS[::-1].astype(np.uint8))
    np.testing.assert_array_equal(data.load("arrays", path=path, labels=other).labels, LABELS[::-1])
    np.savez(tmp_path / "more.npz", images=IMAGES, y=LABELS + 1)
    np.testing.assert_array_equal(data.load("arrays", path=path, labels=tmp_path / "more.npz").labels, LABELS + 1)


@pytest.mark.parametrize("array", [np.ones((3, 2), complex), np.array([["a"], ["b"]]), np.zeros((3, 2), "datetime64[s]")])
def test_values_that_are_no_real_numbers_are_refused(tmp_path, array):
    with pytest.raises(ValueError, match="expected real numbers"):
        data.load("arrays", path=saved(tmp_path / "x.npy", array))


def test_other_wrong_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npy: no such file; give the path"):
        data.load("arrays", path=tmp_path / "nowhere.npy")
    with pytest.raises(FileNotFoundError):
        data.load("arrays", path=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npy"):
        data.load("arrays", path=saved(tmp_path / "x.npy", IMAGES), labels=tmp_path / "nowhere.npy")
    with pytest.raises(ValueError, match="normalize='yes'"):
        data.load("arrays", path=tmp_path / "x.npy", normalize="yes")
    with pytest.raises(ValueError, match="infinite"):
        data.load("arrays", path=saved(tmp_path / "large.npy", np.full((2, 2), 1e300)))


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


def test_tensors_are_read_whatever_holds_them(tmp_path):
    tensors, labels = torch.from_numpy(IMAGES), torch.from_numpy(LABELS)
    nested = {"train": {"images": tensors, "labels": labels}, "epoch": 3}
    for held in (tensors, (tensors, labels), {"data": tensors, "targets": labels}, list(tensors)):
        torch.save(held, tmp_path / "x.pt")
        found = data.open_records(recognize(tmp_path / "x.pt"), path=tmp_path / "x.pt")
        np.testing.assert_array_equal(found.rows, IMAGES)
        np.testing.assert_array_equal(found.labels, LABELS if isinstance(held, tuple | dict) else None)
    torch.save(nested, tmp_path / "x.pt")
    found = data.open_records("arrays", path=tmp_path / "x.pt", array="train.images", label_array="train.labels")
    np.testing.assert_array_equal(found.labels, LABELS)
