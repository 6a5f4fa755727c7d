"""What binaries that take a trained model refuse, each in one line."""

import pathlib
from collections.abc import Callable

import numpy as np
import pytest

from flowjax.models import export_lightningdit
from tests.binary import Binary
from tests.experiments.trained_models import untrained


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("timestep_shift", ("--config.shifts=(0.0, 1.0)",), "expected a finite shift"),
        ("timestep_shift", ("--config.num_seeds=2",), "num_seeds = 2"),
        ("guidance_interval", ("--config.intervals=((0.6, 0.1),)",), "lower end first"),
        ("guidance_interval", ("--config.intervals=((0.2, 0.2),)",), "not empty"),
        ("guidance_interval", ("--config.edges=(0.5, 0.1, 1.0)",), "rising"),
        ("loss_by_timestep", ("--config.checkpoints=('{runs}/small', '{runs}/other')",), "makes samples of shape (4, 4, 1), and"),
        ("loss_by_timestep", ("--config.checkpoints=('{runs}/small@soon', '{runs}/large')",), "PATH@STEPS"),
        ("capacity_swap", ("--config.small.path={runs}/large", "--config.large.path={runs}/small"), "expected fewer in the small one"),
        (
            "capacity_swap",
            ("--config.small.path={runs}/small", "--config.large.path={runs}/clothes"),
            "differ in dataset, digits and fashion_mnist",
        ),
        ("capacity_swap", ("--config.splits=(0.0,)",), "a stage that is empty"),
        ("latent_comparison", ("--config.spaces=('pixels', 'vae')",), "expected one of pixels"),
        ("latent_comparison", ("--config.spaces=('plain={here}', 'aligned={here}')",), "a folder with none of latents_rank"),
    ],
)
def test_wrong_settings_end_in_one_line(
    name: str, arguments: tuple[str, ...], told: str, runs: pathlib.Path, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path
) -> None:
    (tmp_path / "here").mkdir()
    given = [argument.format(runs=runs, here=tmp_path / "here") for argument in arguments]
    failed = binary_of(name)(*given, f"--workdir={tmp_path / 'run'}")
    assert told in failed.error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("sample", ("--config.model.path=/nowhere",), "/nowhere: no such file"),
        ("sample", ("--config.guidance.scale=nan",), "guidance scale = nan"),
        ("sample", ("--config.guidance.scale=2.0", "--config.guide.path=/nowhere"), "/nowhere: no such file"),
        ("sample", ("--config.guidance.scale=2.0", "--config.guidance.interval=(0.6, 0.1)"), "lower end first"),
        ("sample", ("--config.guidance.scale=2.0", "--config.guidance.interval=(0.2, 0.2)"), "not empty"),
        ("sample", ("--config.labels=3,10",), "0 to 9"),
        ("sample", ("--config.solver=rk4",), "expected one of euler"),
        ("sample", ("--config.decoder=/nowhere",), "decoder: /nowhere holds neither"),
        ("sample", ("--config.quality.features={published}",), "is no InceptionV3"),
        ("sample", ("--config.quality.features=/nowhere.pth",), "/nowhere.pth"),
        ("sample", ("--config.quality.features=classifier", "--config.quality.reference={other}"), "holds no reference statistics"),
        ("hybrid_sampling", ("--config.num_switches=1",), "num_switches = 1"),
        ("hybrid_sampling", ("--config.t_switch=(0.5, 1.5)",), "t_switch = [0.5, 1.5]"),
        ("hybrid_sampling", ("--config.data.path={other}",), "makes samples of shape (8, 8, 1)"),
        ("hybrid_sampling", ("--config.model.path={published}",), "does not say what it was trained on"),
        ("one_step", ("--config.level=1.5",), "level = 1.5"),
        ("one_step", ("--config.model.path={here}",), "holds no model.safetensors"),
    ],
)
def test_wrong_settings_of_samplers_end_in_one_line(
    name: str, arguments: tuple[str, ...], told: str, run_folder: pathlib.Path, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path
) -> None:
    np.save(tmp_path / "other.npy", np.zeros((20, 4, 4, 1), np.float32) + np.arange(20, dtype=np.float32)[:, None, None, None])
    export_lightningdit(untrained(), tmp_path / "published.safetensors")
    places = {"other": tmp_path / "other.npy", "published": tmp_path / "published.safetensors", "here": tmp_path}
    given = [argument.format(**places) for argument in arguments]
    model = () if any("model.path" in argument for argument in given) else (f"--config.model.path={run_folder}",)
    small = ("--config.num_samples=4", "--config.num_steps=2")
    failed = binary_of(name)(*model, *small, *given, f"--workdir={tmp_path / 'run'}")
    assert told in failed.error
    assert not (tmp_path / "run").exists()
