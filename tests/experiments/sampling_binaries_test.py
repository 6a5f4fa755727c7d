"""What samples from a trained model, as its user runs it: `sample`, `hybrid_sampling`, `one_step`."""

import csv
import pathlib
from collections.abc import Callable
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
from tests.binary import Binary
from tests.experiments.trained_models import leave, summary, untrained


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder of experiments.train as the binaries see it: a model, and what it was trained on."""
    return leave(tmp_path_factory.mktemp("train"), untrained())


def test_a_trained_flow_comes_back_with_what_is_known_of_it(run_folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    flow = load_trained(run_folder)
    assert (flow.num_classes, flow.image_shape, flow.frechet_ratio) == (10, (8, 8, 1), 2.5)
    x, label = jnp.ones((2, 8, 8, 1)), jnp.array([0, 3], jnp.int32)
    expected = untrained()(x, jnp.full(2, 0.3, jnp.float32), label)
    np.testing.assert_allclose(flow.field(x, jnp.float32(0.3), label), expected, rtol=1e-6)
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


def test_samples_are_written_as_evaluation_suites_read_them(
    run_folder: pathlib.Path, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path
) -> None:
    sample = binary_of("sample")
    steps = (f"--config.model.path={run_folder}", "--config.num_samples=30", "--config.num_steps=4", "--config.batch_size=8")
    done = sample(*steps, f"--workdir={tmp_path / 'plain'}")
    assert done.status == 0, done.output
    held = np.load(tmp_path / "plain" / "samples.npz")
    assert (held["arr_0"].shape, held["arr_0"].dtype) == ((30, 8, 8, 3), np.uint8)
    np.testing.assert_array_equal(held["labels"], np.arange(30) % 10)
    assert {"config.json", "summary.json", "samples.csv", "report.html"} <= {entry.name for entry in (tmp_path / "plain").iterdir()}
    guided = ("--config.guidance.scale=3.0", "--config.guidance.interval=(0.3, 3.0)", "--config.guidance.coordinate=sigma")
    done = sample(
        *steps,
        *guided,
        "--config.labels=2,7",
        "--config.solver=heun",
        "--config.quality.features=classifier",
        "--config.quality.classifier_steps=80",
        f"--workdir={tmp_path / 'guided'}",
    )
    assert done.status == 0, done.output
    other = np.load(tmp_path / "guided" / "samples.npz")
    np.testing.assert_array_equal(other["labels"], np.resize([2, 7], 30))
    quality = summary(tmp_path / "guided")["quality"]
    assert quality["features"] == "classifier"
    assert quality["frechet"] > 0
    assert quality["recall"]["high"] < 0.9  # two classes of ten, of an untrained model
    assert (other["arr_0"] != held["arr_0"]).any()


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("sample", ("--config.model.path=/nowhere",), "/nowhere: no such file"),
        ("sample", ("--config.guidance.scale=nan",), "guidance scale = nan"),
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
def test_what_cannot_be_is_told_in_one_line(
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


@pytest.mark.slow
def test_hybrid_samples_turn_into_copies_and_the_verdict_says_what_that_means(
    run_folder: pathlib.Path, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path
) -> None:
    small = ("--config.num_samples=40", "--config.num_steps=20", "--config.num_switches=5", "--config.show=2")
    done = binary_of("hybrid_sampling")(f"--config.model.path={run_folder}", *small, f"--workdir={tmp_path}")
    assert done.status == 0, done.output
    found = summary(tmp_path)
    assert found["copies"]["oracle"]["value"] == 1.0
    assert found["copies"]["model"]["value"] < 0.2  # an untrained model makes nothing that looks like anything
    assert 0 < found["target_turning_point"]["measured"] < found["behavioural_turning_point"]["measured"] <= 1
    assert found["verdict"]["outcome"] == "reproduced"
    rows = list(csv.DictReader((tmp_path / "hybrid.csv").read_text().splitlines()))
    assert [float(row["t_switch"]) for row in rows] == [0, 0.25, 0.5, 0.75, 1]
    assert {entry.name for entry in (tmp_path / "figures").iterdir()} == {
        f"{name}.{suffix}" for name in ("copies", "distances", "samples") for suffix in ("png", "svg")
    }


@pytest.mark.slow
def test_a_weak_model_is_called_that(run_folder: pathlib.Path, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path) -> None:
    flow = load_trained(run_folder)
    save_trained(flow.model, tmp_path / FILE, {**flow.about, "frechet": {"ratio": 9.0}})
    small = ("--config.num_samples=20", "--config.num_steps=10", "--config.show=1", f"--config.model.path={tmp_path}")
    done = binary_of("one_step")(*small, f"--workdir={tmp_path / 'run'}")
    assert done.status == 0, done.output
    found = summary(tmp_path / "run")
    assert found["verdict"]["outcome"] == "model too weak"
    oracle = found["settled"]["along the oracle"]
    assert oracle["layout"]["t"] <= oracle["details"]["t"] < 1
    assert found["first_prediction_from_class_mean"]["along the oracle"] < 1e-6


@pytest.mark.slow
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
