"""Files and folders written aside: whole or not there, whatever interrupts their making; real processes are killed."""

import os
import pathlib
import subprocess
import sys
import time

import pytest

from flowjax.runtime.files import fill_whole, write_whole

CODE = {
    "file": """
import pathlib, sys, time
from flowjax.runtime.files import write_whole

def write(path):
    path.write_text("half")
    time.sleep(float(sys.argv[2]))
    path.write_text("half and rest")

write_whole(pathlib.Path(sys.argv[1]) / "x[1].txt", write)
""",
    "folder": """
import sys, time
from flowjax.data.cache import cached

def make(folder):
    (folder / "half").write_text("half")
    time.sleep(float(sys.argv[2]))
    (folder / "rest").write_text("rest")

cached(sys.argv[1], "x", {"a": 1}, make)
""",
}


def names(folder: pathlib.Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.endswith(".lock"))


@pytest.mark.parametrize("kind", CODE)
def test_a_killed_process_leaves_nothing_that_is_taken_for_whole(tmp_path, kind):
    with subprocess.Popen([sys.executable, "-c", CODE[kind], str(tmp_path), "60"]) as process:
        while not [path for path in tmp_path.glob(".x*.partial-*") if path.stat().st_size and (path.is_file() or any(path.iterdir()))]:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert [name.startswith(".x") for name in names(tmp_path)] == [True]
    subprocess.run([sys.executable, "-c", CODE[kind], str(tmp_path), "0"], check=True)
    (made,) = (tmp_path / name for name in names(tmp_path))
    if kind == "file":
        assert (made.name, made.read_text()) == ("x[1].txt", "half and rest")
    else:
        assert {file.name: file.read_text() for file in made.iterdir()} == {"half": "half", "rest": "rest", "key.json": '{"a": 1}'}


def test_what_fails_leaves_what_was_there(tmp_path):
    (tmp_path / "old.txt").write_text("old")

    def fails(path: pathlib.Path) -> None:
        (path / "part" if path.is_dir() else path).write_text("new")
        raise OSError("disk full")

    for write, name in ((write_whole, "old.txt"), (fill_whole, "folder")):
        with pytest.raises(OSError, match="disk full"):
            write(tmp_path / name, fails)
    assert names(tmp_path) == ["old.txt"]
    assert (tmp_path / "old.txt").read_text() == "old"


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").write_text("mine")
    (tmp_path / f".new.partial-{os.getpid()}").symlink_to(tmp_path / "victim" / "file")
    (tmp_path / f".made.partial-{os.getpid()}").symlink_to(tmp_path / "victim")
    write_whole(tmp_path / "new", lambda path: path.write_text("new"))
    fill_whole(tmp_path / "made", lambda path: (path / "file").write_text("new"))
    assert ((tmp_path / "new").read_text(), (tmp_path / "made" / "file").read_text()) == ("new", "new")
    assert (tmp_path / "victim" / "file").read_text() == "mine"
