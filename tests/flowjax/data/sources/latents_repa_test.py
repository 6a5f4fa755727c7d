"""REPA's and EDM2's layout of latents: one file of moments for each image."""

import ast
import json
import pathlib

import numpy as np
import pytest

from flowjax import data
from flowjax.data.recognize import recognize
from flowjax.data.sources.latents import SD_VAE_MULTIPLIER


@pytest.fixture
def repa(tmp_path) -> pathlib.Path:
    """A folder as EDM2's dataset_tools and REPA leave it: mean and standard deviation in each file."""
    root = tmp_path / "imagenet" / "vae-sd" / "00000"
    root.mkdir(parents=True)
    moments, labels = np.random.default_rng(0).standard_normal((6, 8, 2, 3)).astype(np.float32), [3, 1, 0, 1, 2, 3]
    for k, moment in enumerate(moments):
        np.save(root / f"img-mean-std-{k:08d}.npy", moment)
    index = {"labels": [[f"00000/img-mean-std-{k:08d}.npy", label] for k, label in enumerate(labels)]}
    (root.parent / "dataset.json").write_text(json.dumps(index))
    np.save(tmp_path / "moments.npy", moments)
    return tmp_path / "imagenet"


def test_repa_layout_gives_the_means_times_sd_vaes_multiplier(repa, tmp_path):
    moments = np.load(tmp_path / "moments.npy")
    for path in (repa, repa / "vae-sd"):
        assert recognize(path) == "repa"
        found = data.load("repa", path=path)
        assert (found.n, found.shape, found.name) == (6, (2, 3, 4), "imagenet")
        assert found.labels.tolist() == [3, 1, 0, 1, 2, 3]
        np.testing.assert_allclose(found.data, np.moveaxis(moments[:, :4], 1, -1) * SD_VAE_MULTIPLIER, rtol=1e-6)
    np.testing.assert_array_equal(data.load("repa", path=repa, normalize="none").data, np.moveaxis(moments[:, :4], 1, -1))


def test_repa_is_read_without_the_parser_that_fails_under_threads(repa, monkeypatch):
    """Of CPython 3.11, where two threads in `ast.literal_eval` can end in a SystemError."""

    def fail(*_):
        raise SystemError("AST constructor recursion depth mismatch")

    monkeypatch.setattr(ast, "literal_eval", fail)
    assert data.load("repa", path=repa).n == 6


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "dataset.json").write_text("{"), "dataset.json: not read"),
        (lambda root: (root / "dataset.json").write_text("[" * 100_000), "dataset.json: not read"),
        (lambda root: (root / "dataset.json").write_text('{"labels": [["a.npy", 1e400]]}'), "no whole number"),
        (lambda root: (root / "dataset.json").write_text(f'{{"labels": [["a.npy", {2**70}]]}}'), "no whole number"),
        (lambda root: (root / "dataset.json").write_text('{"labels": [["/etc/passwd", 0]]}'), "leads out of its folder"),
        (lambda root: (root / "dataset.json").write_text('{"labels": [["../../moments.npy", 0]]}'), "leads out of its folder"),
        (lambda root: (root / "dataset.json").write_text('{"labels": [["a.npy", [0.5]]]}'), "no whole number"),
        (lambda root: (root / "00000" / "img-mean-std-00000003.npy").unlink(), "00000003.npy: no such file"),
        (lambda root: np.save(root / "00000" / "img-mean-std-00000003.npy", np.zeros((8, 3, 3), np.float32)), "00000003.npy: latents are"),
        (lambda root: (root / "00000" / "img-mean-std-00000003.npy").write_bytes(b"\x93NUMPY"), "not readable"),
        (lambda root: np.save(root / "00000" / "img-mean-std-00000003.npy", np.array([{}], object)), "nothing is unpickled"),
    ],
)
def test_what_is_wrong_with_repas_folder_is_named(repa, spoil, message):
    spoil(repa / "vae-sd")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        data.load("repa", path=repa)
