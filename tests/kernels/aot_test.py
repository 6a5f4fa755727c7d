"""`python -m kernels.aot`: the real TPU compiler, with no TPU. The figures are a ratchet: raise them when the kernel gets better."""

import importlib.util
import json
import subprocess
import sys

import pytest

from kernels import aot
from kernels.posterior.pallas.tpu_blocks import GENERATIONS
from kernels.tpu_tools.schedule import bytes_read
from tests.binary import Binary, Place
from tests.xla_flags import without_flags

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install '.[tpu]'")
USEFUL_MXU = {("v5e:2x2", 256, 1024): 0.93, ("v5e:2x2", 1024, 3072): 0.98, ("v6e:2x2", 1024, 3072): 0.94}
"""Topology, queries and D, to the least share of the MXU: bfloat16 data, `default`, all moments. Larger ones come out higher, and take
minutes to compile: `make test-long`. v5p and tpu7x are compiled by hand: docs/kernel.md."""


@pytest.fixture(scope="module")
def aot_command(tmp_path_factory: pytest.TempPathFactory) -> Binary:
    return Binary("kernels.aot", tmp_path_factory.mktemp("binary"))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command; the tests' own flags for XLA left out."""
    command = [sys.executable, "-m", "kernels.aot", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=without_flags(), timeout=900)


@needs_libtpu
@pytest.mark.parametrize(
    ("topology", "queries", "d"), [pytest.param(*key, marks=pytest.mark.long if key[1] == 1024 else pytest.mark.slow) for key in USEFUL_MXU]
)
def test_the_steady_loop_keeps_the_mxu_busy(topology, queries, d):
    """N is no multiple of a block."""
    done = run(f"--topology={topology}", "--n=65000", f"--d={d}", f"--queries={queries}", "--precision=default")
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["useful_mxu"] >= USEFUL_MXU[topology, queries, d], report
    assert 1 <= report["data_reads"] <= 1.05, report
    assert report["vmem_bytes"] <= GENERATIONS[topology.partition(":")[0]].vmem
    assert report["collectives"] == []
    assert report["roofline"]["bound"] == "compute"


@needs_libtpu
@pytest.mark.slow
def test_whole_paths_read_the_data_once_and_spill_nothing():
    done = run("--path", "--times=6", "--topology=v5e:2x2", "--n=65000", "--d=768", "--queries=32", "--precision=default")
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["spills"] == report["fills"] == 0, report
    assert 1 <= report["data_reads"] <= 1.05, report
    assert report["bound"] == "VPU"
    assert report["iterations"] * report["cycles_per_iteration"] <= report["cycles_per_step"]
    assert report["seconds"] < report["passes_seconds"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--topology=v9:2x2",), "topology must be one of v4, v5e, v5p, v6e, tpu7x"),
        (("--d=0",), "d must be at least 1, got 0"),
        (("--n=0",), "n must be at least 1, got 0"),
        (("--precision=double",), "precision must be one of highest, high, default"),
        (("--dtype=int4",), "dtype must be one of float32, bfloat16, uint8"),
        (("more",), "unexpected argument 'more'"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_and_status_2(aot_command, arguments, message):
    done = aot_command(*arguments, place=Place(devices=0))
    assert done.status == 2
    assert len(done.output.splitlines()) == 1, done.output
    assert message in done.output


@needs_libtpu
@pytest.mark.slow
def test_a_shape_that_does_not_exist_is_refused(aot_command):
    done = aot_command("--topology=v5e:3x7", place=Place(devices=0))
    assert (done.status, len(done.output.splitlines())) == (2, 1), done.output
    assert "knows no topology 'v5e:3x7'" in done.output


def test_roofline_names_what_bounds():
    chip = GENERATIONS["v5e"]
    assert aot.roofline(chip, chip.bf16_flops, chip.hbm_bytes / 2) == {"bound": "compute", "seconds": 1.0, "compute": 1.0, "bandwidth": 0.5}
    assert aot.roofline(chip, 0.0, chip.hbm_bytes)["bound"] == "bandwidth"


@pytest.mark.parametrize(
    ("copies", "read"),
    [
        ((4096, 64), 10 * 4160),  # a block and its norms, ten steps
        ((4096, 64, 512, 512), 10 * 4160),  # what changes with the query tile only is left out
        ((None, 64), 10 * 64 + 40000),  # the last block is shorter: all the data, once
        ((512, 512, 512), 10 * 512),  # a block as large as what changes with the tile
    ],
)
def test_bytes_read_in_a_pass(copies, read):
    block = 512 if 4096 not in copies and None not in copies else 4096
    assert bytes_read(copies, block=block, per_tile=512, steps=10, data=40000) == read
