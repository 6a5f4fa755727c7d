"""The folder of a run loses nothing and touches nothing of the user's."""

import json
import os
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.reporting import figures, page
from flowjax.reporting.workdir import open_workdir
from flowjax.runtime.strict_json import plain
from tests.flowjax.reporting.drawing import RISING, T


def tree(root: pathlib.Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in sorted(root.rglob("*")) if file.is_file()}


def test_json_is_strict():
    value = {
        1: np.float32(np.nan),
        "a": (np.int64(3), jnp.arange(2), [np.inf, 0.5]),
        "p": pathlib.Path("x"),
        "b": np.bool_(True),
        "n": np.array([1, np.nan]),
    }
    text = json.dumps(plain(value), allow_nan=False)
    assert json.loads(text) == {"1": None, "a": [3, [0, 1], [None, 0.5]], "p": "x", "b": True, "n": [1, None]}


def small_run(root: pathlib.Path, number: int, overwrite: bool = False, extra: bool = False) -> None:
    with open_workdir(root, overwrite) as workdir:
        workdir.write_json("summary.json", {"run": number})
        workdir.write_csv("sweep.csv", [{"run": number}])
        if extra:
            workdir.path("figures/deep/extra.txt").write_text("extra")


def failing_run(root: pathlib.Path, failure: type[BaseException]) -> None:
    with open_workdir(root, overwrite=True) as workdir:
        workdir.write_json("summary.json", {"run": 2})
        raise failure


def test_a_run_leaves_its_files_and_nothing_else(tmp_path):
    root = tmp_path / "a" / "run"
    with open_workdir(root) as workdir:
        svg = workdir.save_figure("top1", figures.top1_figure(T, RISING, 0.3, None, {}))
        workdir.write_report("Title", "Sentence.", [page.Section("First", "Text.", svg, "curve")], {})
        aside = [".flowjax-partial/" + name for name in ("figures/top1.png", "figures/top1.svg", "report.html")]
        assert list(tree(root)) == [*aside, ".flowjax.lock"]
    assert set(tree(root)) == {".flowjax.json", "figures/top1.png", "figures/top1.svg", "report.html"}


