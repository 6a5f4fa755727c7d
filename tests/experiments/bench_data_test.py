"""`python -m experiments.bench_data` measures the rate of batches."""

import pathlib

import pytest

from experiments import bench_data
from experiments.configs import bench_data as bench_presets
from tests.experiments.in_process import summary_of


def test_the_rate_of_batches_is_measured(latents: pathlib.Path, tmp_path: pathlib.Path) -> None:
    settings = {"data.path": str(latents), "seconds": 0.2}
    summary = summary_of(bench_data, bench_presets.get_config(), tmp_path / "run", **settings)
    assert summary["samples a second"] == pytest.approx(256 * summary["batches a second"])
    # Two million were measured on two quiet cores.
    assert summary["samples a second"] > 20_000
