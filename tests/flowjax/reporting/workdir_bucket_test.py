"""A run's folder in a bucket is as on a disk."""

import json
import pathlib

import pytest

from flowjax.reporting.workdir import WorkDir, open_workdir
from flowjax.runtime import storage


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
