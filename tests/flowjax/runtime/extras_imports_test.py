"""What a fresh process imports, and what it says where a package of an extra is missing. Modules are counted, not seconds."""

import subprocess
import sys

import numpy as np
import pytest

from flowjax.runtime.extras import EXTRAS

EXTRA = sorted({*EXTRAS} - {"google", "torch"})  # what these are packages of, others import too
HEAVY = {
    *("array_record", "beartype", "diffrax", "flax", "grain", "matplotlib", "numba", "optax", "orbax", "pyarrow", "sklearn"),
    *("scipy.fft", "scipy.optimize", "scipy.sparse", "scipy.stats", "jax.experimental.pallas"),
    *("tensorboardX", "tensorflow_datasets", "torch"),
}
PUBLIC = (
    "import flowjax; flowjax.Oracle, flowjax.measure_turning_point, flowjax.advice, flowjax.load, flowjax.external_field, flowjax.sample"
)
COUNTED = f"""
import atexit, sys
atexit.register(lambda: print("LOADED", *({HEAVY} & sys.modules.keys())))
"""


def binary(name: str, *arguments: str) -> str:
    """The code of `python -m experiments.NAME ARGUMENTS`."""
    return f"""
import runpy, sys
sys.argv = {[f"{name}.py", *arguments]}
runpy.run_module("experiments.{name}", run_name="__main__", alter_sys=True)
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("code", "allowed"),
    [(PUBLIC, set()), (binary("oracle_sweep", "--help"), set()), (binary("train", "--help"), set())],
    ids=["flowjax", "oracle_sweep", "train"],
)
def test_heavy_packages_are_imported_only_where_they_are_used(code: str, allowed: set[str]) -> None:
    done = python(COUNTED + code)
    assert "LOADED" in done.stdout, done.stderr
    assert set(done.stdout.rpartition("LOADED")[2].split()) <= allowed


@pytest.mark.parametrize(
    ("name", "package", "arguments", "line"),
    [
        ("train", "flax", (), "train: error: experiments.train needs flax: pip install 'flowjax-oracle[train]'"),
        ("oracle_sweep", "tensorflow_datasets", ("--config.data.source=mnist",), "oracle_sweep: error: a data set of TFDS needs"),
    ],
)
def test_a_binary_names_the_extra_that_is_missing_in_one_line(
    name: str, package: str, arguments: tuple[str, ...], line: str, tmp_path
) -> None:
    """Whether it is imported with the binary or by what it calls."""
    done = python(f"import sys; sys.modules[{package!r}] = None\n{binary(name, f'--workdir={tmp_path}/run', *arguments)}")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(line)


def test_a_public_name_that_needs_an_extra_says_so() -> None:
    done = python("import sys; sys.modules['flax'] = None\nimport flowjax\nflowjax.OracleField\nflowjax.LightningDiT")
    assert done.stderr.splitlines()[-1] == "ImportError: flowjax.LightningDiT needs flax: pip install 'flowjax-oracle[train]'"


@pytest.mark.slow
def test_the_audit_needs_no_extra(tmp_path) -> None:
    """On samples and data in arrays, by their values; docs/installing.md says so."""
    rows = np.random.default_rng(0).standard_normal((60, 4, 4, 1)).astype(np.float32)
    np.save(tmp_path / "data.npy", rows)
    np.save(tmp_path / "samples.npy", rows[:20] + np.float32(0.5))
    given = (f"--config.data.path={tmp_path}/data.npy", f"--config.samples={tmp_path}/samples.npy", f"--workdir={tmp_path}/run")
    done = python(f"import sys\nfor name in {EXTRA}: sys.modules[name] = None\n{binary('audit', *given)}")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "report.html").exists()
