"""Checksums of a folder's files, beside them: what Orbax reads back may differ by a bit without an error."""

import enum
import hashlib
import os
import pathlib
from typing import NamedTuple

FILE = "SHA256SUMS"
"""In the format of `sha256sum`, which can check it: `sha256sum --check SHA256SUMS`."""


class Seal(enum.Enum):
    """What the checksums say."""

    NONE = 0
    """There are none: the process died just then, or an earlier version wrote the files."""
    WHOLE = 1
    BROKEN = 2


class Found(NamedTuple):
    """What became of a folder."""

    seal: Seal
    why: str = ""
    """In a few words, where it is broken."""


class Broken(ValueError):
    """Files that are not as they were sealed."""


def write(folder: pathlib.Path) -> None:
    """Seal a folder whose files do not change any more."""
    lines = [f"{_digest(folder / name)}  {name}\n" for name in _names(folder)]
    aside = folder / f"{FILE}.partial"
    with open(aside, "w", encoding="utf-8") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(folder / FILE)


def check(folder: pathlib.Path) -> Found:
    """Whether a folder is as it was sealed."""
    if not (folder / FILE).exists():
        return Found(Seal.NONE)
    for line in (folder / FILE).read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        if not (folder / name).is_file():
            return Found(Seal.BROKEN, f"{name} is missing")
        if _digest(folder / name) != digest:
            return Found(Seal.BROKEN, f"{name} is not as it was written")
    return Found(Seal.WHOLE)


def _names(folder: pathlib.Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file() and not file.name.startswith(FILE))


def _digest(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
