"""Data sources: what they return, and what they refuse. Files are real ones: cut short, damaged, pickled."""

import hashlib
import math
import pathlib
import pickle
import re

import numpy as np
import pytest
from sklearn.datasets import load_digits

from flowjax import data
from flowjax.data import DataSet
from flowjax.data.formats.numpy_file import read_numpy

IMAGES = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3)
LABELS = np.array([0, 1, 2, 1, 0])


def saved(path: pathlib.Path, array: np.ndarray) -> pathlib.Path:
    np.save(path, array)
    return path


def test_digits_are_scikit_learns_scaled_exactly():
    digits = data.load("digits")
    raw = load_digits()
    assert (digits.n, digits.shape, digits.d, digits.num_classes) == (1797, (8, 8, 1), 64, 10)
    assert digits.data.dtype == np.float32
    assert digits.labels.dtype == np.int32
    np.testing.assert_array_equal((digits.data[..., 0].astype(np.float64) + 1) * 8, raw.images)
    np.testing.assert_array_equal(digits.labels, raw.target)
    assert digits.value_range == (-1, 1)
    assert digits.provenance["sha256"] == hashlib.sha256(digits.data.tobytes()).hexdigest()


def test_gaussian_has_unit_moments_and_follows_its_seed():
    first = data.load("gaussian", n=4000, d=8, seed=1)
    assert (first.n, first.shape, first.labels, first.num_classes) == (4000, (8,), None, None)
    np.testing.assert_allclose(np.cov(first.data.T), np.eye(8), atol=0.1)
    np.testing.assert_array_equal(first.data, data.load("gaussian", n=4000, d=8, seed=1).data)
    assert first.provenance["sha256"] != data.load("gaussian", n=4000, d=8, seed=2).provenance["sha256"]


@pytest.mark.parametrize("settings", [{"n": 0, "d": 3}, {"n": 3, "d": 0}, {"n": 3, "d": 3, "seed": -1}])
def test_gaussian_refuses_impossible_sizes(settings):
    with pytest.raises(ValueError, match="expected at least"):
        data.load("gaussian", **settings)


def test_unknown_sources_and_settings_suggest_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'digits'"):
        data.load("digit")
    with pytest.raises(ValueError, match="did you mean 'path'"):
        data.load("arrays", paht="x.npy")
    with pytest.raises(ValueError, match="needs n, d"):
        data.load("gaussian")
    with pytest.raises(ValueError, match="needs path"):
        data.load("arrays", path="")


def test_record_counts_duplicates_and_takes_zero_for_minus_zero():
    rows = np.array([[0.0, 1], [2, 3], [-0.0, 1], [2, 3], [4, 5]], np.float32)
    assert DataSet("rows", rows).provenance["duplicates"] == 2
    assert DataSet("rows", rows).value_range == (0, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": np.zeros((5, 2))}, "float64, expected float32"),
        ({"data": np.zeros(5, np.float32)}, "expected \\[N"),
        ({"data": np.zeros((0, 2), np.float32)}, "at least one sample"),
        ({"data": np.zeros((5, 0), np.float32)}, "at least one value"),
        ({"data": np.array([[1, 2], [np.nan, 3], [4, np.inf]], np.float32)}, r"2 values are NaN or infinite.*first at index \(1, 0\)"),
        ({"labels": np.zeros(4, np.int32)}, r"shape \(4,\), expected \(5,\)"),
        ({"labels": np.zeros(5)}, "float64, expected whole numbers"),
        ({"labels": np.array([0, 1, -1, 0, 0])}, r"span \[-1, 1\]"),
        ({"labels": np.full(5, 2**31)}, "2147483648"),
        ({"labels": np.full(5, 2**31 - 1)}, "expected 0 to 2147483646"),
        ({"labels": np.full(5, 2), "class_names": ("a", "b")}, "2 class_names do not fit"),
        ({"class_names": ("a", "b")}, "class_names do not fit"),
        ({"value_range": (0.0, 0.5)}, r"outside of value_range=\(0.0, 0.5\)"),
    ],
)
def test_record_names_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        DataSet(**{"name": "mine", "data": np.ones((5, 2), np.float32), **change})


def test_labels_far_apart_cost_what_their_number_does():
    records = data.Records("mine", np.arange(12.0).reshape(4, 3), np.array([0, 2**31 - 2, 0, 1]))
    assert (records.num_classes, data.Records("mine", records.rows, np.array([0, 999, 7, 1])).num_embedded()) == (2**31 - 1, 1000)
    with pytest.raises(ValueError, match=r"labels reach 2,147,483,646, and 3 occur; .*number the classes from 0"):
        records.num_embedded()
    assert data.Records("mine", records.rows).num_embedded() == 0


def test_split_is_deterministic_disjoint_and_keeps_every_class_in_training():
    labels = np.repeat([0, 1, 2], [50, 9, 1])
    whole = DataSet("rows", np.arange(60, dtype=np.float32)[:, None], labels)
    train, heldout = whole.split(0.2, seed=3)
    assert sorted([*train.data[:, 0], *heldout.data[:, 0]]) == list(range(60))
    np.testing.assert_array_equal(np.bincount(heldout.labels), [10, 2])
    assert set(train.labels) == {0, 1, 2}
    np.testing.assert_array_equal(heldout.labels, labels[heldout.data[:, 0].astype(int)])
    np.testing.assert_array_equal(heldout.data, whole.split(0.2, seed=3)[1].data)
    assert not np.array_equal(heldout.data, whole.split(0.2, seed=4)[1].data)
    assert (heldout.provenance["split"], train.provenance["split"]) == ("heldout", "train")
    assert heldout.provenance["sha256"] == hashlib.sha256(heldout.data.tobytes()).hexdigest()


