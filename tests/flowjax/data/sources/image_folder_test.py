"""Folders of images: classes, crops, what is passed over and what is refused."""

import os
import pathlib
import shutil
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from flowjax import data
from flowjax.data.formats import decoding
from flowjax.data.recognize import recognize
from tests.flowjax.data.sources.gradient import gradient

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
    monkeypatch.setattr(decoding, "_HEADERS", 2)  # the first and the last
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


def test_classes_are_taken_from_the_names_of_files_if_asked_for(tmp_path):
    for name in ("cat_001.png", "cat_002.png", "dog (1).png", "7.png"):
        PIL.Image.fromarray(gradient(8, 8)).save(tmp_path / name)
    with pytest.raises(ValueError, match=r"7\.png: its name is a number and says no class"):
        data.open_records("images", path=tmp_path, labels="names", cache_dir="none")
    (tmp_path / "7.png").unlink()
    found = data.open_records("images", path=tmp_path, labels="names", cache_dir="none")
    assert (found.labels.tolist(), found.class_names) == ([0, 0, 1], ("cat", "dog"))
    assert found.provenance["label_mapping"] == "file names: 2 names, numbered in their order: 0 = cat, 1 = dog"
