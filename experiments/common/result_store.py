"""The cells of a sweep: each is kept on disk as soon as it is finished, so that an interrupted sweep goes on with the next one."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from flowjax.reporting.workdir import WorkDir, plain
from flowjax.runtime import storage

CELLS = "cells"
"""The live folder of a run in which finished cells lie."""


class Cells:
    """Computes what is not there yet: `cells({"shift": 0.5, "seed": 0, "model": digest}, compute)`.

    A cell is a JSON file named by a digest of all that it depends on, and says in clear what that is. It is written aside and moved into
    place: one that was cut short is not there. One that cannot be read is computed again.

    Args:
      workdir: of the run; `CELLS` is one of its live names.
    """

    def __init__(self, workdir: WorkDir):
        self._folder = workdir.live(CELLS)

    def __call__(self, depends_on: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
        """The value of a cell, in plain JSON values."""
        told = plain(depends_on)
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:20]
        file = self._folder / f"{digest}.json"
        try:
            held = json.loads(file.read_text(encoding="utf-8"))
            if held["depends_on"] == told:
                return held["value"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            pass
        value = plain(compute())
        storage.make(self._folder)
        text = json.dumps({"depends_on": told, "value": value}, indent=2) + "\n"
        storage.write_whole(file, lambda aside: aside.write_text(text, encoding="utf-8"))
        return value
