"""One step on any number of devices and processes: what crosses them, where the state lies, and that the losses are the same."""

import functools
import math
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.data.digits import records
from flowjax.data.pipeline import Batches
from flowjax.exits import Exit
from flowjax.models import Architecture
from flowjax.objective import Objective
from flowjax.oracle import Oracle
from flowjax.training.checkpoint import Checkpointer
from flowjax.training.loop import Schedule, train
from flowjax.training.metrics import MetricWriter, read_metrics
from flowjax.training.sharding import make_mesh, oracle_mesh, place_batch
from flowjax.training.step import State, Trainer, make_optimizer
from flowjax.training.tasks import FlowTask
from kernels.hlo import collectives

ROOT = pathlib.Path(__file__).parents[2]
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


@pytest.mark.parametrize("devices", [2, 4, 8])
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


def test_the_oracle_of_samples_dealt_over_the_same_devices() -> None:
    """Its samples lie on both; targets, and so losses, are those of one device."""
    digits = records().subset(max_samples=200).load()
    losses = []
    for devices in (1, 2):
        one = trainer(devices, "oracle")
        oracle = Oracle(digits.data, digits.labels, precision="high", mesh=oracle_mesh(one.mesh))
        assert len(oracle._prepared.values.sharding.device_set) == devices
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


@pytest.mark.parametrize("devices", [8, 4, 1])
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


# Two processes.


def work(port: str, index: str, folder: str) -> None:
    """One of two processes, a device each: trains until it is told to stop."""
    jax.distributed.initialize(coordinator_address=f"127.0.0.1:{port}", num_processes=2, process_id=int(index))
    task = FlowTask(SHAPE, Objective(), records().normalization, scan=True)
    one = Trainer(task, make_optimizer(RATE, clip=1.0), make_mesh(1, 2))
    own = batches(int(index), 2)
    assert len(own[0].data) == BATCH // 2
    root = pathlib.Path(folder)

    def writer(first: int) -> MetricWriter:
        return MetricWriter(root / f"metrics{index}.jsonl", root / f"board{index}", first + 1)

    train(one, own, Schedule(100_000, log_every=1), seed=0, checkpointer=checkpointer(root / "checkpoints"), writer=writer)


def test_two_processes_train_as_one_and_stop_as_one(tmp_path: pathlib.Path) -> None:
    """Each feeds its half of the batches. SIGTERM to one: both save the same step and end with the status for it; one process goes on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1", "JAX_PLATFORMS": "cpu"}
    code = (
        "import sys, jax; jax.config.update('jax_numpy_dtype_promotion', 'strict'); from tests.flowjax.sharded_training_test import work; "
    )
    workers = []
    for index in range(2):
        command = [sys.executable, "-c", f"{code} work({port!r}, '{index}', {str(tmp_path)!r})"]
        with (tmp_path / f"output{index}.txt").open("wb") as output:
            workers.append(subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT))

    def told() -> list[str]:
        return [(tmp_path / f"output{index}.txt").read_text()[-3000:] for index in range(2)]

    try:
        deadline = time.monotonic() + 900
        while len(read_metrics(tmp_path / "metrics0.jsonl")) < STEPS:
            assert time.monotonic() < deadline, told()
            assert all(worker.poll() is None for worker in workers), told()
            time.sleep(0.05)
        workers[1].send_signal(signal.SIGTERM)
        asked = time.monotonic()
        codes = [worker.wait(timeout=600) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert codes == [Exit.STOPPED] * 2, told()
    assert time.monotonic() - asked < 30 * max(1.0, os.getloadavg()[0] / 2)  # of a quiet machine
    lines = read_metrics(tmp_path / "metrics0.jsonl")
    np.testing.assert_allclose([line["loss"] for line in lines[:STEPS]], curve(1)[0], rtol=2e-6)
    one, _ = compiled(1)
    with checkpointer(tmp_path / "checkpoints") as saver:
        restored = saver.restore(one)
    assert restored is not None
    assert int(restored.state.step) == lines[-1]["step"]
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(restored.state.parameters))
