"""Files that grow, and that libraries write on this machine: brought to a bucket now and then."""

import pathlib
import shutil
import tempfile

from flowjax.runtime.storage import bucket
from flowjax.runtime.storage.paths import Folder, in_bucket


class Mirror:
    """A file or a folder that grows: `path` is where it is written. `keep` brings what has changed to where it belongs.

    Where that is this machine, `path` is the place itself, and `keep` does nothing. In a bucket an object is written again as a whole.
    """

    def __init__(self, place: Folder):
        self._place = place
        self._kept: dict[pathlib.Path, tuple[int, int]] = {}
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="flowjax-")) / place.name if in_bucket(place) else pathlib.Path(place)

    def keep(self) -> None:
        """Everything as it is now.

        Raises:
          OSError: it cannot be written.
        """
        if not in_bucket(self._place):
            return
        for file in sorted([self.path, *self.path.rglob("*")]):
            if file.is_file():
                now = (file.stat().st_size, file.stat().st_mtime_ns)
                if self._kept.get(file) != now:
                    bucket.upload(file, str(self._place / file.relative_to(self.path) if file != self.path else self._place))
                    self._kept[file] = now

    def close(self) -> None:
        """The last time: what was written on this machine for a bucket goes."""
        self.keep()
        if in_bucket(self._place):
            shutil.rmtree(self.path.parent)
