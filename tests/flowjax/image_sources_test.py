"""Images from TFDS and from folders: real files, decoded by Pillow alone, cached whole or not at all."""

import gzip
import io
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from flowjax import data
from flowjax.data.formats.decoding import center_crop
from flowjax.data.recognize import recognize
from flowjax.data.sources import image_folder, tfds_builders


@pytest.fixture(scope="module")
def fashion_mnist() -> pathlib.Path:
    """The four original files, as Debian's package has them; in CI (FLOWJAX_CI) they must be there."""
    if not tfds_builders.DEBIAN_FOLDER.is_dir() and not os.environ.get("FLOWJAX_CI"):
        pytest.skip("needs apt-get install dataset-fashion-mnist")
    return tfds_builders.DEBIAN_FOLDER


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> pathlib.Path:
    """A folder of TFDS with our digits in it."""
    folder = tmp_path_factory.mktemp("tfds")
    tfds_builders.Digits(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def gradient(width: int, height: int) -> np.ndarray:
    """An RGB image that tells its places apart."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 / width, y * 255 / height, np.full_like(x, 7)], -1).astype(np.uint8)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


def png(width: int, height: int, depth: int = 8) -> bytes:
    """A PNG in colour, whose pixels are those of 8 x 8, all 0: if it says more it is cut short."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    pixels = zlib.compress(bytes(8 * (1 + 8 * 3 * depth // 8)))
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def animation(file: pathlib.Path, folder: str = "") -> None:
    """Two frames, in a folder beside the file's name if one is given."""
    file = file.parent / folder / file.name
    file.parent.mkdir(exist_ok=True)
    frames = [PIL.Image.fromarray(gradient(9, 9) // k) for k in (1, 2)]
    frames[0].save(file, save_all=True, append_images=frames[1:])


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    root = tmp_path / "pets"
    for k, (name, size) in enumerate(
        [("cat/a.png", (40, 30)), ("cat/b.jpg", (64, 64)), ("dog/deep/c.webp", (25, 90)), ("dog/d.PNG", (33, 32))]
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(gradient(*size) // (k + 1)).save(root / name, quality=95)
    return root


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


EVIL = {"pythonClassName": "evilset.payload.Feature", "featuresDict": {"features": {}}}
OWN = "tensorflow_datasets.core.features"


@pytest.mark.parametrize(
    ("file", "held"),
    [
        ("features.json", EVIL),
        ("features.json", {"python_class_name": "evilset.payload.Feature", "json_feature": {"json": "{}"}}),
        ("features.json", {"type": "evilset.payload.Feature", "content": {}}),
        ("features.json", {"pythonClassName": f"{OWN}.features_dict.FeaturesDict", "featuresDict": {"features": {"image": EVIL}}}),
        ("features.json", {"pythonClassName": f"{OWN}.sequence_feature.Sequence", "sequence": {"feature": EVIL}}),
        ("features.json", {"pythonClassName": f"{OWN}.features_dict.FeaturesDict", "jsonFeature": {"json": json.dumps({"image": EVIL})}}),
        ("dataset_info.json", {"features": EVIL}),
    ],
)
@pytest.mark.parametrize("by", ["path", "name"])
def test_no_class_that_a_data_set_of_tfds_names_is_imported(tmp_path, monkeypatch, file, held, by):
    folder = tmp_path / "mnist" / "1.0.0"
    folder.mkdir(parents=True)
    (tmp_path / "evilset").mkdir()
    (tmp_path / "evilset" / "payload.py").write_text(f"open({str(tmp_path / 'EXECUTED')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    info = {"name": "mnist", "version": "1.0.0", "fileFormat": "array_record", "splits": []}
    for name, value in {"dataset_info.json": info, "features.json": {}, file: (info if file == "dataset_info.json" else {}) | held}.items():
        (folder / name).write_text(json.dumps(value))
    asked = {"path": str(folder)} if by == "path" else {"name": "mnist:1.0.0", "data_dir": str(tmp_path)}
    with pytest.raises(ValueError, match=rf"{file}: names the class 'evilset.payload.Feature'") as error:
        data.open_records("tfds", **asked)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "EXECUTED").exists()


@pytest.mark.parametrize(
    "change", [{"name": "../digits"}, {"splits": [{"name": "train", "shardLengths": ["1"], "filepathTemplate": "../../{DATASET}-{SPLIT}"}]}]
)
def test_the_files_of_a_data_set_of_tfds_lie_in_its_folder(prepared, tmp_path, change):
    folder = shutil.copytree(prepared / "digits" / "1.0.0", tmp_path / "1.0.0")
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(info | change))
    with pytest.raises(ValueError, match="which may lie outside its folder"):
        data.open_records("tfds", path=str(folder))


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, '{"name": 3}', '{"splits": 3}', '{"version": "x"}', '{"unknown": 1}'])
@pytest.mark.parametrize("file", ["features.json", "dataset_info.json"])
def test_damaged_metadata_of_tfds_end_in_one_line(prepared, tmp_path, file, text):
    folder = shutil.copytree(prepared / "digits" / "1.0.0", tmp_path / "1.0.0")
    (folder / file).write_text(text)
    with pytest.raises(ValueError, match=re.escape(str(folder))) as error:
        data.open_records("tfds", path=str(folder), cache_dir="none")
    assert "\n" not in str(error.value)


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


def test_a_folder_of_images_has_its_classes_cropped_as_adm_does(folder, tmp_path):
    assert recognize(folder) == "images"
    found = data.open_records("images", path=folder, resolution=16, cache_dir=str(tmp_path / "cache"))
    assert (found.n, found.shape, found.class_names, found.name) == (4, (16, 16, 3), ("cat", "dog"), "pets")
    assert found.labels.tolist() == [0, 0, 1, 1]
    again = data.open_records("images", path=folder, resolution=16, cache_dir="none")
    np.testing.assert_array_equal(again.rows[np.array([3, 0, 3])], found.rows[np.array([3, 0, 3])])
    # The 40 x 30 image becomes 21 x 16, of which columns 2 to 17 are kept, and all rows: red tells the columns, green the rows.
    wide = found.rows[np.arange(1)][0].astype(float)
    assert wide[:, 0, 0].mean() == pytest.approx(255 * 2.5 / 21, abs=8)
    assert wide[:, -1, 0].mean() == pytest.approx(255 * 17.5 / 21, abs=8)
    assert wide[0, :, 1].mean() < 12
    assert wide[-1, :, 1].mean() > 235


def test_the_crop_halves_large_images_by_averages():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    averaged = noise.reshape(16, 4, 16, 4).astype(float).mean((1, 3))
    np.testing.assert_allclose(np.asarray(center_crop(PIL.Image.fromarray(noise), 16)), averaged, atol=2)


def test_one_grey_image_does_not_make_the_others_grey_and_changed_folders_are_read_anew(folder, tmp_path):
    PIL.Image.fromarray(gradient(8, 8)[..., 0]).save(folder / "cat" / "0.png")
    settings = {"path": folder, "resolution": 8, "cache_dir": str(tmp_path / "cache")}
    assert data.open_records("images", **settings).shape == (8, 8, 3)
    shutil.rmtree(folder / "dog" / "deep")
    assert data.open_records("images", **settings).n == 4


def test_grey_folders_stay_grey_and_a_colour_among_more_than_are_looked_at_first_is_named(tmp_path, monkeypatch):
    grey = PIL.Image.fromarray(gradient(8, 8)[..., 0])
    for k, mode in enumerate(("L", "LA", "RGB", "L")):
        (grey.convert(mode) if k else grey).save(tmp_path / f"{k}.png")
    monkeypatch.setattr(image_folder, "_HEADERS", 2)  # the first and the last
    found = data.open_records("images", path=tmp_path, cache_dir="none").read(np.arange(4))
    assert (found.shape, np.ptp(found, axis=0).max()) == ((4, 8, 8, 1), 0)
    PIL.Image.fromarray(gradient(8, 8)).save(tmp_path / "2.png")
    with pytest.raises(ValueError, match=r"2\.png: in colour, where others are grey"):
        data.open_records("images", path=tmp_path, cache_dir="none").read(np.arange(4))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "bird").mkdir(), "bird: a class without images"),
        (lambda root: (root / "cat" / "a.png").write_bytes(b"GIF89a"), r"a\.png: no image"),
        (lambda root: (root / "dog" / "d.PNG").write_bytes((root / "dog" / "d.PNG").read_bytes()[:-40]), r"d\.PNG: no whole image"),
        (lambda root: [shutil.rmtree(root / name) for name in ("cat", "dog")], "no images there"),
        (lambda root: PIL.Image.fromarray(np.full((9, 9), 40000, np.uint16)).save(root / "cat" / "b.png"), r"b\.png: more than 8 bits"),
        (
            lambda root: (root / "cat" / "b.png").write_bytes(png(8, 8, depth=16)),
            r"b\.png: more than 8 bits .*mode RGB.*float32 in a \.npy",
        ),
        (lambda root: (root / "cat" / "b.png").write_bytes(b""), r"b\.png: no image .* it is empty"),
        (lambda root: (root / "cat" / "b.png").write_bytes(EPS), r"b\.png: no image .* it is an EPS or PostScript file"),
        (lambda root: (root / "cat" / "b.png").write_bytes(png(50_000, 50_000)), r"b\.png: more than 67,108,864 pixels"),
        (lambda root: (root / "cat" / "b.png").write_bytes(png(8_192, 8_193)), r"b\.png: 8,192 x 8,193 pixels; more than 67,108,864"),
        (lambda root: PIL.Image.new("RGB", (1, 300_000)).save(root / "cat" / "b.png"), r"b\.png: 1 x 300,000 pixels, too long for a crop"),
        (lambda root: animation(root / "cat" / "b.webp"), r"b\.webp: an animation of 2 frames"),
        (lambda root: animation(root / "cat" / "b.png"), r"b\.png: an animation of 2 frames"),
        (lambda root: animation(root / "bird.gif", "bird"), r"bird: a class without images .* its 1 \.gif are not read: convert"),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named_and_leaves_no_cache(folder, tmp_path, spoil, message):
    spoil(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        data.open_records("images", path=folder, resolution=16, cache_dir=str(tmp_path / "cache"))
    assert not [entry for entry in (tmp_path / "cache").glob("*pets-*") if entry.suffix != ".lock"]


def test_images_of_several_sizes_need_a_resolution(folder, tmp_path):
    with pytest.raises(ValueError, match=r"b\.jpg is of size .*set --config.data.resolution"):
        data.open_records("images", path=folder, cache_dir=str(tmp_path / "cache"))


def test_what_systems_leave_in_folders_is_passed_over(folder, tmp_path):
    for name in (
        "__MACOSX/._a.png",
        "cat/._a.png",
        ".ipynb_checkpoints/a.png",
        "cat/@eaDir/a.png",
        ".DS_Store",
        "Thumbs.db",
        "dog/Thumbs.db",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0\5\26\7")
    assert recognize(folder) == "images"
    found = data.open_records("images", path=folder, resolution=8, cache_dir="none")
    assert (found.labels.tolist(), found.class_names, found.provenance.get("not_read")) == ([0, 0, 1, 1], ("cat", "dog"), None)


def test_bmp_is_read_and_images_that_are_not_are_counted(folder):
    PIL.Image.fromarray(gradient(8, 8)).save(folder / "cat" / "c.bmp")
    PIL.Image.fromarray(gradient(8, 8)).save(folder / "preview.png")
    for name in ("a.gif", "b.gif", "c.tif"):
        PIL.Image.fromarray(gradient(8, 8)).save(folder / "dog" / name)
    found = data.open_records("images", path=folder, resolution=8, cache_dir="none")
    assert (found.labels.tolist(), found.provenance["not_read"]) == (
        [0, 0, 0, 1, 1],
        "2 .gif, 1 .tif, 1 images beside the folders of the classes",
    )
    np.testing.assert_array_equal(found.read(np.array([2]))[0], gradient(8, 8))


def test_a_pipe_is_passed_over_and_a_link_without_a_target_is_named(folder):
    os.mkfifo(folder / "cat" / "pipe.png")
    assert data.open_records("images", path=folder, resolution=8, cache_dir="none").n == 4
    (folder / "cat" / "link.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(FileNotFoundError, match=r"link\.png"):
        data.open_records("images", path=folder, resolution=8, cache_dir=str(folder.parent / "cache"))


def test_a_flat_folder_is_read_without_labels(tmp_path):
    for k in (3, 1, 2):
        PIL.Image.fromarray(gradient(8, 8) // k).save(tmp_path / f"{k}.png")
    (tmp_path / "notes").mkdir()
    assert recognize(tmp_path) == "images"
    found = data.open_records("images", path=tmp_path, cache_dir="none")
    assert (found.labels, found.class_names) == (None, None)
    np.testing.assert_array_equal(found.read(np.arange(3)), [gradient(8, 8) // k for k in (1, 2, 3)])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            "train/cat/a.png train/dog/b.png val/cat/c.png",
            r"train/ \(2 folders, 2 images\), val/ \(1 folders, 1 images\); name one, .*/train",
        ),
        ("train/a.png test/b.png", r"test/ \(1 images\), train/ \(1 images\); name one"),
        ("preview.png train/cat/a.png", r"train/ \(1 folders, 1 images\); name one"),
        ("pets/cat/a.png", r"pets/ \(1 folders, 1 images\); name one"),
        ("cat/a.gif dog/b.tif dog/c.gif", r"formats that are not read, 2 \.gif, 1 \.tif; convert"),
        ("a.tif", r"formats that are not read, 1 \.tif; convert"),
        ("notes/a.txt x.npy", r"it holds notes/, x\.npy; name one of its files"),
    ],
)
def test_images_in_a_layout_that_leaves_a_doubt_are_said_to_be_there(tmp_path, names, message):
    for name in names.split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=message) as error:
        recognize(tmp_path)
    assert "\n" not in str(error.value)


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


def test_nothing_recognised_says_what_is_expected(tmp_path):
    with pytest.raises(ValueError, match=r"none of latents_rank.*; it is empty"):
        recognize(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing lies there"):
        recognize(tmp_path / "nowhere")
    (tmp_path / "x.csv").touch()
    with pytest.raises(ValueError, match=r"a \.csv file \(empty\)"):
        recognize(tmp_path / "x.csv")
    (tmp_path / "x.zip").write_bytes(b"PK\3\4")
    with pytest.raises(ValueError, match=r"a \.zip file \(a ZIP archive\).*unpack it"):
        recognize(tmp_path / "x.zip")
