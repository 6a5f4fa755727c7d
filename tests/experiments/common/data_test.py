"""The `data` block that all binaries share."""

import pathlib
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from experiments.common.data import load_beside, load_data, open_data
from experiments.configs.data import data_config


def test_encoded_latents_are_recognised_by_their_path_alone(latents: pathlib.Path) -> None:
    found = load_data(data_config("digits", path=str(latents)))
    assert (found.n, found.shape, found.num_classes) == (1797, (4, 4, 2), 10)
    np.testing.assert_allclose(found.data.std((0, 1, 2), dtype=float, ddof=1), 1, atol=1e-5)


def test_queries_beside_latents_are_normalised_as_those_are(latents: pathlib.Path, tmp_path: pathlib.Path) -> None:
    part = load_file(latents / "latents_rank00_shard001.safetensors")
    save_file(part, tmp_path / "latents_rank00_shard000.safetensors")
    block = data_config(path=str(latents))
    whole, queried = load_data(block), load_beside(block, open_data(block), str(tmp_path))
    np.testing.assert_array_equal(queried.data, whole.data[500:1000])
    assert [file.name for file in tmp_path.iterdir()] == ["latents_rank00_shard000.safetensors"]


def test_a_path_takes_the_place_of_a_source_without_one_and_a_named_source_is_kept(tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((3, 2), np.float32))
    for source in ("digits", "", "arrays"):
        assert open_data(data_config(source, path=str(tmp_path / "x.npy"))).n == 3
    with pytest.raises(FileNotFoundError, match="no such folder"):
        open_data(data_config("images", path=str(tmp_path / "x.npy")))
    assert load_data(data_config("digits", classes=(3,), flips=True, max_samples=20)).n == 40


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "no data given"),
        ({"source": "digits", "labels": "y.npy"}, "config.data.path"),
        ({"source": "digits", "resolution": 8}, "data source 'digits' has no setting 'resolution'"),
        ({"source": "digist"}, "did you mean 'digits'"),
        ({"path": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"source": "digits", "dtype": "float64"}, "dtype='float64'"),
        ({"source": "digits", "classes": (11,)}, "no samples of class 11"),
    ],
)
def test_what_does_not_fit_together_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_data(data_config(**settings))
