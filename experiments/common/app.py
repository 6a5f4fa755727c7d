"""The frame of every binary: flags, the run's folder, one-line errors.

A binary is `app.main(NAME, run)` with `run(config, workdir) -> takeaway`; everything a user can get wrong ends in one line and a
non-zero exit status.
"""

import contextlib
import difflib
import hashlib
import json
import keyword
import logging
import pathlib
import platform
import runpy
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from types import TracebackType
from typing import Any, NoReturn, TextIO

import jax
import numpy as np
import scipy
from absl import app, flags
from ml_collections import ConfigDict, config_flags
from tqdm import tqdm

from experiments.common import interrupt, multihost
from flowjax.reporting.workdir import SUMMARY, OthersWorkDir, WorkDir, open_workdir
from flowjax.runtime import exit_codes, extras, processes, storage
from flowjax.runtime.exit_codes import Exit
from flowjax.runtime.messages import first_line
from flowjax.runtime.preemption import Stopped

Run = Callable[[ConfigDict, WorkDir], str]


def _missing_package(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What a binary prints where one of its own imports fails: it then never comes to `main`."""
    if isinstance(error, ModuleNotFoundError) and extras.extra_of(error) and "--traceback" not in sys.argv:
        name = pathlib.Path(sys.argv[0]).stem
        fail(name, str(extras.missing(f"experiments.{name}", error)))
    sys.__excepthook__(kind, error, trace)


sys.excepthook = _missing_package

ANY = ("any",)
"""Keys that may differ in a run that goes on: see `main`."""


def main(
    name: str,
    run: Run,
    *,
    live: Sequence[str] = (),
    free: Sequence[str] = (),
    several: bool = False,
    on_disk: bool = False,
    page: str = "report.html",
) -> None:
    """Run a binary from its command line.

    Args:
      live: names in the workdir that the run writes as it goes; with `--resume` it goes on from them (`WorkDir.live`).
      free: keys of the configuration that may differ when it does; `ANY`: all, since what is kept says itself what it belongs to.
      several: it can run as several processes (`experiments.common.multihost`), of which the first writes the folder.
      on_disk: its folder cannot lie in a bucket: data are read from it.
      page: what it writes for a reader.
    """
    _define_config(name, name)
    if several:
        multihost.define_flags()
    where = "" if on_disk else ", or gs://BUCKET/FOLDER"
    flags.DEFINE_string("workdir", f"runs/{name}", f"Folder for the report, the tables and the figures{where}.")
    flags.DEFINE_bool("overwrite", False, "Replace the files of an earlier run in the folder; other files are left alone.")
    flags.DEFINE_bool(
        "resume", False, "Go on with the run that the folder holds, and keep one that is finished; begin where there is none."
    )
    app.run(lambda _: _run(name, run, live, free, several, on_disk, page), flags_parser=lambda argv: _parse(name, argv))


def main_without_workdir(name: str, run: Callable[[ConfigDict], None], *, config: str) -> None:
    """Run a binary that prints what it finds, and writes nothing.

    Args:
      config: whose configuration it takes.
    """
    _define_config(name, config)
    app.run(lambda _: _guarded(name, lambda: run(flags.FLAGS.config)), flags_parser=lambda argv: _parse(name, argv))


def _define_config(name: str, config: str) -> None:
    """The flags of every binary."""
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)  # it tells at INFO of each kind of device that is not here
    file = str(pathlib.Path(__file__).parents[1] / "configs" / f"{config}.py")
    sys.argv[1:] = [_no_keyword(argument) for argument in sys.argv[1:]]
    try:
        _check_config(file, sys.argv[1:])
    except (ValueError, OSError) as error:
        fail(name, first_line(error))
    config_flags.DEFINE_config_file("config", file, "Configuration, FILE.py:PRESET; the file is Python, and is run.", lock_config=True)
    flags.DEFINE_bool("traceback", False, "Show the whole traceback of an error, for debugging.")


def _no_keyword(argument: str) -> str:
    """`--config.for=` as `--config.for_=`: a key that is a word of Python has an underscore behind it, since keys are parsed as Python."""
    key, equals, value = argument.partition("=")
    prefix, _, last = key.rpartition(".")
    return f"{key}_{equals}{value}" if prefix.startswith("--config") and keyword.iskeyword(last) else argument


def _parse(name: str, argv: list[str]) -> list[str]:
    """Parse the flags; a wrong one is the user's error, in one line."""
    try:
        left = flags.FLAGS(argv)
    except (flags.Error, ValueError, TypeError) as error:
        fail(name, first_line(error))
    if left[1:]:
        fail(name, f"unexpected argument {left[1]!r}; settings are given as --config.KEY=VALUE")
    return left


def _check_config(default: str, arguments: list[str]) -> None:
    """See that the configuration file, its preset and every key that is set are there: the flag library's own errors are tracebacks."""
    file, given, preset = next((arg.partition("=")[2] for arg in arguments if arg.startswith("--config=")), default).partition(":")
    if not pathlib.Path(file).is_file():
        raise FileNotFoundError(f"config file {file!r} is not there; give --config=FILE.py:PRESET")
    get_config = runpy.run_path(file).get("get_config")
    if get_config is None:
        raise ValueError(f"config file {file!r} has no function get_config")
    known = list(_keys(get_config(preset) if given else get_config()))
    for argument in arguments:
        key = argument.partition("=")[0].removeprefix("--config.")
        if argument.startswith("--config.") and key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            meant = f" (did you mean config.{near[0]}?)" if near else ""
            raise ValueError(f"unknown config key config.{key}{meant}; there are {', '.join(key.removesuffix('_') for key in known)}")


def _keys(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def _run(name: str, run: Run, live: Sequence[str], free: Sequence[str], several: bool, on_disk: bool, page: str) -> None:
    options = flags.FLAGS
    config = options.config

    def work() -> None:
        root = storage.located(options.workdir)
        if on_disk and storage.in_bucket(root):
            raise ValueError(f"--workdir={options.workdir}: {name} keeps data in its folder, and needs one on a disk")
        multihost.check_bucket(root)
        if several:
            multihost.connect()
            multihost.check_alike(config.to_dict(), options.workdir, versions())
        if options.resume and processes.of_first(lambda: _finished(root, config, free)):
            _say(f"{root} holds a finished run of this configuration: {root / page}")
            return
        takeaway = _run_in(root, config, run, live, overwrite=options.overwrite, resume=options.resume)
        processes.gather("done")  # the others stay alive while the first one reports: one that is gone would be missed
        report = root / page
        _say(f"\n{takeaway}\nReport: {report if storage.in_bucket(report) else report.resolve()}")

    _guarded(name, work, f"; what {options.workdir} held before still stands")


def _run_in(
    root: storage.Folder, config: ConfigDict, run: Run, live: Sequence[str], *, overwrite: bool = False, resume: bool = False
) -> str:
    def opened() -> WorkDir:
        return open_workdir(root, overwrite=overwrite, live=live, resume=resume)

    with processes.together(lambda: opened() if processes.is_first() else OthersWorkDir(root, live)) as workdir:
        workdir.write_json("config.json", config.to_dict())
        return run(config, workdir)


def run_within(folder: storage.Folder, name: str, config: ConfigDict, run: Run, live: Sequence[str]) -> storage.Folder:
    """Run what another binary runs, in a folder of this one's, and return where: one for each configuration. What was cut off there is gone
    on with, and what is finished is left as it is.
    """
    digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest()[:8]
    root = folder / f"{name}-{digest}"
    if not _finished(root, config, free=()):
        storage.make(folder)
        _run_in(root, config, run, live, resume=True)
    return root


def _say(what: str, stream: TextIO | None = None) -> None:
    """Print a line, once for all processes."""
    if processes.is_first():
        print(_printable(what), file=stream, flush=True)


def _printable(text: str) -> str:
    """Names of files as they are, but for letters that would steer the terminal or cannot be written."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def _guarded(name: str, work: Callable[[], None], stands: str = "") -> None:
    """Do some work; what a user can cause ends the process in one line. One of several that fails does not wait for the others."""
    try:
        with interrupt.raised():
            _check_seed(flags.FLAGS.config)
            work()
    except Stopped as stopped:
        _say(str(stopped), sys.stderr)
        raise
    except KeyboardInterrupt:
        fail(name, f"interrupted{stands}", Exit.INTERRUPTED)
    except Exception as error:
        if multihost.lost_peer(error):
            fail(name, f"another process of the job is gone, or does not answer ({first_line(error)}); go on with --resume", Exit.LOST_PEER)
        if isinstance(error, ModuleNotFoundError) and extras.extra_of(error):
            error = extras.missing(f"experiments.{name}", error)
        expected = isinstance(error, processes.FAILURES)
        if expected and not flags.FLAGS.traceback:
            fail(name, first_line(error), exit_codes.of_error(error))
        if not processes.several():
            raise
        traceback.print_exc()
        multihost.leave(exit_codes.of_error(error) if expected else Exit.FAILED)


def check_at_least(config: ConfigDict, **least: int) -> None:
    """Raise a ValueError for the first of these keys that has less."""
    for key, smallest in least.items():
        if config[key] < smallest:
            raise ValueError(f"{key} = {config[key]}: expected at least {smallest}")


def _check_seed(config: ConfigDict) -> None:
    if not 0 <= config.get("seed", 0) < 2**31:
        raise ValueError(f"config.seed={config.seed}: a seed is an integer from 0 to {2**31 - 1}; give another")


def _finished(root: storage.Folder, config: ConfigDict, free: Sequence[str]) -> bool:
    """Whether the folder holds all that this run would make: the same configuration, finished."""
    if not (root / SUMMARY).exists():
        return False
    try:
        earlier = json.loads((root / "config.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # removed or damaged since: nothing says what was finished
        return False
    different = list(processes.differences(json.loads(json.dumps(config.to_dict())), earlier))
    for key, asked, found in different:
        if free is not ANY and key.partition(".")[0] not in free:
            raise ValueError(
                f"{key} = {asked!r}, but workdir {root} holds a run of another configuration, with {found!r}: "
                "pass --overwrite to replace it, or give another --workdir"
            )
    return not different


def fail(name: str, message: str, status: Exit = Exit.USER_ERROR) -> NoReturn:
    """End the process with one line on standard error."""
    which = f" process {jax.process_index()}:" if processes.several() else ""
    with contextlib.suppress(OSError):  # where the disk is full, so is the log's
        print(f"{name}:{which} error: {_printable(message)}", file=sys.stderr)
    multihost.leave(status)


def progress(what: str, total: int | None = None) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """A progress bar on standard error, where that is a terminal. What has no length is told its `total`."""
    return lambda items: tqdm(items, desc=what, total=total, disable=None, leave=False)


def provenance(name: str, config: ConfigDict, started: float) -> dict[str, Any]:
    """What a reader needs to make the same numbers again."""
    return {
        "command": shlex.join(["python", "-m", f"experiments.{name}", *sys.argv[1:]]),
        "versions": versions(),
        "device": jax.devices()[0].device_kind,
        "seed": config.seed,
        "wall_seconds": time.perf_counter() - started,
    }


def versions() -> dict[str, str]:
    """Of what computes."""
    return {
        "flowjax-oracle": version("flowjax-oracle"),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "python": platform.python_version(),
    }
