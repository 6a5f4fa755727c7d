"""What lies in a bucket, against an emulator: one writer at a time, objects that are whole, a run's folder as on a disk."""

import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from flowjax.reporting.workdir import WorkDir, open_workdir
from flowjax.runtime import storage
from flowjax.runtime.exit_codes import Exit
from flowjax.runtime.storage import bucket, lock
from flowjax.training import seal
from tests.emulator import emulator


@pytest.fixture(scope="module")
def gs() -> Iterator[str]:
    with emulator():
        yield "gs://mine"


@pytest.fixture
def folder(gs: str, request: pytest.FixtureRequest) -> storage.Folder:
    return storage.located(f"{gs}/{request.node.originalname}")


def held(folder: storage.Folder, **changed: object) -> None:
    """The lock of some other process."""
    holder = {"process": 17, "host": "elsewhere", "machine": "another", "started": "1"} | changed
    bucket.blob(f"{folder}/{lock.NAME}").upload_from_string(json.dumps(holder))


def test_addresses_are_told_apart() -> None:
    assert storage.located("~/runs") == pathlib.Path("~/runs").expanduser()
    for wrong in ("s3://mine/run", "gs://mine", "gs://mine/", "gs:///run"):
        with pytest.raises(ValueError, match="expected"):
            storage.located(wrong)


def test_where_the_extra_is_not_installed_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ValueError, match=r"needs the extra gcs, and there is no gcsfs: pip install -e '\.\[gcs\]'"):
        storage.located("gs://mine/run")


def test_a_lock_is_held_by_one_and_let_go_of(folder: storage.Folder) -> None:
    first = storage.hold(folder)
    with pytest.raises(ValueError, match=f"is being written by process {os.getpid()} on this machine"):
        storage.hold(folder)
    first.release()
    assert storage.names(folder) == set()
    storage.hold(folder).release()


def test_the_lock_of_a_process_that_died_here_is_taken_over_at_once(folder: storage.Folder) -> None:
    died = subprocess.Popen([sys.executable, "-c", ""])
    died.wait()
    held(folder, process=died.pid, machine=lock._machine())
    began = time.monotonic()
    storage.hold(folder).release()
    held(folder, process=os.getpid(), machine=lock._machine(), started="another start")  # its number was given again
    storage.hold(folder).release()
    assert time.monotonic() - began < lock.LAPSE / 2


def test_the_lock_of_another_machine_is_taken_over_when_it_is_not_renewed(
    folder: storage.Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(lock, "LAPSE", 1.0)
    monkeypatch.setattr(lock, "_LOOK", 0.5)
    held(folder)
    storage.hold(folder).release()
    assert "waiting 1 s" in capsys.readouterr().err
    monkeypatch.setattr(lock, "RENEW", 0.2)
    first = storage.hold(folder)
    monkeypatch.setattr(lock, "_machine", lambda: "yet another")
    monkeypatch.setattr(lock, "LAPSE", 30.0)  # it is seen to be renewed long before
    with pytest.raises(ValueError, match="is being written by process"):
        storage.hold(folder)
    first.release()


def test_a_holder_that_was_taken_over_ends(folder: storage.Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    ended: list[int] = []
    monkeypatch.setattr(lock.os, "_exit", ended.append)
    monkeypatch.setattr(lock, "RENEW", 0.1)
    first = storage.hold(folder)
    held(folder)
    deadline = time.monotonic() + 30
    while not ended and time.monotonic() < deadline:
        time.sleep(0.02)
    first.release()
    assert ended == [Exit.LOST_PEER]
    assert "another process has taken over" in capsys.readouterr().err
    assert lock.NAME in storage.names(folder)  # it is the other one's


def test_a_run_s_folder_is_as_on_a_disk(folder: storage.Folder, tmp_path: pathlib.Path) -> None:
    """What is written is there when the run is complete, and stands for an earlier one's; what is the user's is left alone."""
    for root in (folder, tmp_path / "run"):
        with open_workdir(root) as workdir:
            workdir.write_json("a.json", {"a": 1})
            workdir.path("b/c.txt").write_text("c")
            assert "a.json" not in storage.names(root)
        with pytest.raises(ValueError, match="--overwrite to replace it"):
            open_workdir(root)
        storage.write_whole(root / "mine.txt", lambda file: file.write_text("mine"))
        with pytest.raises(FileExistsError, match=r"mine\.txt of your own"), open_workdir(root, overwrite=True) as workdir:
            workdir.path("mine.txt")
        assert (root / "b" / "c.txt").read_text() == "c"
        with open_workdir(root, overwrite=True) as workdir:
            workdir.write_json("a.json", {"a": 2})
        assert storage.names(root) == {".flowjax.json", "a.json", "mine.txt"}
        assert json.loads((root / "a.json").read_text()) == {"a": 2}


def test_a_run_that_fails_leaves_nothing_and_live_files_stay(folder: storage.Folder) -> None:

    def fails(workdir: WorkDir) -> None:
        workdir.write_json("a.json", {})
        if workdir.root.name == "live":
            grows = storage.Mirror(workdir.live("log.txt"))
            grows.path.write_text("one")
            grows.keep()
        raise RuntimeError

    with pytest.raises(RuntimeError), open_workdir(folder) as workdir:
        fails(workdir)
    assert storage.names(folder) == set()
    folder = folder / "live"
    with pytest.raises(RuntimeError), open_workdir(folder, live=("log.txt",)) as workdir:
        fails(workdir)
    assert storage.fetched(folder / "log.txt").read_text() == "one"
    with open_workdir(folder, live=("log.txt",), resume=True):
        assert (folder / "log.txt").read_text() == "one"
    with open_workdir(folder, live=("log.txt",), overwrite=True):
        assert not (folder / "log.txt").exists()


def test_seals_see_what_is_missing_and_what_was_changed(folder: storage.Folder, tmp_path: pathlib.Path) -> None:
    for root in (folder, tmp_path):
        for name in ("a", "b"):
            storage.write_whole(root / name, lambda file: file.write_text("content"))
        assert seal.check(root).seal is seal.Seal.NONE
        seal.write(root)
        assert seal.check(root).seal is seal.Seal.WHOLE
        storage.write_whole(root / "a", lambda file: file.write_text("Content"))
        assert seal.check(root) == (seal.Seal.BROKEN, "a is not as it was written")
        storage.remove(root / "a")
        assert seal.check(root) == (seal.Seal.BROKEN, "a is missing")
