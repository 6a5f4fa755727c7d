"""What a run writes may lie on this machine, or in a bucket of Google Cloud Storage: the few things that differ stand here."""

from flowjax.storage.lock import hold
from flowjax.storage.mirror import Mirror
from flowjax.storage.paths import (
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
