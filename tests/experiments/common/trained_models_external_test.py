"""Experiments on models that a user's own function makes: `--config.model.factory`."""

import pathlib
import re
import shlex
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from experiments.common.trained_models import all_made, guide_of, made, own_data
from experiments.configs.data import data_config
from experiments.configs.model import model_config
from tests.binary import Binary, Place
from tests.docs.your_model_test import blocks
from tests.experiments.trained_models import summary

pytest.importorskip("torch")
MINE = "tests.experiments.your_models:"


def asked(function: str, settings: str = "") -> Any:
    block = model_config()
    block.factory, block.settings = MINE + function, settings
    return block


def test_a_factory_of_the_users_makes_a_flow_and_its_fingerprint_is_of_what_made_it(tmp_path: pathlib.Path) -> None:
    flow = made(asked("untrained", '{"width": 8}'))
    assert (flow.image_shape, flow.num_classes, flow.parameters) == ((8, 8, 1), 10, 8)
    assert str(flow.source) == MINE + 'untrained{"width": 8}'
    assert flow.digest == made(asked("untrained", '{"width": 8}')).digest
    several = all_made(asked("untrained", '[{"width": 8}, {"width": 9}]'))
    assert [one.parameters for one in several] == [8, 9]
    assert several[0].digest == flow.digest != several[1].digest
    file = tmp_path / "weights.pt"
    digests = []
    for content in (b"one", b"two"):
        file.write_bytes(content)
        digests.append(made(asked("digits_by_heart", f'{{"name": "{file}"}}')).digest)
    assert digests[0] != digests[1]


def test_a_factory_makes_the_weaker_model_that_guides_and_another_kind_of_model_is_refused() -> None:
    flow = made(asked("untrained", '{"width": 8}'))
    guide = guide_of(asked("untrained"), flow)
    assert guide is not None
    assert guide.digest == made(asked("untrained")).digest
    assert guide_of(model_config(), flow) is None
    with pytest.raises(ValueError, match=r"untrained\{.classes.: 3\} differ in classes, 10 and 3: expected models alike"):
        guide_of(asked("untrained", '{"classes": 3}'), flow)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"factory": "nowhere:make"}, "model.factory='nowhere:make': no module nowhere in .* begin in the folder of nowhere.py"),
        ({"factory": "/tmp/my_model.py:make"}, "a module's name and no file's, like my_model:make"),
        ({"factory": "my_model"}, "expected MODULE:FUNCTION"),
        ({"factory": ".my_model:make"}, "expected MODULE:FUNCTION"),
        ({"factory": ":make"}, "expected MODULE:FUNCTION"),
        ({"factory": MINE + "nothing"}, "has no attribute 'nothing'"),
        ({"factory": MINE + "torch"}, "torch is a module"),
        ({"factory": MINE + "no_flow"}, "made a str; expected a flowjax.models.ExternalFlow"),
        ({"settings": "{width: 3}"}, "expected JSON"),
        ({"settings": "3"}, "expected a JSON object"),
        ({"settings": '{"depth": 3}'}, "cannot be called with it .*unexpected keyword argument 'depth'"),
        ({"path": "runs/train"}, "give one of them"),
    ],
)
def test_what_cannot_be_made_is_told_in_one_line(changes: dict[str, str], message: str) -> None:
    block = asked("untrained")
    block.update(changes)
    with pytest.raises(ValueError, match=message) as error:
        made(block)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_wrong_direction_of_time_is_told_where_data_are_at_hand(capsys: pytest.CaptureFixture[str]) -> None:
    digits = data_config("digits")
    own_data(made(asked("digits_by_heart")), digits)
    assert capsys.readouterr().err == ""
    with pytest.raises(ValueError, match=r"worse than none: .* it fits with time='thousand'") as error:
        own_data(made(asked("digits_by_heart", '{"told": "thousand", "taken": "data_is_one"}')), digits)
    assert "\n" not in str(error.value)
    own_data(made(asked("untrained")), digits)
    assert "is it trained" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"does not say what it was trained on: give --config\.data\.path"):
        own_data(made(asked("untrained")), data_config())
    with pytest.raises(ValueError, match=r"data\.noise_scale=2: a model of your own says so itself"):
        own_data(made(asked("untrained")), data_config("digits", noise_scale=2.0))


