"""Seals see what is missing from a checkpoint and what was changed."""

import pathlib

from flowjax.runtime import storage
from flowjax.training import seal


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
