"""Trained models that binaries take: read with what is known of them, or trained in the folder of the run."""

import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.common.trained_models import MODELS, own_data, train_within, training_config
from experiments.configs.data import data_config
from experiments.configs.model import model_config
from flowjax.models import Architecture, LightningDiT, export_lightningdit
from flowjax.models.trained import FILE, load_trained, save_trained
from flowjax.reporting.workdir import open_workdir
from tests.experiments.trained_models import leave, untrained


@pytest.mark.slow
def test_a_trained_flow_comes_back_with_what_is_known_of_it(run_folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    flow = load_trained(run_folder)
    assert (flow.num_classes, flow.image_shape, flow.frechet_ratio) == (10, (8, 8, 1), 2.5)
    x, label = jnp.ones((2, 8, 8, 1)), jnp.array([0, 3], jnp.int32)
    expected = untrained()(x, jnp.full(2, 0.3, jnp.float32), label)
    np.testing.assert_allclose(flow.field(x, jnp.float32(0.3), label), expected, rtol=1e-6, atol=1e-6)  # two programs
    wide = LightningDiT(Architecture((4, 12, 2), 2, 1, 16, 2, num_classes=0), rngs=nnx.Rngs(0))
    save_trained(wide, tmp_path / "wide.safetensors", {})
    assert load_trained(tmp_path / "wide.safetensors").image_shape == (4, 12, 2)
    export_lightningdit(untrained(), tmp_path / "published.safetensors")
    assert load_trained(tmp_path / "published.safetensors").frechet_ratio is None


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"source": "cifar10"}, "cifar10 is not prepared in .* what only a file names is not downloaded"),
        ({"source": "cifar10:3.0.2"}, "cifar10:3.0.2 is not prepared in"),
        ({"surprise": 1}, "surprise is no key"),
        ({"path": 3}, "its data cannot be read"),
    ],
)
def test_nothing_is_fetched_that_only_a_checkpoint_names(tmp_path: pathlib.Path, told: dict[str, Any], message: str) -> None:
    config = training_config(model_config()).to_dict()
    config["data"] |= {"data_dir": str(tmp_path / "tfds")} | told
    flow = load_trained(leave(tmp_path / "run", untrained(), config=config))
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        own_data(flow, data_config())
    assert "\n" not in str(error.value)
    assert not (tmp_path / "tfds").exists()


@pytest.mark.long
def test_without_a_model_one_is_trained_in_the_workdir_and_kept(tmp_path: pathlib.Path) -> None:
    config = training_config(model_config())
    config.model.size = "Mi/4"
    config.update(steps=2, batch_size=16)
    config.mesh.batch = 1
    config.evaluation.update(oracle=False, frechet_samples=0, grid=10, sampler_steps=2)
    times = []
    for _ in range(2):
        with open_workdir(tmp_path / "run", live=(MODELS,), resume=True) as workdir:
            folder = train_within(config, workdir, "digits")
        times.append((folder / FILE).stat().st_mtime_ns)
    assert times[0] == times[1]
    flow = load_trained(folder)
    assert (flow.about["step"], flow.image_shape, flow.num_classes) == (2, (8, 8, 1), 10)
