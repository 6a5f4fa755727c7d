"""Builders of TFDS that prepare data from original files."""

import gzip
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from flowjax import data
from flowjax.data.sources import tfds_builders


@pytest.fixture(scope="module")
def fashion_mnist() -> pathlib.Path:
    """The four original files, as Debian's package has them; in CI (FLOWJAX_CI) they must be there."""
    if not tfds_builders.DEBIAN_FOLDER.is_dir() and not os.environ.get("FLOWJAX_CI"):
        pytest.skip("needs apt-get install dataset-fashion-mnist")
    return tfds_builders.DEBIAN_FOLDER


def test_the_original_files_of_fashion_mnist_are_read(fashion_mnist):
    images = tfds_builders.read_idx(fashion_mnist / "t10k-images-idx3-ubyte.gz")
    labels = tfds_builders.read_idx(fashion_mnist / "t10k-labels-idx1-ubyte.gz")
    assert (images.shape, labels.shape) == ((10000, 28, 28), (10000,))
    np.testing.assert_array_equal(np.bincount(labels), [1000] * 10)
    assert (images.min(), images.max()) == (0, 255)


def cut(original: pathlib.Path, folder: pathlib.Path, images: int) -> np.ndarray:
    """The first images, or labels, of an IDX file, in a file of the same name; what it holds."""
    with gzip.open(original) as file:
        whole = file.read()
    head = 16 if "images" in original.name else 8
    size = 28 * 28 if "images" in original.name else 1
    values = whole[head : head + images * size]
    with gzip.open(folder / original.name, "wb", compresslevel=1) as file:
        file.write(whole[:4] + images.to_bytes(4, "big") + whole[8:head] + values)
    return np.frombuffer(values, np.uint8).reshape(images, size)


@pytest.mark.slow
def test_fashion_mnist_is_prepared_from_its_files_and_read_under_its_stock_name(fashion_mnist, tmp_path):
    """Of 3,000 and 500 images; the first attempt is killed."""
    manual = tmp_path / "manual"
    manual.mkdir()
    raw = {file.name[:8]: cut(file, manual, 3000 if file.name.startswith("train") else 500) for file in sorted(fashion_mnist.glob("*.gz"))}
    assert sorted(raw) == ["t10k-ima", "t10k-lab", "train-im", "train-la"]
    settings = {"data_dir": str(tmp_path / "tfds"), "cache_dir": str(tmp_path / "cache"), "manual_dir": str(manual)}
    killed = f"from flowjax import data; data.open_records('fashion_mnist', **{settings})"
    with subprocess.Popen([sys.executable, "-c", killed], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not list((tmp_path / "tfds").glob("fashion_mnist/incomplete*/*")):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert not (tmp_path / "tfds" / "fashion_mnist" / "3.0.1").exists()
    train = data.open_records("fashion_mnist", **settings)
    # TFDS shuffles what it prepares: the same images with the same labels, in another order.
    expected = np.concatenate([raw["train-im"], raw["train-la"]], 1)
    found = np.concatenate([np.asarray(train.rows).reshape(3000, -1), train.labels[:, None].astype(np.uint8)], 1)
    np.testing.assert_array_equal(np.sort(found.view("V785").ravel()), np.sort(np.ascontiguousarray(expected).view("V785").ravel()))
    assert train.class_names[:2] == ("T-shirt/top", "Trouser")
    assert tfds.builder("fashion_mnist:3.0.1", data_dir=tmp_path / "tfds").info.splits["test"].num_examples == 500
    assert data.load("fashion_mnist", **settings).n == 3000


@pytest.mark.parametrize("damage", ["short", "header", "not gzip"])
def test_damaged_idx_files_are_named(tmp_path, damage):
    whole = b"\0\0\x08\x01\0\0\0\x05" + bytes(5)
    content = {"short": gzip.compress(whole[:-1]), "header": gzip.compress(b"\0\0\x0d" + whole[3:]), "not gzip": whole}[damage]
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.gz: not read"):
        tfds_builders.read_idx(tmp_path / "x.gz")
