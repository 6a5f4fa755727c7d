"""An experiment in the process of the tests, where programs compiled for one test serve the next."""

import json
import pathlib
from typing import Any

from ml_collections import ConfigDict

from flowjax.reporting.workdir import open_workdir


def summary_of(binary: Any, config: ConfigDict, workdir: pathlib.Path, **settings: Any) -> dict[str, Any]:
    """The experiment in this process; its summary."""
    config.update_from_flattened_dict(settings)
    with open_workdir(workdir, live=getattr(binary, "LIVE", ())) as opened:
        binary.run(config, opened)
    return json.loads((workdir / "summary.json").read_text())
