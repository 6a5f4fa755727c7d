"""`python -m experiments.inspect_data`: what it finds and prints."""

import pathlib

import numpy as np
import pytest

from experiments import inspect_data
from experiments.configs import inspect_data as inspect_presets
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
