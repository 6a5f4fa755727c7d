"""The binaries about data, and the `data` block that all binaries share: what a user types, and what stands there afterwards."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import load_file, save_file

from experiments import bench_data, encode_latents, inspect_data, oracle_sweep
from experiments.common import app
from experiments.common.data import load_beside, load_data, open_data
from experiments.configs import bench_data as bench_presets
from experiments.configs import encode_latents as encode_presets
from experiments.configs import inspect_data as inspect_presets
from experiments.configs import oracle_sweep as sweep_presets
from experiments.configs.data import data_config
from flowjax import data
from flowjax.reporting.workdir import open_workdir


def summary_of(binary: Any, config: ConfigDict, workdir: pathlib.Path, **settings: Any) -> dict[str, Any]:
    """The experiment in this process; its summary."""
    config.update_from_flattened_dict(settings)
    with open_workdir(workdir, live=getattr(binary, "LIVE", ())) as opened:
        binary.run(config, opened)
    return json.loads((workdir / "summary.json").read_text())


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Latents of the digits, as `encode_latents` leaves them."""
    folder = tmp_path_factory.mktemp("encoded")
    settings = {"out": str(folder / "digits"), "shard_size": 500}
    summary = summary_of(encode_latents, encode_presets.get_config(), folder / "run", **settings)
    assert (summary["n"], summary["latent_shape"], summary["latent_d"]) == (1797, [4, 4, 2], 32)
    assert 16 < summary["psnr"] < 17.5
    assert (folder / "run" / "figures" / "strip.png").exists()
    return folder / "digits"


def test_encoded_latents_are_recognised_by_their_path_alone(latents: pathlib.Path) -> None:
    found = load_data(data_config("digits", path=str(latents)))
    assert (found.n, found.shape, found.num_classes) == (1797, (4, 4, 2), 10)
    np.testing.assert_allclose(found.data.std((0, 1, 2), dtype=float, ddof=1), 1, atol=1e-5)


def test_queries_beside_latents_are_normalised_as_those_are(latents: pathlib.Path, tmp_path: pathlib.Path) -> None:
    part = load_file(latents / "latents_rank00_shard001.safetensors")
    save_file(part, tmp_path / "latents_rank00_shard000.safetensors")
    block = data_config(path=str(latents))
    whole, queried = load_data(block), load_beside(block, open_data(block), str(tmp_path))
    np.testing.assert_array_equal(queried.data, whole.data[500:1000])
    assert [file.name for file in tmp_path.iterdir()] == ["latents_rank00_shard000.safetensors"]


@pytest.mark.slow
def test_encoded_latents_are_swept_and_inspected(latents: pathlib.Path, tmp_path: pathlib.Path) -> None:
    settings = {"data.path": str(latents), "num_t": 12, "num_queries": 64}
    swept = summary_of(oracle_sweep, sweep_presets.get_config("digits"), tmp_path / "sweep", **settings)
    assert (swept["d"], swept["dataset"]) == (32, "digits")
    assert 0.45 < swept["turning_point"]["measured"] < 0.65
    inspected = summary_of(inspect_data, inspect_presets.get_config(), tmp_path / "inspect", **{"data.path": str(latents)})
    assert inspected["warnings"] == []
    assert inspected["std"] == pytest.approx([1, 1], abs=1e-5)
    assert (tmp_path / "inspect" / "report.html").exists()


def test_the_rate_of_batches_is_measured(latents: pathlib.Path, tmp_path: pathlib.Path) -> None:
    settings = {"data.path": str(latents), "seconds": 0.2}
    summary = summary_of(bench_data, bench_presets.get_config(), tmp_path / "run", **settings)
    assert summary["samples a second"] == pytest.approx(256 * summary["batches a second"])
    # Two million were measured on two quiet cores.
    assert summary["samples a second"] > 20_000


def test_a_path_takes_the_place_of_a_source_without_one_and_a_named_source_is_kept(tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((3, 2), np.float32))
    for source in ("digits", "", "arrays"):
        assert open_data(data_config(source, path=str(tmp_path / "x.npy"))).n == 3
    with pytest.raises(FileNotFoundError, match="no such folder"):
        open_data(data_config("images", path=str(tmp_path / "x.npy")))
    assert load_data(data_config("digits", classes=(3,), flips=True, max_samples=20)).n == 40


