"""Checksums of a folder's files, beside them: what Orbax reads back may differ by a bit without an error."""

import enum
from typing import NamedTuple

from flowjax.runtime import storage

FILE = "SHA256SUMS"
"""File of the checksums, in the format of `sha256sum`, which can check it: `sha256sum --check SHA256SUMS`. In a bucket it holds the
bucket's own CRC32C."""


class Seal(enum.Enum):
    """Outcome of a comparison with the checksums."""

    NONE = 0
    """There are none: the process died just then, or an earlier version wrote the files."""
    WHOLE = 1
    BROKEN = 2


class Found(NamedTuple):
    """Outcome of the check of a folder."""

    seal: Seal
    why: str = ""
    """In a few words, where it is broken."""


class Broken(ValueError):
    """Files that are not as they were sealed."""


def write(folder: storage.Folder) -> None:
    """Seal a folder whose files do not change any more."""
    found = {name: digest for name, digest in storage.checksums(folder).items() if not name.startswith(FILE)}
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(found.items()))
    storage.write_whole(folder / FILE, lambda file: file.write_text(lines, encoding="utf-8"))


def check(folder: storage.Folder) -> Found:
    """Whether a folder is as it was sealed."""
    if not (folder / FILE).exists():
        return Found(Seal.NONE)
    found = storage.checksums(folder)
    for line in (folder / FILE).read_bytes().decode(errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        if name not in found:
            return Found(Seal.BROKEN, f"{name} is missing")
        if found[name] != digest:
            return Found(Seal.BROKEN, f"{name} is not as it was written")
    return Found(Seal.WHOLE)
