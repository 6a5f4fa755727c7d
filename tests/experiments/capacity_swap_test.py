"""`python -m experiments.capacity_swap` as its user runs it."""

import pathlib
from collections.abc import Callable

import numpy as np
import pytest

from flowjax.models.trained import load_trained
from tests.binary import Binary
from tests.experiments.trained_models import SCORED, table

TINY = (
    "--config.model.steps=2",
    "--config.model.measure=False",
    "--config.small.size=Pi/4",
    "--config.large.size=Na/4",
    "--config.num_steps=(1,)",
    "--config.splits=(0.1,)",
)


@pytest.mark.slow
def test_small_and_large_take_turns(runs: pathlib.Path, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path) -> None:
    general = (f"--config.small.path={runs / 'small'}", f"--config.large.path={runs / 'large'}")
    done = binary_of("capacity_swap")(*general, *TINY, *SCORED, "--config.specialists=False", f"--workdir={tmp_path}")
    assert done.status == 0, done.output
    first, own = table(tmp_path / "swap.csv")
    published = [float(first[f"paper, {pair}"]) for pair in ("large/large", "small/large", "large/small", "small/small")]
    assert published == [2.94, 3.71, 11.26, 12.45]
    assert own["paper, large/large"] == ""
    costs = {(row["navigator"], row["refiner"]): int(row["cost"]) for row in table(tmp_path / "cost.csv")[:4]}
    assert costs["small", "large"] == costs["large", "small"] < costs["large", "large"]
    assert not (tmp_path / "asymmetric.safetensors").exists()


@pytest.mark.long
def test_specialists_make_one_checkpoint_that_samples_like_any_other(
    runs: pathlib.Path, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path
) -> None:
    general = (f"--config.small.path={runs / 'small'}", f"--config.large.path={runs / 'large'}")
    done = binary_of("capacity_swap")(*general, *TINY, *SCORED, f"--workdir={tmp_path / 'swap'}")
    assert done.status == 0, done.output
    assert len(table(tmp_path / "swap" / "swap.csv")) == 3
    staged = load_trained(tmp_path / "swap" / "asymmetric.safetensors")
    assert [model.shape.width for model in (staged.model, *staged.later)] == [24, 48]
    given = (f"--config.model.path={staged.source}", "--config.num_samples=10", "--config.num_steps=4", f"--workdir={tmp_path / 'sample'}")
    done = binary_of("sample")(*given)
    assert done.status == 0, done.output
    assert np.load(tmp_path / "sample" / "samples.npz")["arr_0"].shape == (10, 8, 8, 3)
