"""`python -m experiments.plan_training` as its user runs it."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

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


@pytest.mark.slow
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
