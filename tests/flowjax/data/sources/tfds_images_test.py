"""Images from TFDS: real files, decoded by Pillow alone."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from flowjax import data
from flowjax.data.recognize import recognize
from flowjax.data.sources import tfds_builders


def test_a_registered_builder_of_ours_is_read_without_tensorflow(prepared, tmp_path):
    raw = load_digits()
    for cache_dir in (str(tmp_path), str(tmp_path), "none"):  # decoded, from the cache, decoded anew
        found = data.open_records("tfds", path=str(prepared / "digits" / "1.0.0"), cache_dir=cache_dir)
        assert found.rows.dtype == np.uint8
        np.testing.assert_array_equal(found.rows[np.arange(1797)][..., 0], raw.images)
        np.testing.assert_array_equal(found.labels, raw.target)
    assert recognize(prepared / "digits" / "1.0.0") == "tfds"
    assert tfds.builder("digits", data_dir=prepared).info.splits["train"].num_examples == 1797
    part = data.open_records("tfds", path=str(prepared / "digits" / "1.0.0"), split="train[10:30]", cache_dir=str(tmp_path))
    np.testing.assert_array_equal(part.labels, raw.target[10:30])


class TwoImages(tfds_builders.Digits):
    """Digits, and beside each an image in a format that is not read here."""

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"image": tfds.features.Image(shape=(8, 8, 1)), "other": {"mask": tfds.features.Image()}}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=None)

    def _generate_examples(self):
        for index, example in list(super()._generate_examples())[:5]:
            yield index, {"image": example["image"], "other": {"mask": io.BytesIO(b"%!PS-Adobe-3.0 EPSF-3.0")}}


def test_tfds_decodes_nothing_but_what_is_asked_for(tmp_path):
    """Its own decoder would take any format that Pillow knows, of which some start other programs."""
    TwoImages(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    found = data.open_records("tfds", path=str(tmp_path / "two_images" / "1.0.0"), cache_dir="none")
    assert found.rows[np.arange(5)].shape == (5, 8, 8, 1)
    assert found.labels is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "cifar01"}, "did you mean 'cifar10'"),
        ({"source": "fashion_mnist", "manual_dir": "/nowhere"}, "apt-get install dataset-fashion-mnist"),
        ({"source": "fashion_mnist", "manual_dir": "/usr"}, "no train-images-idx3-ubyte.gz there.*apt-get install dataset-fashion-mnist"),
        ({"source": "imagenet2012"}, "ILSVRC2012_img_train.tar"),
        ({"source": "tfds", "name": "digits", "normalize": "yes"}, "normalize='yes'"),
    ],
)
def test_what_tfds_cannot_do_here_is_said_in_one_line(settings, message, tmp_path):
    settings = dict(settings)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        data.open_records(settings.pop("source"), data_dir=str(tmp_path), **settings)
    assert "\n" not in str(error.value)


def test_an_unknown_split_is_named(prepared, tmp_path):
    with pytest.raises(ValueError, match="split='val': digits has the splits train"):
        data.open_records("tfds", path=str(prepared / "digits" / "1.0.0"), split="val", cache_dir=str(tmp_path))
