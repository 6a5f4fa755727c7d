"""`python -m experiments.plan_training` as its user runs it."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.binary import Binary, Place
from tests.xla_flags import without_flags

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = "--config=experiments/configs/train.py:imagenet_vavae"
needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install '.[tpu]'")


@needs_libtpu
@pytest.mark.long
def test_the_largest_preset_fits_a_whole_pod_and_is_gathered_by_layer() -> None:
    """XL/1 at batch 1,024 on v5e:16x16: gathers of a layer at a time, along fsdp only; gradients reduced and scattered there."""
    command = [sys.executable, "-m", "experiments.plan_training", "--topology=v5e:16x16", f"{CONFIG}_xl1", "--alternatives=0"]
    done = subprocess.run(command, capture_output=True, text=True, env=without_flags(), timeout=900, cwd=ROOT)
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
def test_a_plan_says_what_a_step_takes_of_each_device(binary_of: Callable[[str], Binary]) -> None:
    """Digits on four devices, two along each axis of the mesh: parameters are gathered along fsdp alone."""
    small = ("--config.model.size=Pi/4", "--config.batch_size=64", "--config.mesh.fsdp=2", "--alternatives=0")
    done = binary_of("plan_training")("--topology=v5e:2x2", *small, place=Place(devices=0))
    assert done.status == 0, done.output
    report = json.loads(done.output.splitlines()[-1])
    assert report["fits"]
    assert (report["batch_size"], report["mesh"]) == (64, {"batch": 2, "fsdp": 2})
    assert 0 < report["memory_bytes"] < report["memory_limit_bytes"]
    assert report["flops_per_step"] > 0
    used = {(one["opcode"], one["axis"]) for one in report["collectives"]}
    assert ("all-gather", "fsdp") in used
    assert not {("all-gather", "batch"), ("all-gather", "both"), ("reduce-scatter", "batch"), ("reduce-scatter", "both")} & used
    assert report["roofline"]["seconds"] == max(report["roofline"][name] for name in ("compute", "memory", "network"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        pytest.param(("--topology=v5e:3x7", f"{CONFIG}_b1"), "v5e:3x7", marks=needs_libtpu),
        pytest.param(
            ("--topology=v5e:4x4", f"{CONFIG}_b1", "--config.batch_size=1000"),
            "batch_size = 1000: expected a multiple of 16",
            marks=needs_libtpu,
        ),
        (("--topology=v9:2x2",), "topology must be one of"),
        ((f"{CONFIG}_xl2",), "did you mean 'imagenet_vavae_xl1'"),
    ],
)
def test_what_cannot_be_planned_ends_in_one_line(binary_of: Callable[[str], Binary], arguments: tuple[str, ...], named: str) -> None:
    done = binary_of("plan_training")(*arguments, place=Place(devices=0))
    assert named in done.error
    assert len(done.output.splitlines()) == 1, done.output
