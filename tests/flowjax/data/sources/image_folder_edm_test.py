"""EDM's unpacked data sets: images with their labels in one file."""

import json
import pathlib
import shutil

import numpy as np
import PIL.Image
import pytest

from flowjax import data
from flowjax.data.recognize import recognize
from tests.flowjax.data.sources.gradient import gradient


def unpacked_edm(root: pathlib.Path, labels: object) -> pathlib.Path:
    for k in range(4):
        (root / f"0000{k % 2}").mkdir(exist_ok=True)
        PIL.Image.fromarray(gradient(8, 8) // (k + 1)).save(root / f"0000{k % 2}" / f"img{k}.png")
    (root / "dataset.json").write_text(json.dumps({"labels": labels}) if isinstance(labels, list | None) else labels)
    return root


@pytest.mark.parametrize("one_hot", [False, True])
def test_an_unpacked_data_set_of_edm_is_read_with_its_labels(tmp_path, one_hot):
    labels = [[f"0000{k % 2}/img{k}.png", [float(k == c) for c in range(4)] if one_hot else k] for k in (3, 1, 0, 2)]
    assert recognize(unpacked_edm(tmp_path, labels)) == "images"
    found = data.open_records("images", path=tmp_path, cache_dir="none")
    assert found.labels.tolist() == [0, 2, 1, 3]  # in the order of the files' paths
    np.testing.assert_array_equal(found.read(np.arange(4)), [gradient(8, 8) // (k + 1) for k in (0, 2, 1, 3)])


def test_an_unpacked_data_set_of_edm_may_have_no_labels(tmp_path):
    assert data.open_records("images", path=unpacked_edm(tmp_path, None), cache_dir="none").labels is None
    for k in range(2):
        shutil.rmtree(tmp_path / f"0000{k}")
    with pytest.raises(ValueError, match=r"no images beside dataset\.json"):
        data.open_records("images", path=tmp_path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([["00000/img0.png", 0]], r"no label for 00000/img2\.png \(1 labels, 4 images\)"),
        ([[f"0000{k % 2}/img{k}.png", k] for k in range(5)], r"no image is there for its 00000/img4\.png"),
        ([[f"0000{k % 2}/img{k}.png", k / 2] for k in range(4)], "label 2 is 0.5"),
        ([[f"0000{k % 2}/img{k}.png", [k] * k] for k in range(4)], "expected one number for each file"),
        ("[" * 100_000, "not read: expected"),
        ("{}", "not read: expected"),
    ],
)
def test_labels_of_edm_that_do_not_fit_are_refused(tmp_path, labels, message):
    with pytest.raises(ValueError, match=rf"dataset\.json: .*{message}") as error:
        data.open_records("images", path=unpacked_edm(tmp_path, labels), cache_dir="none")
    assert "\n" not in str(error.value)
