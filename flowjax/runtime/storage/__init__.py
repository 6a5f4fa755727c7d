"""Storage of a run: a folder on this machine, or in a bucket of Google Cloud Storage. The differences are handled here."""

from flowjax.runtime.storage.lock import hold
from flowjax.runtime.storage.mirror import Mirror
from flowjax.runtime.storage.paths import (
    Folder,
    checksums,
    exists,
    fetched,
    first_link,
    in_bucket,
    is_link,
    located,
    make,
    move,
    move_in,
    names,
    remove,
    write_whole,
)

__all__ = [
    "Folder",
    "Mirror",
    "checksums",
    "exists",
    "fetched",
    "first_link",
    "hold",
    "in_bucket",
    "is_link",
    "located",
    "make",
    "move",
    "move_in",
    "names",
    "remove",
    "write_whole",
]
