"""docs/tutorials: each page runs from top to bottom, as a script."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

TUTORIALS = sorted(pathlib.Path("docs/tutorials").glob("*.py"))
IN_CI = ("turning_point",)
"""The others when the site is built, and by hand: `make docs`, `make test-long`."""


def test_every_tutorial_is_on_the_site() -> None:
    named = set(re.findall(r"tutorials/\w+\.py", pathlib.Path("mkdocs.yml").read_text(encoding="utf-8")))
    assert named == {f"tutorials/{file.name}" for file in TUTORIALS}


@pytest.mark.parametrize(
    "file", [pytest.param(file, marks=pytest.mark.slow if file.stem in IN_CI else pytest.mark.long, id=file.stem) for file in TUTORIALS]
)
def test_a_tutorial_runs(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    environment = {**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, file.absolute()], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