@pytest.mark.parametrize("fraction", [-0.1, 0.0, 1.0, 1e-3, float("nan")])
def test_split_refuses_shares_that_leave_nothing(fraction):
    with pytest.raises(ValueError, match="heldout_fraction"):
        data.load("gaussian", n=20, d=2).split(fraction, seed=0)


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


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n rest", "a PNG image"),
        (b"0\n1\n2\n", "text that begins with '0'"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\1\2\3\4\5\6\7\0", "of an unknown format"),
    ],
)
def test_a_file_that_is_not_numpys_is_called_what_it_is(tmp_path, content, kind):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(ValueError, match=f"no NumPy file but {kind}"):
        data.load("arrays", path=tmp_path / "x.npy")


def test_labels_from_a_file_of_their_own(tmp_path):
    path = tmp_path / "images.npz"
    np.savez(path, images=IMAGES, labels=LABELS)
    other = saved(tmp_path / "labels.npy", LABELS[::-1].astype(np.uint8))
    np.testing.assert_array_equal(data.load("arrays", path=path, labels=other).labels, LABELS[::-1])
    np.savez(tmp_path / "more.npz", images=IMAGES, y=LABELS + 1)
    np.testing.assert_array_equal(data.load("arrays", path=path, labels=tmp_path / "more.npz").labels, LABELS + 1)


class Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return pathlib.Path.touch, (self.marker,)


@pytest.mark.parametrize("form", ["npy", "npz", "pickle"])
def test_pickled_files_are_refused_and_never_run(tmp_path, form):
    marker, path = tmp_path / "was_run", tmp_path / f"trap.{form}"
    array = np.array([[Trap(marker)]], dtype=object)
    if form == "npy":
        np.save(path, array, allow_pickle=True)
    elif form == "npz":
        np.savez(path, data=array, labels=LABELS)
    else:
        path.write_bytes(pickle.dumps(Trap(marker)))
    with pytest.raises(ValueError, match="nothing is unpickled") as error:
        data.load("arrays", path=path)
    assert "\n" not in str(error.value)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Trap(marker)))
    assert marker.exists()  # the trap does work


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
@pytest.mark.parametrize("kept", [0, 1, 8, 60, 0.5, 0.99])
def test_files_cut_short_are_named(tmp_path, name, kept):
    path = tmp_path / name
    array = np.random.default_rng(0).normal(size=(50, 20))
    np.save(path, array) if name == "x.npy" else np.savez_compressed(path, data=array, labels=np.arange(50))
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    with pytest.raises(ValueError, match=r"x\.np[yz]: .*(empty|not readable)") as error:
        data.load("arrays", path=path)
    assert "\n" not in str(error.value)


def test_damaged_archives_never_load_in_silence(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, data=np.random.default_rng(0).normal(size=(50, 20)))
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="not readable"):
        data.load("arrays", path=path)


@pytest.mark.parametrize("dtype", ["f4", ">f8", "f2", "u1", "?", "i8", "U3", "S2", "M8[ns]", "c8", "V2"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (1, 2, 3)])
def test_numpys_files_are_read_as_numpy_reads_them(tmp_path, dtype, shape):
    array = np.random.default_rng(0).integers(0, 256, (math.prod(shape), np.dtype(dtype).itemsize), np.uint8) & 1
    for order in "CF":
        written = np.reshape(array.view(dtype), shape, order=order)
        np.save(tmp_path / "x.npy", written)
        np.savez_compressed(tmp_path / "x.npz", x=written, y=written)
        expected = np.load(tmp_path / "x.npy")
        for found in (read_numpy(tmp_path / "x.npy")[""], read_numpy(tmp_path / "x.npz")["y"]):
            assert (found.dtype, found.shape, found.strides) == (expected.dtype, expected.shape, expected.strides)
            assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 1L), }", ""),  # of Python 2
        ('{"shape":(2,1),"fortran_order":False,"descr":"<f4"}\n', ""),  # of other libraries
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2)}", "cut short: it has 75 bytes where its header describes 83"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2)}", "damaged: its header is"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2 1,)}", "damaged: its header is"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}", "damaged: its header is"),
        ("{'descr': '<f4', 'fortran_order': __import__('os'), 'shape': (2,)}", "damaged: its header is"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'more': 'x'}", "damaged: its header is"),
        ("{'descr': '<f4', 'fortran_order': False}", "damaged: its header is"),
        ("{'descr': 'f4,f4', 'fortran_order': False, 'shape': (1,)}", "its dtype 'f4,f4' is not one of plain numbers"),
        ("{'descr': '<k4', 'fortran_order': False, 'shape': (2,)}", "its dtype '<k4' is not known"),
        ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}", "records of several fields"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", "nothing is unpickled here"),
    ],
)
def test_headers_of_npy_files(tmp_path, header, error):
    """What a file may say of its array, and nothing else: no text of it is evaluated."""
    values = np.array([[1], [2]], np.float32)
    text = header.encode()
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + values.tobytes())
    if error:
        with pytest.raises(ValueError, match=re.escape(error)):
            read_numpy(tmp_path / "x.npy")
    else:
        np.testing.assert_array_equal(read_numpy(tmp_path / "x.npy")[""], values)


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
