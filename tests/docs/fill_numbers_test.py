"""Numbers in documents: filled from JSON, and a stale one is refused."""

import json
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "docs" / "fill_numbers.py"
FIGURES = {
    "columns": {"data": "{data}", "error": "{error:.1e}"},
    "same_in_group": ["data"],
    "rows": {"a": {"data": "A", "error": 1.26e-6}, "b": {"data": "B", "error": 0.0}},
    "largest": {"error": 1.26e-6},
}
TEXT = """The error is <!-- figures: x.json largest.error:.1e -->9.9e-01<!-- end -->,
and <!-- figures: x.json rows.a.error:.0e --><!-- end -->:

<!-- figures: x.json table -->
<!-- end -->

<!-- figures: x.json table:b --><!-- end -->

Not this: 9.9e-01.
"""
FILLED = """The error is <!-- figures: x.json largest.error:.1e -->1.3e-06<!-- end -->,
and <!-- figures: x.json rows.a.error:.0e -->1e-06<!-- end -->:

<!-- figures: x.json table -->
| data | error |
|---|---|
| A | 1.3e-06 |
| B | 0.0e+00 |
<!-- end -->

<!-- figures: x.json table:b -->
| error |
|---|
| 0.0e+00 |
<!-- end -->

Not this: 9.9e-01.
"""


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "docs" / "figures").mkdir(parents=True)
    (tmp_path / "docs" / "figures" / "x.json").write_text(json.dumps(FIGURES))
    (tmp_path / "README.md").write_text(TEXT)
    (tmp_path / "docs" / "other.md").write_text("Nothing to fill.\n")
    return tmp_path


def run(root: pathlib.Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, str(SCRIPT), f"--root={root}", *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_numbers_are_filled_and_a_stale_one_is_refused(root):
    assert run(root, "--check") == (1, "README.md: numbers are not those of docs/figures/*.json; run python docs/fill_numbers.py\n")
    assert (root / "README.md").read_text() == TEXT
    assert run(root) == (0, "")
    assert (root / "README.md").read_text() == FILLED
    assert run(root, "--check") == (0, "")


def test_a_mark_without_a_number_is_named(root):
    (root / "docs" / "other.md").write_text("It is <!-- figures: x.json largest.gap:.1e -->1<!-- end -->.")
    status, said = run(root)
    assert status == 1
    assert said.startswith("fill_numbers: docs/other.md: <!-- figures: x.json largest.gap:.1e -->: there is no such number")


def test_a_group_without_rows_is_named(root):
    (root / "docs" / "other.md").write_text("<!-- figures: x.json table:c --><!-- end -->")
    assert "<!-- figures: x.json table:c -->: there is no such number" in run(root, "--check")[1]


def test_a_mark_that_would_end_a_paragraph_is_refused(root):
    (root / "docs" / "other.md").write_text("The error is\n<!-- figures: x.json largest.error:.1e -->1.3e-06<!-- end -->.\n")
    assert "begins a line, where Markdown ends the paragraph" in run(root, "--check")[1]


def test_a_sweep_s_turning_point_is_kept_without_this_machine_s_folders(root, tmp_path):
    turn = {"measured": 0.5, "ci_low": 0.4, "ci_high": 0.6, "predicted": 0.55}
    command = "python -m experiments.oracle_sweep --workdir=/somewhere --config.seed=0 --config.data.cache_dir=/else"
    summary = {"turning_point": turn, "n": 7, "command": command, "versions": {"jax": "0.10"}}
    (root / "summary.json").write_text(json.dumps(summary))
    (root / "README.md").write_text("<!-- figures: turning_points.json table --><!-- end -->")
    assert run(root, f"--sweep=digits, N = 7={root}") == (0, "")
    assert "| digits, N = 7 | 0.500 (0.400 to 0.600) | 0.550 | +10.0 % |" in (root / "README.md").read_text()
    kept = json.loads((root / "docs" / "figures" / "turning_points.json").read_text())
    assert kept["rows"]["digits, N = 7"]["command"] == "python -m experiments.oracle_sweep --config.seed=0"
