"""The folder that a run writes to: nothing in it changes before the run is complete, and then only what an earlier run wrote.

A long run also keeps live files there, which grow as it goes: checkpoints, metrics. They outlive a run that was cut off.

The folder may lie in a bucket, gs://BUCKET/FOLDER: what is written aside then stands on this machine.
"""

import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from flowjax.reporting import page, tables
from flowjax.runtime import storage
from flowjax.runtime.storage.lock import NAME as _LOCK
from flowjax.runtime.storage.lock import Lock
from flowjax.runtime.strict_json import plain

if TYPE_CHECKING:
    import matplotlib.figure

SUMMARY = "summary.json"
"""What a run has found; where it is the run is finished."""
_MANIFEST = ".flowjax.json"  # lists the files that a run of ours wrote
_PARTIAL = ".flowjax-partial"  # where a run writes until it is complete


def open_workdir(path: str | os.PathLike, overwrite: bool = False, *, live: Sequence[str] = (), resume: bool = False) -> "WorkDir":
    """Opens `path` for one run, and creates it if need be.

    Use it as a context manager: everything is written aside, and moves into place when the block ends well (or at
    `commit`). If it does not, the folder is as it was.

    Args:
      path: the folder.
      overwrite: replace the files of an earlier run of ours. Other files are never touched.
      live: names of files and folders that the run itself writes in place, at `WorkDir.live`.
      resume: keep the live files of an earlier run, finished or not, and go on from them; where there are none the run begins afresh.

    Raises:
      ValueError: the folder holds something, and neither `overwrite` nor `resume` is set or what it holds is not ours; another process
        is writing there.
      OSError: it cannot be created or written.
    """
    root = storage.located(path)
    elsewhere = "give another --workdir"
    try:
        created = not root.exists()
        if not created and not root.is_dir():
            raise ValueError(f"workdir {root} is a file, not a folder: {elsewhere}")
        storage.make(root)
        names = storage.names(root) - {_LOCK}
        if names - {_PARTIAL} and _MANIFEST not in names:
            raise ValueError(f"workdir {root} holds files that are not of an earlier run: {elsewhere}")
        lock = storage.hold(root)
        try:
            if names and not overwrite and not resume:
                what = "an earlier run" if _MANIFEST in names else "an unfinished run"
                raise ValueError(f"workdir {root} holds {what}: pass --resume to go on with it, --overwrite to replace it, or {elsewhere}")
            earlier, earlier_live = _read_manifest(root)
            _check_links(root, {*earlier, *earlier_live, *live})
            taken = sorted(name for name in live if name in names and name not in earlier_live)
            if taken:
                raise ValueError(f"workdir {root} holds a {taken[0]} of your own: move it, or {elsewhere}")
            if _PARTIAL in names:
                storage.remove(root / _PARTIAL)
            if not resume:
                for name in earlier_live:
                    storage.remove(root / name)
            workdir = WorkDir(root, created, earlier, tuple(live), lock)
            if live:
                workdir.claim()
        except BaseException:
            lock.release()
            raise
    except OSError as error:
        failed = type(error)(f"workdir {root} cannot be written ({error.strerror}): {elsewhere}")
        failed.errno = error.errno
        raise failed from error
    return workdir