def test_a_second_run_needs_overwrite_and_then_replaces_only_what_is_ours(tmp_path):
    small_run(tmp_path, 1, extra=True)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "figures" / "mine.png").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(ValueError, match="holds an earlier run: pass --resume to go on with it, --overwrite to replace it"):
        open_workdir(tmp_path)
    assert tree(tmp_path) == before
    small_run(tmp_path, 2, overwrite=True)
    assert set(tree(tmp_path)) == {".flowjax.json", "figures/mine.png", "notes.txt", "summary.json", "sweep.csv"}
    assert json.loads((tmp_path / "summary.json").read_text()) == {"run": 2}
    assert not (tmp_path / "figures" / "deep").exists()
    small_run(tmp_path, 3, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_run_that_fails_changes_nothing(tmp_path, failure):
    small_run(tmp_path / "old", 1)
    before = tree(tmp_path)
    for name in ("old", "new"):
        with pytest.raises(failure):
            failing_run(tmp_path / name, failure)
    assert tree(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_a_run_that_was_killed_is_told_and_can_be_replaced(tmp_path):
    open_workdir(tmp_path / "run").write_json("summary.json", {})  # neither committed nor discarded
    with pytest.raises(ValueError, match="holds an unfinished run: pass --resume to go on with it, --overwrite to replace it"):
        open_workdir(tmp_path / "run")
    with open_workdir(tmp_path / "run", resume=True) as workdir:  # also where nothing of it was kept
        workdir.write_json("summary.json", {})
    open_workdir(tmp_path / "run", overwrite=True).write_json("summary.json", {})
    small_run(tmp_path / "run", 2, overwrite=True)
    assert set(tree(tmp_path / "run")) == {".flowjax.json", "summary.json", "sweep.csv"}


def test_a_commit_cut_short_is_never_taken_for_a_finished_run(tmp_path, monkeypatch):
    """Whichever file it was about to move: no summary, or all of the new run."""
    for count in range(1, 5):
        root = tmp_path / str(count)
        small_run(root, 1)
        replace, moved = os.replace, []

        def failing(source, target, replace=replace, moved=moved, count=count):
            moved.append(target)
            if len(moved) == count:
                raise OSError("disk full")
            replace(source, target)

        monkeypatch.setattr(os, "replace", failing)
        with pytest.raises(OSError, match="disk full"):
            small_run(root, 2, overwrite=True)
        monkeypatch.undo()
        held = json.loads((root / "summary.json").read_text()) if (root / "summary.json").exists() else None
        assert held == {1: {"run": 1}, 4: {"run": 2}}.get(count)  # the first and the last to be moved is the manifest


def test_no_link_in_the_folder_leads_elsewhere(tmp_path):
    """A folder from outside brings its manifest along, and links: what lies where they lead is neither written nor removed."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "top1.png").write_text("mine")
    (victim / "file").write_text("mine")
    before = tree(victim)
    for number, (link, to) in enumerate(
        [
            ("figures", victim),
            ("log", victim),
            ("folder/deep", victim),
            ("folder/file", victim / "file"),
            (".flowjax.lock", victim / "file"),
        ]
    ):
        root = tmp_path / f"run{number}"
        (root / link).parent.mkdir(parents=True)
        (root / link).symlink_to(to)
        (root / ".flowjax.json").write_text(json.dumps({"files": ["figures/top1.png"], "live": ["log", "folder"]}))
        for how in ({"overwrite": True}, {"resume": True}):
            with pytest.raises((ValueError, OSError), match=r"is a link|cannot be written"):
                open_workdir(root, live=("log", "folder"), **how)
        (root / ".flowjax.json").write_text(json.dumps({"files": [], "live": []}))
        if link == "figures":
            with pytest.raises(FileExistsError), open_workdir(root, overwrite=True) as workdir:
                workdir.path("figures/top1.png")
    assert tree(victim) == before


def test_a_commit_cut_short_still_knows_its_files(tmp_path, monkeypatch):
    small_run(tmp_path, 1, extra=True)
    replace, moved = os.replace, []

    def failing(source, target):
        moved.append(target)
        if len(moved) == 3:
            raise OSError("disk full")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="disk full"):
        small_run(tmp_path, 2, overwrite=True)
    monkeypatch.undo()
    small_run(tmp_path, 3, overwrite=True)
    assert set(tree(tmp_path)) == {".flowjax.json", "summary.json", "sweep.csv"}


def test_other_peoples_folders_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="not of an earlier run: give another --workdir"):
            open_workdir(tmp_path, overwrite)
    assert set(tree(tmp_path)) == {"notes.txt"}
    with pytest.raises(ValueError, match="is a file"):
        open_workdir(tmp_path / "notes.txt")
    with pytest.raises(OSError, match="cannot be written"):
        open_workdir(tmp_path / "notes.txt" / "run")


@pytest.mark.skipif(not os.path.isdir("/sys/kernel"), reason="needs a folder that not even root may write to")
def test_a_folder_that_cannot_be_written():
    with pytest.raises(PermissionError, match=r"workdir /sys/kernel/run cannot be written .*: give another --workdir"):
        open_workdir("/sys/kernel/run")


def test_a_file_of_the_users_own_is_not_overwritten(tmp_path):
    small_run(tmp_path, 1)
    (tmp_path / "report.html").write_text("mine")
    (tmp_path / "figures").write_text("mine")
    before = tree(tmp_path)
    for name in ("report.html", "figures/a.png"):
        with pytest.raises(FileExistsError, match="of your own"), open_workdir(tmp_path, overwrite=True) as workdir:
            workdir.path(name)
    assert tree(tmp_path) == before


def test_nothing_outside_of_the_folder_is_written_or_removed(tmp_path):
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    root = tmp_path / "run"
    for name in ("../victim.txt", str(victim), ""):
        with pytest.raises(ValueError, match="leads out"), open_workdir(root, overwrite=True) as workdir:
            workdir.path(name)
    small_run(root, 1)
    for manifest in ('{"files": ["../victim.txt"]}', '{"files": 3}', "not json", "[]"):
        (root / ".flowjax.json").write_text(manifest)
        with pytest.raises(ValueError, match="damaged"):
            open_workdir(root, overwrite=True)
    assert victim.read_text() == "mine"
    assert ".flowjax-partial" not in os.listdir(root)


def test_live_files_outlive_a_run_that_was_cut_off_and_are_gone_on_with(tmp_path):
    root = tmp_path / "run"

    def cut_off() -> None:
        with open_workdir(root, live=("log", "folder")) as workdir:
            workdir.live("log").write_text("so far")
            workdir.write_json("summary.json", {})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        cut_off()
    assert set(tree(root)) == {".flowjax.json", "log"}
    with pytest.raises(ValueError, match="--resume to go on with it, --overwrite to replace it"):
        open_workdir(root, live=("log", "folder"))
    with open_workdir(root, live=("log", "folder"), resume=True) as workdir:
        assert workdir.live("log").read_text() == "so far"
        workdir.write_json("summary.json", {})
    assert set(tree(root)) == {".flowjax.json", "log", "summary.json"}
    with open_workdir(root, overwrite=True, live=("log",)) as workdir:
        assert not workdir.live("log").exists()
        workdir.write_json("summary.json", {})


def test_a_live_file_of_the_users_own_is_left_alone(tmp_path):
    small_run(tmp_path, 1)
    (tmp_path / "log").write_text("mine")
    with pytest.raises(ValueError, match="a log of your own"):
        open_workdir(tmp_path, overwrite=True, live=("log",))
    assert (tmp_path / "log").read_text() == "mine"


def test_a_folder_that_is_being_written_is_refused(tmp_path):
    with open_workdir(tmp_path / "run") as workdir:
        workdir.write_json("summary.json", {})
        with pytest.raises(ValueError, match=f"being written by process {os.getpid()}"):
            open_workdir(tmp_path / "run", overwrite=True)
    small_run(tmp_path / "run", 2, overwrite=True)
