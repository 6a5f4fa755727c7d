"""The lock of a folder in a bucket: one writer at a time, whatever became of the last one."""

import json
import os
import subprocess
import sys
import time

import pytest

from flowjax.runtime import storage
from flowjax.runtime.exit_codes import Exit
from flowjax.runtime.storage import bucket, lock


def held(folder: storage.Folder, **changed: object) -> None:
    """The lock of some other process."""
    holder = {"process": 17, "host": "elsewhere", "machine": "another", "started": "1"} | changed
    bucket.blob(f"{folder}/{lock.NAME}").upload_from_string(json.dumps(holder))


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