def test_labels_far_apart_are_inspected_and_arrays_that_are_not_read_are_printed(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x_train=samples, y_train=np.array([0.0, 1, 2**31 - 2] * 4), x_test=samples[:2])
    summary = summary_of(inspect_data, inspect_presets.get_config(), tmp_path / "run", **{"data.path": str(tmp_path / "x.npz")})
    assert (summary["classes"], summary["class_counts"], summary["num_classes"]) == ([0, 1, 2**31 - 2], [4, 4, 4], 2**31 - 1)
    lines = (tmp_path / "run" / "classes.csv").read_text().split()
    assert lines == ["label,class,samples", "0,0,4", "1,1,4", "2147483646,2147483646,4"]
    assert "x: not read: x_test float32 [2, 3] (--config.data.array=NAME" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "no data given"),
        ({"source": "digits", "labels": "y.npy"}, "config.data.path"),
        ({"source": "digits", "resolution": 8}, "data source 'digits' has no setting 'resolution'"),
        ({"source": "digist"}, "did you mean 'digits'"),
        ({"path": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"source": "digits", "dtype": "float64"}, "dtype='float64'"),
        ({"source": "digits", "classes": (11,)}, "no samples of class 11"),
    ],
)
def test_what_does_not_fit_together_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_data(data_config(**settings))


def make_constant(records: data.Records) -> "Constant":
    """A factory that forgets half of the protocol."""
    return Constant()


class Constant:
    settings: dict[str, Any] = {}  # noqa: RUF012

    def encode(self, images: Any) -> Any:
        return images


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder.factory": "nowhere:make"}, "expected MODULE:FUNCTION .*nowhere"),
        ({"encoder.factory": f"{__name__}:make_nothing"}, "expected MODULE:FUNCTION .*make_nothing"),
        ({"encoder.factory": f"{__name__}:make_constant"}, "made a Constant without"),
        ({"encoder.settings": "{", "encoder.factory": "json:loads"}, "expected JSON"),
        ({"encoder.patch": 3}, "patch=3"),
        ({"dtype": "int8"}, "dtype='int8'"),
    ],
)
def test_encoders_that_cannot_be_used_are_named(tmp_path: pathlib.Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        summary_of(encode_latents, encode_presets.get_config(), tmp_path / "run", out=str(tmp_path / "out"), **settings)
    assert not list(tmp_path.rglob("latents_rank*"))


@pytest.mark.slow
def test_an_encoding_that_is_killed_goes_on_where_it_was(latents: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A real process and a real SIGKILL, as soon as the second of many shards is there."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "experiments.encode_latents", f"--workdir={tmp_path / 'run'}", f"--config.out={out}"]
    command += ["--config.shard_size=3", "--config.batch_size=3"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (out / "latents_rank00_shard001.safetensors").exists():
            assert process.poll() is None
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    assert len(list(out.glob("latents_rank*"))) < 599
    with pytest.raises(ValueError, match="interrupted"):
        open_data(data_config(path=str(out)))
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "holds an unfinished run: pass --resume to go on with it" in refused.stderr
    finished = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    resumed, whole = (open_data(data_config(path=str(folder))) for folder in (out, latents))
    np.testing.assert_allclose(resumed.read(np.arange(1797)), whole.read(np.arange(1797)), atol=1e-6)
    np.testing.assert_array_equal(resumed.labels, whole.labels)


@pytest.mark.parametrize("name", ["encode_latents", "train", "reproduce"])
def test_an_interrupt_during_imports_ends_in_one_line(tmp_path: pathlib.Path, name: str) -> None:
    """In place of JAX there is a module whose import takes a minute."""
    (tmp_path / "jax.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    command, environment = [sys.executable, "-m", f"experiments.{name}"], {**os.environ, "PYTHONPATH": str(tmp_path)}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, restore_signals=True, **pipe) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        told = process.communicate()[1]
    assert (process.returncode, told) == (130, f"{name}: error: interrupted\n")


@pytest.mark.parametrize("held", [None, "", "{"])
def test_a_summary_without_its_configuration_is_no_finished_run(tmp_path: pathlib.Path, held: str | None) -> None:
    (tmp_path / "summary.json").write_text("{}")
    if held is not None:
        (tmp_path / "config.json").write_text(held)
    assert not app._finished(tmp_path, encode_presets.get_config(), ())


def test_names_of_files_neither_steer_the_terminal_nor_take_a_second_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.multihost, "leave", sys.exit)
    with pytest.raises(SystemExit):
        app.fail("train", "no folder \x1b[31mred\udcff é")
    assert capsys.readouterr().err == "train: error: no folder \\x1b[31mred\\udcff é\n"
