"""What analyses trained models, as its user runs it; sweeps that were killed go on with the next cell."""

import csv
import pathlib
from collections.abc import Callable

import numpy as np
import pytest
from flax import nnx

from experiments.latent_comparison import as_image
from flowjax.models import Architecture, LightningDiT
from flowjax.models.trained import load_trained, save_trained
from tests.binary import Binary
from tests.experiments.trained_models import leave, summary, untrained


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Folders of experiments.train as the binaries see them: models, and what they were trained on."""
    folder = tmp_path_factory.mktemp("train")
    leave(folder / "small", untrained(1), step=100)
    leave(folder / "large", untrained(2), step=200)
    leave(folder / "clothes", untrained(2), dataset="fashion_mnist")
    leave(folder / "other", untrained(1, (4, 4, 1)))
    return folder


def table(file: pathlib.Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


SCORED = ("--config.num_samples=32", "--config.batch_size=32", "--config.quality.classifier_steps=5")


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_with_the_next_cell(
    runs: pathlib.Path, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path
) -> None:
    cells, workdir = tmp_path / "run" / "cells", f"--workdir={tmp_path / 'run'}"
    given = (f"--config.model.path={runs / 'small'}", *SCORED, "--config.shifts=(0.1, 1.0)", "--config.num_steps=(2,)")
    stopped = binary_of("timestep_shift").start(*given, workdir).kill_when(lambda: len(list(cells.glob("*.json"))) >= 3)
    assert stopped.status == -9
    left = {file: file.stat().st_mtime_ns for file in cells.glob("*.json")}
    done = binary_of("timestep_shift")(*given, "--resume", workdir)
    assert done.status == 0, done.output
    kept = {file: file.stat().st_mtime_ns for file in cells.glob("*.json")}
    assert len(kept) == 2 + 3 * 3  # whose cells they are; the turning point; each of three seeds at 0.1, 1 and what is advised
    assert left.items() <= kept.items()
    found = summary(tmp_path / "run")
    assert found["verdict"]["outcome"] in ("reproduced", "partly", "not on this data")
    assert found["by_steps"]["2"]["advised_regret"]["low"] <= found["by_steps"]["2"]["advised_regret"]["high"]
    rows = table(tmp_path / "run" / "shift.csv")
    assert [row[""] for row in rows] == ["", "advised", ""]
    assert [row["paper, gFID"] for row in rows] == ["19.91", "", "12.99"]
    assert [float(row["steps at t <= 0.2"]) for row in rows[::2]] == [0.72, 0.22]
    assert (tmp_path / "run" / "shift.md").read_text().count("\n") == len(rows) + 2


@pytest.mark.slow
def test_guidance_is_mapped_over_where_it_begins_and_ends(
    runs: pathlib.Path, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path
) -> None:
    given = ("--config.edges=(0.0, 0.5, 1.0)", "--config.intervals=((0.0, 1.0), (0.1, 0.6))", "--config.num_steps=2")
    done = binary_of("guidance_interval")(f"--config.model.path={runs / 'small'}", *SCORED, *given, f"--workdir={tmp_path}")
    assert done.status == 0, done.output
    assert [(row["t_low"], row["t_high"]) for row in table(tmp_path / "map.csv")] == [("0.0", "0.5"), ("0.0", "1.0"), ("0.5", "1.0")]
    rows = table(tmp_path / "guidance.csv")
    assert [(row["interval"], row["paper, gFID"]) for row in rows[:3]] == [("none", "12.99"), ("[0, 1]", "10.79"), ("[0.1, 0.6]", "2.8")]
    found = summary(tmp_path)
    assert set(found["own"]) == {"navigation alone", "refinement alone", "advised"}
    assert found["own"]["advised"]["interval"][0] == found["turning_point"]["measured"]


@pytest.mark.slow
def test_errors_of_models_are_compared_on_each_side_of_the_turning_point(
    runs: pathlib.Path, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path
) -> None:
    given = (f"--config.checkpoints=('{runs / 'small'}@50', '{runs / 'large'}')", "--config.num_queries=16", "--config.num_t=4")
    done = binary_of("loss_by_timestep")(*given, f"--workdir={tmp_path}")
    assert done.status == 0, done.output
    found = summary(tmp_path)
    assert [model["steps"] for model in found["models"]] == [50, 200]  # as told, and as the file says
    assert found["gains"] == []  # both differ in size and in training: neither is bought alone
    assert 0.5 < found["share_of_target_gap_in_navigation"] <= 1
    assert len(table(tmp_path / "loss_by_timestep.csv")) == 2 * 2 * 4
    given = (f"--config.checkpoints=('{runs / 'small'}@50', '{runs / 'large'}@50')", *given[1:])
    done = binary_of("loss_by_timestep")(*given, f"--workdir={tmp_path}", "--resume")
    assert done.status == 0, done.output
    gains = table(tmp_path / "gains.csv")
    assert [(row["bought by"], row["samples"], row["target"], row["stage"]) for row in gains] == [
        ("capacity", samples, target, stage)
        for samples in ("training", "held-out")
        for target in ("oracle", "cfm")
        for stage in ("navigation", "refinement")
        if (samples, target, stage) != ("held-out", "oracle", "refinement")  # where the oracle knows training samples alone
    ]
    for row in gains:
        assert float(row["low"]) <= float(row["reduction"]) <= float(row["high"])


@pytest.mark.slow
def test_spaces_are_compared_whatever_their_shape(binary_of: Callable[[str], Binary], tmp_path: pathlib.Path) -> None:
    """A model that is there, on images; vectors, whose model is trained here."""
    assert [as_image(shape) for shape in ((5,), (7, 5), (3, 2, 5), (2, 3, 7, 5))] == [(1, 1, 5), (1, 7, 5), (3, 2, 5), (6, 7, 5)]
    rng = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", rng.standard_normal((60, 4, 4, 1), np.float32))
    np.save(tmp_path / "vectors.npy", rng.standard_normal((60, 12), np.float32))
    model = LightningDiT(Architecture((4, 4, 1), 2, 1, 16, 2, num_classes=0), rngs=nnx.Rngs(0))
    save_trained(model, tmp_path / "images.safetensors", {})
    given = (
        f"--config.spaces=('a={tmp_path / 'images.npy'}@{tmp_path / 'images.safetensors'}', 'b={tmp_path / 'vectors.npy'}')",
        "--config.smooth=a",
        "--config.wavy=b",
        "--config.size=Pi",
        "--config.model.steps=2",
        "--config.model.measure=False",
        "--config.num_queries=8",
        "--config.num_t=16",
    )
    done = binary_of("latent_comparison")(*given, f"--workdir={tmp_path / 'run'}")
    assert done.status == 0, done.output
    spaces = summary(tmp_path / "run")["spaces"]
    assert (spaces["a"]["shape"], spaces["b"]["shape"]) == ([4, 4, 1], [1, 1, 12])
    for space in spaces.values():
        assert 0 < space["turning_point"]["measured"] < 1
        assert space["waviness"]["low"] <= space["waviness"]["value"] <= space["waviness"]["high"]


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
def test_what_cannot_be_is_told_in_one_line(
    name: str, arguments: tuple[str, ...], told: str, runs: pathlib.Path, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path
) -> None:
    (tmp_path / "here").mkdir()
    given = [argument.format(runs=runs, here=tmp_path / "here") for argument in arguments]
    failed = binary_of(name)(*given, f"--workdir={tmp_path / 'run'}")
    assert told in failed.error


@pytest.mark.slow
def test_small_and_large_take_turns_and_specialists_make_one_checkpoint_that_samples_like_any_other(
    runs: pathlib.Path, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path
) -> None:
    general = (f"--config.small.path={runs / 'small'}", f"--config.large.path={runs / 'large'}")
    tiny = (
        "--config.model.steps=2",
        "--config.model.measure=False",
        "--config.small.size=Pi/4",
        "--config.large.size=Na/4",
        "--config.num_steps=(1,)",
        "--config.splits=(0.1,)",
    )
    done = binary_of("capacity_swap")(*general, *tiny, *SCORED, f"--workdir={tmp_path / 'swap'}")
    assert done.status == 0, done.output
    first, own, special = table(tmp_path / "swap" / "swap.csv")
    published = [float(first[f"paper, {pair}"]) for pair in ("large/large", "small/large", "large/small", "small/small")]
    assert published == [2.94, 3.71, 11.26, 12.45]
    assert own["paper, large/large"] == special["paper, large/large"] == ""
    costs = {(row["navigator"], row["refiner"]): int(row["cost"]) for row in table(tmp_path / "swap" / "cost.csv")[:4]}
    assert costs["small", "large"] == costs["large", "small"] < costs["large", "large"]
    staged = load_trained(tmp_path / "swap" / "asymmetric.safetensors")
    assert [model.shape.width for model in (staged.model, *staged.later)] == [24, 48]
    given = (f"--config.model.path={staged.source}", "--config.num_samples=10", "--config.num_steps=4", f"--workdir={tmp_path / 'sample'}")
    done = binary_of("sample")(*given)
    assert done.status == 0, done.output
    assert np.load(tmp_path / "sample" / "samples.npz")["arr_0"].shape == (10, 8, 8, 3)
