"""A folder of images in two classes, and a data set of TFDS, for the tests of sources."""

import pathlib

import PIL.Image
import pytest

from flowjax.data.sources import tfds_builders
from tests.flowjax.data.sources.gradient import gradient


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> pathlib.Path:
    """A folder of TFDS with our digits in it."""
    folder = tmp_path_factory.mktemp("tfds")
    tfds_builders.Digits(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    root = tmp_path / "pets"
    for k, (name, size) in enumerate(
        [("cat/a.png", (40, 30)), ("cat/b.jpg", (64, 64)), ("dog/deep/c.webp", (25, 90)), ("dog/d.PNG", (33, 32))]
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(gradient(*size) // (k + 1)).save(root / name, quality=95)
    return root
