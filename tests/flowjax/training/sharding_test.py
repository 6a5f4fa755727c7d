"""One step on any number of devices and processes: what crosses them, where the state lies, and that the losses are the same."""

import functools
import math
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import pytest

from flowjax.data.pipeline import Batches
from flowjax.data.sources.digits import records
from flowjax.models import Architecture
from flowjax.objective import Objective
from flowjax.oracle import Oracle
from flowjax.training.checkpoint import Checkpointer
from flowjax.training.sharding import make_mesh, oracle_mesh, place_batch
from flowjax.training.step import State, Trainer, make_optimizer
from flowjax.training.tasks import FlowTask
from kernels.tpu_tools.hlo import collectives

ROOT = pathlib.Path(__file__).parents[3]
SHAPE = Architecture(image_shape=(8, 8, 1), patch=4, depth=3, width=32, heads=2, num_classes=10)
MESHES = {1: (1, 1), 2: (1, 2), 4: (2, 2), 8: (2, 4)}
BATCH, STEPS = 16, 4
RATE = 1e-3

pytestmark = pytest.mark.slow


def batches(index: int = 0, count: int = 1) -> Batches:
    return Batches(records(), BATCH, seed=0, label_dropout=0.1, process_index=index, process_count=count)


def trainer(devices: int, target: str = "cfm", accumulation: int = 1) -> Trainer:
    task = FlowTask(SHAPE, Objective(target=target), records().normalization, scan=True)
    return Trainer(task, make_optimizer(RATE, clip=1.0), make_mesh(*MESHES[devices]), accumulation=accumulation)


def checkpointer(folder: pathlib.Path) -> Checkpointer:
    return Checkpointer(folder, every=2, keep=3, meta={"model": "small"})


@functools.cache
def compiled(devices: int, accumulation: int = 1) -> tuple[Trainer, jax.stages.Compiled]:
    """A step, compiled once for all tests."""
    one = trainer(devices, accumulation=accumulation)
    return one, one.step().lower(one.placed(), place_batch(batches()[0], one.mesh), None).compile()


def follow(one: Trainer, program: Any, state: State, constants: Any = None) -> tuple[list[float], State]:
    """The losses from a state to the last step."""
    losses = []
    for step in range(int(state.step), STEPS):
        state, metrics = program(state, place_batch(batches()[step], one.mesh), constants)
        losses.append(float(metrics["loss"]))
    return losses, state


@functools.cache
def curve(devices: int, accumulation: int = 1) -> tuple[list[float], list[np.ndarray]]:
    one, program = compiled(devices, accumulation)
    losses, state = follow(one, program, one.init(0))
    return losses, [np.asarray(leaf) for leaf in jax.tree.leaves(state.parameters)]


def close(found: tuple[list[float], list[np.ndarray]]) -> None:
    """As on one device, but for rounding. Where a gradient is all rounding Adam's step is too: hence the rate as a scale."""
    np.testing.assert_allclose(found[0], curve(1)[0], rtol=2e-6)
    assert max(np.abs(a - b).max() for a, b in zip(found[1], curve(1)[1], strict=True)) < 0.1 * RATE


@pytest.mark.parametrize("devices", [8])
def test_the_losses_are_those_of_one_device(devices: int) -> None:
    close(curve(devices))


def test_accumulation_equals_the_large_batch() -> None:
    close(curve(1, accumulation=4))


def test_what_crosses_eight_devices_stays_by_layer() -> None:
    """Gathers of one layer's matrix at a time, there and back; gradients reduced and scattered; nothing else of any size."""
    one, program = compiled(8)
    found, fsdp = collectives(program.as_text()), one.mesh.shape["fsdp"]
    assert {each.opcode for each in found} == {"all-gather", "reduce-scatter", "all-reduce"}
    width, hidden = SHAPE.width, SHAPE.hidden
    matrices = [3 * width * width, width * width, 2 * hidden * width, width * hidden, 6 * width * width]
    per_layer = [each for each in found if each.count == SHAPE.depth]
    gathered = [math.prod(dims) for each in per_layer if each.opcode == "all-gather" for _, dims in each.arrays]
    assert sorted(gathered) == sorted(2 * matrices)  # forward, and again backward: none is kept
    scattered = [math.prod(dims) for each in per_layer if each.opcode == "reduce-scatter" for _, dims in each.arrays]
    assert sorted(scattered) == sorted(matrix // fsdp for matrix in matrices)
    others = [each for each in found if each not in per_layer]
    assert max(math.prod(dims) for each in others if each.opcode == "all-gather" for _, dims in each.arrays) <= 256 * width
    leaves = jax.tree.leaves(one.abstract().parameters)
    everything = sum(leaf.size for leaf in leaves)
    reduced = sum(math.prod(dims) for each in others if each.opcode == "all-reduce" for _, dims in each.arrays)
    assert reduced <= 1.1 * everything / fsdp  # shards of gradients, and the vectors, which every device keeps


def test_parameters_optimizer_and_average_are_dealt_and_so_they_stay() -> None:
    """After a step too: what each of four devices along fsdp holds is a quarter of it all, vectors aside."""
    one, program = compiled(8)
    state, _ = program(one.init(0), place_batch(batches()[0], one.mesh), None)
    for part in (state.parameters, state.ema, state.optimizer):
        leaves = jax.tree.leaves(part)
        held = sum(leaf.addressable_shards[0].data.size for leaf in leaves)
        assert held <= 0.28 * sum(leaf.size for leaf in leaves)


@pytest.mark.long
def test_the_oracle_of_samples_dealt_over_the_same_devices() -> None:
    """Its samples lie on both; targets, and so losses, are those of one device."""
    digits = records().subset(max_samples=200).load()
    losses = []
    for devices in (1, 2):
        one = trainer(devices, "oracle")
        oracle = Oracle(digits.data, digits.labels, precision="high", mesh=oracle_mesh(one.mesh))
        assert len(oracle._backend.sharded.samples.values.sharding.device_set) == devices
        losses.append(follow(one, one.step(), one.init(0), oracle)[0])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A checkpoint that eight devices wrote after two steps."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    one, program = compiled(8)
    state = one.init(0)
    with checkpointer(folder) as saver:
        for step in range(2):
            state, _ = program(state, place_batch(batches()[step], one.mesh), None)
        saver.save(state, {"loss": 0.5}, 2)
    return folder


@pytest.mark.parametrize("devices", [1])
def test_a_checkpoint_is_read_on_fewer_devices(saved: pathlib.Path, tmp_path: pathlib.Path, devices: int) -> None:
    folder = shutil.copytree(saved, tmp_path / "checkpoints")
    one, program = compiled(devices)
    with checkpointer(folder) as saver:
        restored = saver.restore(one)
    assert restored is not None
    assert restored.data["loss"] == 0.5
    losses, _ = follow(one, program, restored.state)
    wanted = curve(8)[0][2:]
    np.testing.assert_allclose(losses, wanted, rtol=0 if devices == 8 else 2e-6)
