"""TFDS builders of our own, which need neither TensorFlow nor a download."""

import gzip
import io
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds
from tensorflow_datasets.image_classification import mnist

DEBIAN_FOLDER = pathlib.Path("/usr/share/datasets/fashion-mnist")
_PARTS = {"train": "train", "test": "t10k"}


class FashionMnist(mnist.FashionMNIST, skip_registration=True):  # type: ignore[call-arg]
    """Fashion-MNIST from its four IDX files in `manual_dir`, under the stock name and version: the stock builder reads it too.

    Source: H. Xiao, K. Rasul and R. Vollgraf, arXiv 1708.07747.
    """

    name = "fashion_mnist"
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The four IDX files, as Debian's package dataset-fashion-mnist has them."

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        folder = pathlib.Path(dl_manager.manual_dir)
        for part in _PARTS.values():  # before anything is written
            for kind in ("images-idx3", "labels-idx1"):
                _idx_file(folder, f"{part}-{kind}-ubyte")
        return {split: self._generate_examples(folder, part) for split, part in _PARTS.items()}

    def _generate_examples(self, folder: pathlib.Path, part: str) -> Iterator[tuple[int, dict[str, Any]]]:
        images, labels = (read_idx(_idx_file(folder, f"{part}-{kind}-ubyte")) for kind in ("images-idx3", "labels-idx1"))
        if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
            raise ValueError(
                f"{folder}: {part} has images of shape {images.shape} and labels of shape {labels.shape}, expected [N, 28, 28], [N]"
            )
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield index, {"image": as_png(image), "label": int(label)}


class Digits(tfds.core.GeneratorBasedBuilder):
    """scikit-learn's 1,797 digits, grey levels 0 to 16 as they are."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"image": tfds.features.Image(shape=(8, 8, 1)), "label": tfds.features.ClassLabel(num_classes=10)}
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            disable_shuffling=True,  # in scikit-learn's order
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        import sklearn.datasets

        bunch = sklearn.datasets.load_digits()
        for index, (image, label) in enumerate(zip(bunch.images, bunch.target, strict=True)):
            yield index, {"image": as_png(image.astype(np.uint8)), "label": int(label)}


def as_png(image: np.ndarray) -> io.BytesIO:
    """A grey image `[H, W]` uint8 as a PNG file: TFDS encodes arrays with TensorFlow, and takes files as they are."""
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "png", compress_level=1)
    file.seek(0)
    return file


def _idx_file(folder: pathlib.Path, name: str) -> pathlib.Path:
    for file in (folder / f"{name}.gz", folder / name):
        if file.is_file():
            return file
    raise FileNotFoundError(
        f"manual_dir={folder}: no {name}.gz there; install it with apt-get install dataset-fashion-mnist, "
        f"which puts the four files in {DEBIAN_FOLDER}, or set --config.data.manual_dir=FOLDER_WITH_THEM"
    )


def read_idx(path: pathlib.Path) -> np.ndarray:
    """An array of uint8 from an IDX file, gzipped or not.

    Raises:
      ValueError: a file that is cut short, damaged or of another format.

    Source: http://yann.lecun.com/exdb/mnist/ (the format of the MNIST files).
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = file.read()
    except (OSError, EOFError) as error:
        raise ValueError(f"{path}: not read: cut short or damaged ({error}); copy it again") from error
    if content[:3] != b"\x00\x00\x08" or len(content) < 4 + 4 * content[3]:
        raise ValueError(f"{path}: not read: it is no IDX file of bytes")
    shape = tuple(np.frombuffer(content, ">i4", content[3], 4).tolist())
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape))
    if values.size != np.prod(shape):
        raise ValueError(f"{path}: not read: it has {values.size:,} values where its header describes {shape}; copy it again")
    return values.reshape(shape)
