"""Tars in WebDataset's layout are read where they lie; what is no such tar is refused in one line."""

import gzip
import io
import json
import tarfile

import numpy as np
import pytest

from flowjax import data


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def written(path, files, links=()):
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(info)
    return path


LATENTS = np.random.default_rng(0).standard_normal((4, 2, 2, 4)).astype(np.float16)


def test_latents_with_labels_in_json_are_read_in_the_order_of_the_tar(tmp_path):
    files = {}
    for i in (2, 0, 3, 1):
        files |= {f"{i}.latent.npy": npy(LATENTS[i]), f"{i}.json": json.dumps({"label": "bx"[i % 2]}).encode(), f"{i}.txt": b"caption"}
    found = data.open_records("webdataset", path=written(tmp_path / "x.tar", files))
    np.testing.assert_array_equal(found.read(np.arange(4)), LATENTS[[2, 0, 3, 1]])
    assert (found.labels.tolist(), found.class_names, found.provenance["not_read"]) == ([0, 0, 1, 1], ("b", "x"), ".txt")


@pytest.mark.parametrize(
    ("files", "links", "message"),
    [
        ({"a.npy": npy(LATENTS[0])}, ["b.npy"], "'b.npy' is a link"),
        ({"a.npy": npy(LATENTS[0]), "b.txt": b"x"}, [], r"1 of 2 samples have no \.npy, the first 'b'"),
        ({"a.npy": npy(LATENTS[0]), "b.npy": npy(LATENTS[0, :1])}, [], r"b\.npy: float16 of shape \(1, 2, 4\), the first"),
        ({"a.npy": npy(np.array([{}]))}, [], "pickled Python objects"),
        ({"a.pyd": b"x"}, [], r"has no images or \.npy arrays; its files end with \.pyd"),
        ({"a.jpg": b"x", "a.png": b"x"}, [], r"its samples may be any of jpg, png; name one"),
        ({"a.jpg": b"no image"}, [], r"a\.jpg: no image of PNG"),
        ({}, [], "no files in it"),
    ],
)
def test_a_tar_that_leaves_a_doubt_is_refused(tmp_path, files, links, message):
    with pytest.raises(ValueError, match=message) as error:
        data.load("webdataset", path=written(tmp_path / "x.tar", files, links))
    assert "\n" not in str(error.value)


def test_a_broken_tar_is_never_read_as_a_shorter_one(tmp_path):
    whole = written(tmp_path / "whole.tar", {f"{i}.npy": npy(LATENTS[i]) for i in range(4)}).read_bytes()
    ends = [100, 512 + 10, 512 + 512, 2 * 1024, 2 * 1024 + 512]  # in a header, in an array, between samples
    for content in [*(whole[:end] for end in ends), whole[:1024] + b"\xff" * 512 + whole[1536:], gzip.compress(whole), b"no tar", b""]:
        (tmp_path / "x.tar").write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.tar: not read: ") as error:
            data.load("webdataset", path=tmp_path / "x.tar")
        assert "\n" not in str(error.value)