@pytest.mark.slow
def test_sample_is_told_it_too(binary_of: Callable[[str], Binary], tmp_path: pathlib.Path) -> None:
    """Where it is given data; before it samples."""
    wrong = ("--config.model.factory=" + MINE + "digits_by_heart", '--config.model.settings={"told": "thousand", "taken": "data_is_one"}')
    done = binary_of("sample")(*wrong, "--config.data.source=digits", f"--workdir={tmp_path / 'run'}")
    assert "it fits with time='thousand'" in done.error
    assert not (tmp_path / "run" / "samples.npz").exists()


@pytest.mark.long
def test_samples_of_a_torch_model_are_written(binary_of: Callable[[str], Binary], tmp_path: pathlib.Path) -> None:
    small = (
        "--config.num_samples=10",
        "--config.num_steps=2",
        "--config.batch_size=8",
        "--config.guidance.scale=2.0",
        "--config.diffusion=sigma",
    )
    done = binary_of("sample")(f"--config.model.factory={MINE}untrained", *small, f"--workdir={tmp_path}")
    assert done.status == 0, done.output
    held = np.load(tmp_path / "samples.npz")
    assert (held["arr_0"].shape, held["arr_0"].dtype) == ((10, 8, 8, 3), np.uint8)
    assert summary(tmp_path)["model"]["source"] == f"{MINE}untrained"


SCORED = ("--config.num_samples=32", "--config.batch_size=32", "--config.quality.classifier_steps=5")
SMALL = {
    "sample": ("--config.num_samples=8", "--config.num_steps=2"),
    "hybrid_sampling": ("--config.num_samples=8", "--config.num_steps=4", "--config.num_switches=2", "--config.show=1"),
    "one_step": ("--config.num_samples=8", "--config.num_steps=4", "--config.show=1"),
    "timestep_shift": (*SCORED, "--config.shifts=(0.1, 1.0)", "--config.num_steps=(2,)"),
    "guidance_interval": (*SCORED, "--config.edges=(0.0, 0.5, 1.0)", "--config.intervals=((0.0, 1.0),)", "--config.num_steps=2"),
    "loss_by_timestep": ("--config.num_queries=16", "--config.num_t=4"),
    "memorization_by_timestep": ("--config.num_queries=8", "--config.num_t=4"),
    "analytic_fields": ("--config.num_queries=8", "--config.num_t=4", "--config.fields=('gaussian', 'patch=3')", "--config.show=1"),
    "capacity_swap": (*SCORED, "--config.num_steps=(1,)", "--config.splits=(0.2,)"),
}
"""What makes each command of the page small."""
LINES = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("python -m experiments.")]
NAMES = [re.findall(r"experiments\.(\w+)", line)[0] for line in LINES]
IN_CI = ("sample",)
"""The others make their model alike: `make test-long`."""


def test_every_command_of_the_page_is_run() -> None:
    assert set(NAMES) == set(SMALL)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        pytest.param(name, line, marks=pytest.mark.slow if name in IN_CI else pytest.mark.long, id=name)
        for name, line in zip(NAMES, LINES, strict=True)
    ],
)
def test_each_command_of_the_page_runs_as_it_stands(
    name: str, line: str, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path
) -> None:
    pytest.importorskip("diffusers")
    (tmp_path / "my_model.py").write_text(next(block for block in blocks("python") if block.startswith("# my_model.py")))
    np.save(tmp_path / "unseen.npy", np.random.default_rng(0).uniform(-1, 1, (100, 8, 8, 1)).astype(np.float32))
    _, _, _, *arguments = shlex.split(line)
    place = Place(folder=str(tmp_path), environment=(("OMP_NUM_THREADS", "1"),))  # on a busy machine PyTorch's threads wait for each other
    done = binary_of(name)(*arguments, *SMALL[name], f"--workdir={tmp_path / 'run'}", place=place)
    assert done.status == 0, done.output
    assert (tmp_path / "run" / "report.html").stat().st_size > 5_000
    found = summary(tmp_path / "run")
    assert "my_model:make" in str(found.get("model", found.get("models")))
