"""`python -m experiments.encode_latents`: killed, it goes on; its latents are swept and inspected; unusable encoders are named."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from experiments import encode_latents, inspect_data, oracle_sweep
from experiments.common.data import open_data
from experiments.configs import encode_latents as encode_presets
from experiments.configs import inspect_data as inspect_presets
from experiments.configs import oracle_sweep as sweep_presets
from experiments.configs.data import data_config
from flowjax import data
from tests.binary import Binary
from tests.experiments.in_process import summary_of


@pytest.mark.long
def test_encoded_latents_are_swept_and_inspected(latents: pathlib.Path, tmp_path: pathlib.Path) -> None:
    settings = {"data.path": str(latents), "num_t": 12, "num_queries": 64}
    swept = summary_of(oracle_sweep, sweep_presets.get_config("digits"), tmp_path / "sweep", **settings)
    assert (swept["d"], swept["dataset"]) == (32, "digits")
    assert 0.45 < swept["turning_point"]["measured"] < 0.65
    inspected = summary_of(inspect_data, inspect_presets.get_config(), tmp_path / "inspect", **{"data.path": str(latents)})
    assert inspected["warnings"] == []
    assert inspected["std"] == pytest.approx([1, 1], abs=1e-5)
    assert (tmp_path / "inspect" / "report.html").exists()


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
        ({"encoder.factory": "nowhere:make"}, "no module nowhere"),
        ({"encoder.factory": f"{__name__}:make_nothing"}, "has no attribute .make_nothing"),
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
def test_an_encoding_that_is_killed_goes_on_where_it_was(
    latents: pathlib.Path, binary_of: Callable[[str], Binary], tmp_path: pathlib.Path
) -> None:
    """A real process and a real SIGKILL, as soon as the second of many shards is there."""
    out = tmp_path / "out"
    command = (f"--workdir={tmp_path / 'run'}", f"--config.out={out}", "--config.shard_size=3", "--config.batch_size=3")
    binary_of("encode_latents").start(*command).kill_when((out / "latents_rank00_shard001.safetensors").exists)
    assert len(list(out.glob("latents_rank*"))) < 599
    with pytest.raises(ValueError, match="interrupted"):
        open_data(data_config(path=str(out)))
    assert "holds an unfinished run: pass --resume to go on with it" in binary_of("encode_latents")(*command).error
    finished = binary_of("encode_latents")(*command, "--resume")
    assert finished.status == 0, finished.output
    resumed, whole = (open_data(data_config(path=str(folder))) for folder in (out, latents))
    np.testing.assert_allclose(resumed.read(np.arange(1797)), whole.read(np.arange(1797)), atol=1e-6)
    np.testing.assert_array_equal(resumed.labels, whole.labels)
