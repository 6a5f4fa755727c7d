"""The README's Python runs as it stands, from top to bottom."""

import pathlib
import re

import pytest


@pytest.mark.slow
def test_the_readme_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", pathlib.Path("README.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    known: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), known)
    assert known["x_1"].shape == (16, 32, 32, 3)  # type: ignore[attr-defined]
