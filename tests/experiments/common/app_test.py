"""What all binaries share: interrupts, finished runs, and one line for an error."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from experiments.common import app
from experiments.configs import encode_latents as encode_presets


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
