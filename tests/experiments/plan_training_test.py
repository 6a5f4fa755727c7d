"""`python -m experiments.plan_training` as its user runs it; and the arithmetic that it adds to what the compiler says."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from flowjax.models import Architecture
from flowjax.objective import Objective
from flowjax.training.plan import Choice, Planned, alternatives, count_flops, state_bytes, summarize
from flowjax.training.sharding import make_mesh
from flowjax.training.step import Trainer, make_optimizer
from flowjax.training.tasks import FlowTask
from kernels.tpu_tools.hlo import Collective

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = "--config=experiments/configs/train.py:imagenet_vavae"
needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install '.[tpu]'")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")}
    command = [sys.executable, "-m", "experiments.plan_training", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=900, cwd=ROOT)


@needs_libtpu
@pytest.mark.slow
def test_the_largest_preset_fits_a_whole_pod_and_is_gathered_by_layer() -> None:
    """XL/1 at batch 1,024 on v5e:16x16: gathers of a layer at a time, along fsdp only; gradients reduced and scattered there."""
    done = run("--topology=v5e:16x16", f"{CONFIG}_xl1", "--alternatives=0")
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["fits"]
    assert report["batch_size"] == 1024
    assert report["memory_bytes"] < 3.5 * 2**30
    assert report["compile_seconds"] < 180 * max(1.0, os.getloadavg()[0] / 2)  # of a quiet machine
    used = {(one["opcode"], one["axis"]): one for one in report["collectives"]}
    assert set(used) <= {(name, axis) for name in ("all-gather", "reduce-scatter", "all-reduce") for axis in ("fsdp", "batch", "both")} | {
        ("collective-permute", "neighbours")
    }
    assert not {("all-gather", "batch"), ("all-gather", "both"), ("reduce-scatter", "batch"), ("reduce-scatter", "both")} & set(used)
    layer = 6 * 1152 * 1152  # its largest matrix
    assert used["all-gather", "fsdp"]["largest"] <= 2 * layer  # bfloat16
    assert used["reduce-scatter", "fsdp"]["largest"] <= 1.07 * 4 * layer / 8
    parameters = 675e6
    assert 2 * 2 * parameters * 0.95 < used["all-gather", "fsdp"]["bytes"] < 2 * 2 * parameters * 1.05  # forward, and again backward
    assert 4 * parameters / 8 * 0.95 < used["reduce-scatter", "fsdp"]["bytes"] < 4 * parameters / 8 * 1.1
    assert used["all-reduce", "batch"]["bytes"] < 1.05 * 4 * parameters / 8
    assert sum(used[key]["bytes"] for key in (("all-reduce", "fsdp"), ("all-reduce", "both")) if key in used) < 0.005 * 4 * parameters
    assert 2.7e12 < report["flops_per_step"] < 3.1e12
    assert report["roofline"]["seconds"] == max(report["roofline"][name] for name in ("compute", "memory", "network"))


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--topology=v5e:3x7", f"{CONFIG}_b1"), "v5e:3x7"),
        (("--topology=v5e:4x4", f"{CONFIG}_b1", "--config.batch_size=1000"), "batch_size = 1000: expected a multiple of 16"),
    ],
)
def test_what_the_topology_rules_out_ends_in_one_line(arguments: tuple[str, ...], named: str) -> None:
    refused(run(*arguments), named)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--topology=v9:2x2",), "topology must be one of"),
        ((f"{CONFIG}_xl2",), "did you mean 'imagenet_vavae_xl1'"),
    ],
)
def test_a_topology_or_preset_that_is_not_there_ends_in_one_line(arguments: tuple[str, ...], named: str) -> None:
    refused(run(*arguments), named)


def refused(done: subprocess.CompletedProcess[str], named: str) -> None:
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert named in done.stderr


def test_flops_are_those_of_every_product_in_loops_and_on_all_devices() -> None:
    a, b = jnp.ones((4, 8)), jnp.ones((8, 16))
    once = 2 * 4 * 8 * 16

    def looped(a: jax.Array, b: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda carry, _: (carry + (a @ b).sum(), None), 0.0, length=5)[0]

    assert count_flops(jax.make_jaxpr(looped)(a, b).jaxpr) == 5 * once
    assert count_flops(jax.make_jaxpr(jax.grad(lambda a: jnp.sin(a @ b).sum()))(a).jaxpr) == 2 * once
    mesh = make_mesh(2, 2)
    dealt = jax.shard_map(lambda a, b: a @ b, mesh=mesh, in_specs=(P("batch"), P()), out_specs=P("batch"), check_vma=False)
    assert count_flops(jax.make_jaxpr(dealt)(a, b).jaxpr) == 2 * once  # half of it on each of four: fsdp repeats it


def test_the_state_is_shared_along_fsdp() -> None:
    def bytes_of(batch: int, fsdp: int) -> int:
        shape = Architecture((8, 8, 4), patch=1, depth=2, width=64, heads=2, num_classes=7)
        return state_bytes(Trainer(FlowTask(shape, Objective()), make_optimizer(1e-3), make_mesh(batch, fsdp)))

    assert bytes_of(8, 1) == pytest.approx(4 * bytes_of(2, 4), rel=0.1)


def test_collectives_are_named_by_the_axis_along_which_they_go() -> None:
    found = [
        Collective("all-gather", 3, 100, (), (0, 1, 2, 3)),
        Collective("all-reduce", 1, 80, (), (0, 4)),
        Collective("all-reduce", 1, 8, (), tuple(range(8))),
        Collective("collective-permute", 1, 16, (), ()),
        Collective("all-gather", 1, 300, (), (0, 1, 2, 3)),
    ]
    assert [dataclasses.astuple(one) for one in summarize(found, (2, 4))] == [
        ("all-gather", "fsdp", 4, 600, 300, 450),
        ("all-reduce", "batch", 1, 80, 80, 80),
        ("collective-permute", "neighbours", 1, 16, 16, 16),
        ("all-reduce", "both", 1, 8, 8, 14),
    ]


def test_what_is_tried_next() -> None:
    """Less is computed again where the step fits; where it does not, first the state is shared by more, then more is computed again."""
    choice = Choice(batch=4, fsdp=2, remat="dots", accumulation=1)

    def tried(fits: bool) -> list[Choice]:
        return list(alternatives(Planned(choice, fits, None, 0, 0.0, (), {"compute": 1.0}, 0.0)))

    assert tried(True) == [dataclasses.replace(choice, remat="none")]
    some = tried(False)
    assert some[:3] == [Choice(2, 4, "dots", 1), Choice(1, 8, "dots", 1), Choice(1, 8, "full", 1)]
    assert all(one.batch * one.fsdp == 8 for one in some)
    assert np.diff([one.accumulation for one in some[2:]]).min() > 0