class WorkDir:
    """One run's folder, open for writing; made by `open_workdir`. Names are relative to the folder, `figures/top1.png`."""

    def __init__(self, root: storage.Folder, created: bool, earlier: set[str], live: tuple[str, ...], lock: Lock):
        self.root = root
        self._live, self._lock = live, lock
        self._created = created
        if storage.in_bucket(root):
            self._partial = pathlib.Path(tempfile.mkdtemp(prefix="flowjax-"))
        else:
            self._partial = pathlib.Path(root / _PARTIAL)
            self._partial.mkdir()
        self._earlier = earlier  # the files of an earlier run, which this one may replace

    def path(self, name: str) -> pathlib.Path:
        """Where to write the file that is to be called `name`: it stands aside until `commit`.

        Raises:
          ValueError: the name leads out of the folder.
          FileExistsError: a file of the user's own has that name.
        """
        if not _is_inside(name):
            raise ValueError(f"file name {name!r} leads out of the workdir {self.root}")
        target = self.root / name
        folders = [parent for parent in target.parents if self.root in parent.parents]
        if target.is_dir() or (name not in self._earlier and storage.exists(target)) or any(f.exists() and not f.is_dir() for f in folders):
            raise FileExistsError(
                f"workdir {self.root} holds a {name} of your own that would be overwritten: move it, or give another --workdir"
            )
        partial = self._partial / name
        partial.parent.mkdir(parents=True, exist_ok=True)
        return partial

    def live(self, name: str) -> storage.Folder:
        """Where the live file or folder `name` lies. It is written in place, and stays if the run is cut off."""
        if name not in self._live:
            raise ValueError(f"live file {name!r} was not announced to open_workdir; there are {', '.join(self._live) or 'none'}")
        return self.root / name

    def claim(self) -> None:
        """Let the folder say, from now on, which files in it are a run's."""
        self._write_manifest(self._earlier)

    def write_json(self, name: str, value: Any) -> None:
        """Writes `value` as strict JSON: see `plain`."""
        text = json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)
        self.path(name).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")  # names of files may be no Unicode

    def write_csv(self, name: str, rows: tables.Rows) -> None:
        """Writes a table: see `tables.write_csv`."""
        tables.write_csv(self.path(name), rows)

    def write_table(self, name: str, rows: tables.Rows) -> None:
        """Writes a table twice, as `name.csv` and, for documents, as Markdown in `name.md`."""
        self.write_csv(f"{name}.csv", rows)
        self.path(f"{name}.md").write_text(tables.text_table(rows) + "\n", encoding="utf-8")

    def save_figure(self, name: str, figure: "matplotlib.figure.Figure") -> pathlib.Path:
        """Writes `figures/name.png` and `figures/name.svg`; returns the path of the latter, for a `page.Section`."""
        from flowjax.reporting import style

        for suffix in (".png", ".svg"):
            self.path(f"figures/{name}{suffix}")
        return style.save(figure, self._partial / "figures", name)

    def write_report(
        self, title: str, takeaway: str, sections: Sequence[page.Section], metadata: Mapping[str, Any], *, contents: bool = False
    ) -> None:
        """Writes `report.html`: see `page.write_report`."""
        page.write_report(self.path("report.html"), title, takeaway, sections, metadata, contents=contents)

    def commit(self) -> None:
        """Moves all that was written into place, and removes what an earlier run wrote and this one did not."""
        written = {str(file.relative_to(self._partial)) for file in self._partial.rglob("*") if file.is_file()}
        # Until the last file has moved the manifest names old and new alike: should the move be cut short, every file that
        # is ours is still known as ours. A summary says that its run is finished: the old one goes first, the new one comes last.
        self._write_manifest(written | self._earlier)
        if SUMMARY in self._earlier:
            storage.remove(self.root / SUMMARY)
        for name in sorted(written, key=lambda name: (name == SUMMARY, name)):
            storage.make((self.root / name).parent)
            storage.move_in(self._partial / name, self.root / name)
        for name in sorted(self._earlier - written):
            stale = self.root / name
            if stale.is_file():
                stale.unlink()
                if stale.parent != self.root and not storage.in_bucket(stale) and not any(stale.parent.iterdir()):
                    stale.parent.rmdir()
        self._write_manifest(written)
        shutil.rmtree(self._partial)

    def __enter__(self) -> "WorkDir":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None and self._partial.is_dir():
                self.commit()
            elif kind is not None:
                self._discard()
        finally:
            self._lock.release()

    def _discard(self) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)
        if self._created and storage.names(self.root) <= {_LOCK, _MANIFEST}:
            storage.remove(self.root / _MANIFEST)
            self._lock.release()
            if not storage.in_bucket(self.root):
                self.root.rmdir()

    def _write_manifest(self, names: set[str]) -> None:
        aside = self._partial / _MANIFEST
        aside.write_text(json.dumps({"files": sorted(names), "live": sorted(self._live)}, indent=2) + "\n", encoding="utf-8")
        storage.move_in(aside, self.root / _MANIFEST)


class OthersWorkDir(WorkDir):
    """The folder of a run that another process writes: where its live files lie. Nothing else is written from here."""

    def __init__(self, path: str | os.PathLike, live: Sequence[str] = ()):
        self.root, self._live = storage.located(path), tuple(live)

    def path(self, name: str) -> pathlib.Path:
        raise NotImplementedError(f"{name}: the report of several processes is written by the first")

    def write_json(self, name: str, value: Any) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass


def _read_manifest(root: storage.Folder) -> tuple[set[str], set[str]]:
    """The files, and the live ones, of an earlier run."""
    if not (root / _MANIFEST).exists():
        return set(), set()
    try:
        found = json.loads((root / _MANIFEST).read_text(encoding="utf-8"))
        files, live = found["files"], found.get("live", [])
        sound = all(isinstance(names, list) and all(isinstance(n, str) and _is_inside(n) for n in names) for names in (files, live))
    except (ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:  # these files may be deleted: nothing is guessed
        raise ValueError(f"workdir {root}: its list of files {_MANIFEST} is damaged; delete it, or give another --workdir")
    return set(files), set(live)


def _check_links(root: storage.Folder, names: set[str]) -> None:
    """Raise a ValueError where one of the names, or something below it, is a link: files elsewhere would be changed by it."""
    for top in sorted({pathlib.PurePath(name).parts[0] for name in names}):
        link = storage.first_link(root / top)
        if link is not None:
            raise ValueError(
                f"workdir {root}: {link} is a link, through which files elsewhere would change: remove it, or give another --workdir"
            )


def _is_inside(name: str) -> bool:
    path = pathlib.PurePath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts
