"""A cache is filled whole or not at all."""

import subprocess
import sys
import time

FILL = """
import pathlib, sys, time
from flowjax.data.cache import cached

def make(folder):
    (folder / "half").write_text("half")
    time.sleep(float(sys.argv[2]))
    (folder / "rest").write_text("rest")

cached(sys.argv[1], "x", {"a": 1}, make)
"""


def test_a_killed_process_leaves_nothing_that_is_taken_for_whole(tmp_path):
    with subprocess.Popen([sys.executable, "-c", FILL, str(tmp_path), "60"]) as process:
        while not list(tmp_path.glob("x-*.partial/half")):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert not [entry for entry in tmp_path.glob("x-*") if not entry.name.endswith(".partial")]
    subprocess.run([sys.executable, "-c", FILL, str(tmp_path), "0"], check=True)
    assert sorted(file.name for file in next(tmp_path.glob("x-*")).iterdir()) == ["half", "key.json", "rest"]
    assert len(list(tmp_path.glob("x-*"))) == 1
