"""What every binary does before and after its experiment: flags, the run's folder, one-line errors.

A binary is `runner.main(NAME, run)` with `run(config, workdir) -> takeaway`; everything a user can get wrong ends in one line and a
non-zero exit status.
"""

import difflib
import json
import pathlib
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
import scipy
from absl import app, flags
from ml_collections import ConfigDict, config_flags
from tqdm import tqdm

from flowjax.reporting.workdir import WorkDir, open_workdir

Run = Callable[[ConfigDict, WorkDir], str]

EXIT_USER_ERROR = 2


def main(name: str, run: Run) -> None:
    """Run a binary from its command line."""
    config_file = pathlib.Path(__file__).parent / "configs" / f"{name}.py"
    config_flags.DEFINE_config_file("config", str(config_file), "Configuration file, FILE.py:PRESET.", lock_config=True)
    flags.DEFINE_string("workdir", f"runs/{name}", "Folder for the report, the tables and the figures.")
    flags.DEFINE_bool("overwrite", False, "Replace the files of an earlier run in the folder; other files are left alone.")
    flags.DEFINE_bool("resume", False, "Keep what the folder holds, if it is a finished run of the same configuration.")
    flags.DEFINE_bool("traceback", False, "Show the whole traceback of an error, for debugging.")
    app.run(lambda _: _run(name, run), flags_parser=lambda argv: _parse(name, argv))


def _parse(name: str, argv: list[str]) -> list[str]:
    """Parse the flags; a wrong one is the user's error, in one line."""
    try:
        left = flags.FLAGS(argv)
    except (flags.Error, ValueError, TypeError, LookupError, AttributeError, OSError, SyntaxError, ImportError) as error:
        fail(name, _flag_error(error, argv))
    if left[1:]:
        fail(name, f"unexpected argument {left[1]!r}; settings are given as --config.KEY=VALUE")
    return left


def _flag_error(error: Exception, argv: list[str]) -> str:
    """What the user did, from what the flag library makes of it."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, LookupError | AttributeError):
        keys = [arg.split("=")[0].removeprefix("--config.") for arg in argv if arg.startswith("--config.")]
        wanted = next((key for key in keys if key.split(".")[-1] in text or key in text), None)
        known = _known_keys()
        if wanted and known and wanted not in known:
            near = difflib.get_close_matches(wanted, known, n=1, cutoff=0.4)
            hint = f"; did you mean config.{near[0]}?" if near else ""
            return f"unknown config key config.{wanted}{hint} Known keys: {', '.join(sorted(known))}"
    if isinstance(error, OSError) and error.filename:
        return f"config file {error.filename} is not there; give --config=FILE.py:PRESET"
    return text


def _known_keys() -> list[str]:
    """The keys of the configuration that was read before the flag that failed."""
    config = flags.FLAGS["config"].value
    if not isinstance(config, ConfigDict):
        return []

    def keys(part: ConfigDict, prefix: str) -> Iterator[str]:
        for key, value in part.items():
            if isinstance(value, ConfigDict):
                yield from keys(value, f"{prefix}{key}.")
            else:
                yield prefix + key

    return list(keys(config, ""))


def _run(name: str, run: Run) -> None:
    options = flags.FLAGS
    root = pathlib.Path(options.workdir).expanduser()
    config = options.config
    try:
        if options.resume and _finished(root, config):
            print(f"{root} holds a finished run of this configuration: {root / 'report.html'}")
            return
        with open_workdir(root, overwrite=options.overwrite) as workdir:
            workdir.write_json("config.json", config.to_dict())
            takeaway = run(config, workdir)
    except (ValueError, OSError, NotImplementedError, MemoryError) as error:
        if options.traceback:
            raise
        fail(name, str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
    except KeyboardInterrupt:
        fail(name, f"interrupted; what {root} held before still stands", status=130)
    print(f"\n{takeaway}\nReport: {(root / 'report.html').resolve()}")


def _finished(root: pathlib.Path, config: ConfigDict) -> bool:
    if not (root / "summary.json").exists():
        return False
    earlier = json.loads((root / "config.json").read_text(encoding="utf-8"))
    if earlier != json.loads(json.dumps(config.to_dict())):
        raise ValueError(f"workdir {root} holds a run of another configuration: pass --overwrite to replace it, or give another --workdir")
    return True


def fail(name: str, message: str, status: int = EXIT_USER_ERROR) -> None:
    """End the process with one line on standard error."""
    print(f"{name}: error: {message}", file=sys.stderr)
    sys.exit(status)


def progress(what: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """A progress bar on standard error, where that is a terminal."""
    return lambda items: tqdm(items, desc=what, disable=None, leave=False)


def provenance(config: ConfigDict, started: float) -> dict[str, Any]:
    """What a reader needs to make the same numbers again."""
    from importlib.metadata import version

    return {
        "command": shlex.join(["python", "-m", sys.modules["__main__"].__spec__.name, *sys.argv[1:]] if _is_module() else sys.argv),
        "versions": {
            "flowjax-oracle": version("flowjax-oracle"),
            "jax": jax.__version__,
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "python": platform.python_version(),
        },
        "device": jax.devices()[0].device_kind,
        "seed": config.seed,
        "wall_seconds": time.perf_counter() - started,
    }


def _is_module() -> bool:
    return getattr(sys.modules["__main__"], "__spec__", None) is not None
