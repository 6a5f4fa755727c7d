"""What lies at a path is recognised, or what is expected is said."""

import pytest

from flowjax.data.recognize import recognize


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


def test_nothing_recognised_says_what_is_expected(tmp_path):
    with pytest.raises(ValueError, match=r"none of latents_rank.*; it is empty"):
        recognize(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing lies there"):
        recognize(tmp_path / "nowhere")
    (tmp_path / "x.h5").touch()
    with pytest.raises(ValueError, match=r"a \.h5 file \(empty\)"):
        recognize(tmp_path / "x.h5")
    (tmp_path / "x.zip").write_bytes(b"PK\3\4")
    with pytest.raises(ValueError, match=r"a \.zip file \(a ZIP archive\).*unpack it"):
        recognize(tmp_path / "x.zip")
