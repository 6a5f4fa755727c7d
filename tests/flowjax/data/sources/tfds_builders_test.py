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


@pytest.mark.slow
def test_fashion_mnist_is_prepared_from_its_files_and_read_under_its_stock_name(fashion_mnist, tmp_path):
    settings = {"data_dir": str(tmp_path / "tfds"), "cache_dir": str(tmp_path / "cache"), "manual_dir": str(fashion_mnist)}
    killed = f"from flowjax import data; data.open_records('fashion_mnist', **{settings})"
    with subprocess.Popen([sys.executable, "-c", killed], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not list((tmp_path / "tfds").glob("fashion_mnist/incomplete*/*")):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert not (tmp_path / "tfds" / "fashion_mnist" / "3.0.1").exists()
    train = data.open_records("fashion_mnist", **settings)
    with gzip.open(fashion_mnist / "train-images-idx3-ubyte.gz") as file:
        raw = np.frombuffer(file.read(), np.uint8, offset=16).reshape(60000, 28, 28)
    with gzip.open(fashion_mnist / "train-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    # TFDS shuffles what it prepares: the same images with the same labels, in another order.
    expected = np.concatenate([raw.reshape(60000, -1), labels[:, None]], 1)
    found = np.concatenate([np.asarray(train.rows).reshape(60000, -1), train.labels[:, None].astype(np.uint8)], 1)
    np.testing.assert_array_equal(np.sort(found.view("V785").ravel()), np.sort(np.ascontiguousarray(expected).view("V785").ravel()))
    assert train.class_names[:2] == ("T-shirt/top", "Trouser")
    assert tfds.builder("fashion_mnist:3.0.1", data_dir=tmp_path / "tfds").info.splits["test"].num_examples == 10000
    started = time.perf_counter()
    assert data.load("fashion_mnist", **settings).n == 60000
    assert time.perf_counter() - started < 10  # 2.1 s on two quiet cores


@pytest.mark.parametrize("damage", ["short", "header", "not gzip"])
def test_damaged_idx_files_are_named(tmp_path, damage):
    whole = b"\0\0\x08\x01\0\0\0\x05" + bytes(5)
    content = {"short": gzip.compress(whole[:-1]), "header": gzip.compress(b"\0\0\x0d" + whole[3:]), "not gzip": whole}[damage]
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.gz: not read"):
        tfds_builders.read_idx(tmp_path / "x.gz")
