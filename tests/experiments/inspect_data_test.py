"""`python -m experiments.inspect_data`: what it finds and prints."""

import pathlib

import numpy as np
import pytest

from experiments import inspect_data
from experiments.common.data import open_data
from experiments.configs import inspect_data as inspect_presets
from experiments.configs.data import data_config
from tests.experiments.in_process import summary_of


def test_labels_far_apart_are_inspected_and_arrays_that_are_not_read_are_printed(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x_train=samples, y_train=np.array([0.0, 1, 2**31 - 2] * 4), x_test=samples[:2])
    summary = summary_of(inspect_data, inspect_presets.get_config(), tmp_path / "run", **{"data.path": str(tmp_path / "x.npz")})
    assert (summary["classes"], summary["class_counts"], summary["num_classes"]) == ([0, 1, 2**31 - 2], [4, 4, 4], 2**31 - 1)
    lines = (tmp_path / "run" / "classes.csv").read_text().split()
    assert lines == ["label,class,samples", "0,0,4", "1,1,4", "2147483646,2147483646,4"]
    assert "x: not read: x_test float32 [2, 3] (--config.data.array=NAME" in capsys.readouterr().out


@pytest.mark.slow
def test_what_was_guessed_is_said_with_the_setting_that_sets_the_other(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = np.random.default_rng(0).random((12, 3, 5, 5)).astype(np.float32)
    np.save(tmp_path / "first.npy", first)
    np.save(tmp_path / "last.npy", (2 * np.moveaxis(first, 1, -1) - 1)[::-1])  # the same samples, in another order
    found = {}
    for name, settings in (("first", {}), ("first", {"data.layout": "channels_first", "data.normalize": "0-1"}), ("last", {})):
        path = {"data.path": str(tmp_path / f"{name}.npy")}
        run = tmp_path / f"run{len(found)}"
        found[len(found)] = summary_of(inspect_data, inspect_presets.get_config(), run, **path, **settings)
    assert "looks like [C, H, W] (a guess); set layout=channels_first" in found[0]["layout"]
    assert "look like 0 to 1 (a guess), as they are; normalize=0-1" in found[0]["values"]
    assert found[1]["warnings"] == []
    assert found[1]["shape"] == [5, 5, 3]
    assert found[1]["digest"] == found[2]["digest"] != found[0]["digest"]
    capsys.readouterr()
    open_data(data_config(path=str(tmp_path / "first.npy")))  # as every binary does
    printed = capsys.readouterr().out
    assert "warning: first: samples of shape (3, 5, 5) look channels-first" in printed
    assert "models are trained on [-1, 1]; use 2 x - 1 (normalize=0-1)" in printed


@pytest.mark.slow
def test_groups_of_near_duplicates_are_listed_and_shown(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((40, 6, 6)).astype(np.float32)
    images[30:] = images[0] + 0.01 * rng.standard_normal((10, 6, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", images)
    summary = summary_of(inspect_data, inspect_presets.get_config(), tmp_path / "run", **{"data.path": str(tmp_path / "x.npy")})
    assert summary["groups"] == [11]
    lines = (tmp_path / "run" / "groups.csv").read_text().split()
    assert lines[:3] == ["group,size,sample", "0,11,0", "0,11,30"]
    assert (tmp_path / "run" / "figures" / "groups.png").exists()
