"""Locks of files, held by real processes that are killed."""

import contextlib
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from flowjax.reporting.workdir import open_workdir
from flowjax.runtime.locks import FileLock, Held, locked

HOLD = "import pathlib, sys, time; from flowjax.runtime.locks import FileLock, locked; path = pathlib.Path(sys.argv[1])\n{}\ntime.sleep(60)"


@contextlib.contextmanager
def holder(path: pathlib.Path, statement: str) -> Iterator[subprocess.Popen]:
    """A process that has taken the lock, and holds it until it is killed."""
    with subprocess.Popen([sys.executable, "-c", HOLD.format(statement), str(path)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


def test_the_lock_of_another_process_is_refused_in_its_name_and_free_when_it_is_killed(tmp_path):
    root = tmp_path / "run"
    root.mkdir()
    (root / ".flowjax.json").write_text('{"files": [], "live": []}')
    with holder(root / ".flowjax.lock", "lock = FileLock(path); print('held', flush=True)") as process:
        with pytest.raises(Held, match=str(process.pid)):
            FileLock(root / ".flowjax.lock")
        refused = f"is being written by process {process.pid}: wait for it to end, or give another --workdir$"
        with pytest.raises(ValueError, match=refused):
            open_workdir(root, overwrite=True)
        process.kill()
        process.wait()
        with open_workdir(root, resume=True):
            assert (root / ".flowjax.lock").read_bytes()[1:] == str(os.getpid()).encode()
    assert not (root / ".flowjax.lock").exists()


def test_one_process_waits_for_another_and_goes_on_when_it_is_killed(tmp_path):
    code = "with locked(path): print('held', flush=True); time.sleep(60)"
    with holder(tmp_path / "new" / "data", code) as first:
        waiting = subprocess.Popen([sys.executable, "-c", HOLD.format(code), str(tmp_path / "new" / "data")], stdout=subprocess.PIPE)
        assert waiting.stdout is not None
        os.set_blocking(waiting.stdout.fileno(), False)
        time.sleep(1.5)
        assert not waiting.stdout.read()
        first.kill()
        os.set_blocking(waiting.stdout.fileno(), True)
        assert waiting.stdout.readline() == b"held\n"
        waiting.kill()
        waiting.wait()
        waiting.stdout.close()
    with locked(tmp_path / "new" / "data"):
        pass


def test_a_lock_follows_no_link(tmp_path):
    (tmp_path / "victim").write_text("mine")
    for name in ("lock", ".data.lock"):
        (tmp_path / name).symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        FileLock(tmp_path / "lock")
    with pytest.raises(OSError, match="symbolic links"), locked(tmp_path / "data"):
        pass
    assert (tmp_path / "victim").read_text() == "mine"
