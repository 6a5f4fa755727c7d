"""One binary on many hosts: the same command on each. On Cloud TPU and GKE (and under Slurm or MPI) they find each other.

    python -m experiments.train --coordinator_address=10.0.0.1:8476 --num_processes=4 --process_id=0 ...    # elsewhere, each its own id

A process ends with a status that asks for a restart if another process of the job dies or no longer answers: `flowjax.runtime.exit_codes`.
"""

import contextlib
import hashlib
import logging
import os
import pathlib
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import jax
from absl import flags

from flowjax.runtime import processes, storage
from flowjax.runtime.exit_codes import Exit
from flowjax.runtime.storage import bucket

ROOT = pathlib.Path(__file__).parents[2]
BUCKET = pathlib.Path("/bucket")
"""Where launch/ mounts the bucket."""
_LOST = ("Gloo", "UNAVAILABLE", "DEADLINE_EXCEEDED", "coordination", "heartbeat", "Socket closed", "onnection", "ABORTED", "CANCELLED")
_GRACE = 2.0  # seconds for the others to say what they have to say, before the coordinator goes


class LostPeer(ConnectionError):
    """Another process of the job died, or does not answer."""


def define_flags() -> None:
    """The flags of a binary that can run as several processes."""
    flags.DEFINE_string("coordinator_address", None, "HOST:PORT of process 0, the same on all; found by itself on Cloud TPU and GKE.")
    flags.DEFINE_integer("num_processes", None, "How many processes there are; found likewise.", lower_bound=1)
    flags.DEFINE_integer("process_id", None, "Which of them this is, 0, 1, ...; found likewise.", lower_bound=0)
    flags.DEFINE_integer("start_timeout_seconds", 60, "How long to wait for the others at the start.", lower_bound=1)
    flags.DEFINE_integer("heartbeat_timeout_seconds", 20, "After how long without a sign of life a process is given up.", lower_bound=1)
    flags.DEFINE_float("step_timeout_seconds", 1800.0, "After how long a step, or an evaluation, has hung; 0: never.", lower_bound=0.0)


def step_timeout() -> float:
    """Seconds after which a step has hung; never in a binary that runs as one process."""
    return flags.FLAGS.step_timeout_seconds if "step_timeout_seconds" in flags.FLAGS else 0.0


def connect() -> None:
    """Find the other processes, if there are others. Before JAX computes anything.

    Raises:
      ValueError: flags that do not fit each other.
      LostPeer: not all of them came in time.
    """
    options = flags.FLAGS
    given: dict[str, Any] = {name: options[name].value for name in ("coordinator_address", "num_processes", "process_id")}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if 0 < len(missing) < 3:
        raise ValueError(
            f"{', '.join(missing)} not given: a process of several needs --coordinator_address, --num_processes and --process_id"
        )
    if not missing and given["process_id"] >= given["num_processes"]:
        raise ValueError(f"--process_id={given['process_id']}: expected 0 to {given['num_processes'] - 1}, below --num_processes")
    if not missing and not given["coordinator_address"].rpartition(":")[2].isdigit():
        raise ValueError(f"--coordinator_address={given['coordinator_address']}: expected HOST:PORT")
    if not missing and given["process_id"] > 0:
        _await(given["coordinator_address"], options.start_timeout_seconds)
    if not missing:  # what a CPU computes with others then fails in the call that meets another process's death, and not in a thread
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    logging.getLogger("jax._src.distributed").setLevel(logging.WARNING)
    try:
        jax.distributed.initialize(
            **given,
            initialization_timeout=options.start_timeout_seconds,
            heartbeat_timeout_seconds=options.heartbeat_timeout_seconds,
            shutdown_timeout_seconds=options.heartbeat_timeout_seconds,
        )
    except ValueError as error:
        if "should be defined" not in str(error):
            raise
        return  # nothing says that there are others
    except RuntimeError as error:
        raise LostPeer(
            f"not all processes of the job came within {options.start_timeout_seconds} s ({str(error).splitlines()[0]})"
        ) from error


def _await(address: str, seconds: float) -> None:
    """Until process 0 can be reached: JAX's own wait for it ends in an abort."""
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=max(deadline - time.monotonic(), 0.1)).close()
            return
        except OSError as error:
            if time.monotonic() >= deadline:
                why = error.strerror or error
                raise LostPeer(f"process 0 was not to be reached at {address} within {seconds} s: {why}") from error
            time.sleep(0.2)


def check_bucket(workdir: storage.Folder) -> None:
    """That a bucket is there; and that a folder which is to lie in a mounted one does: a run would write to a disk that goes with its host.

    Raises:
      ValueError: there is no such bucket, no credentials, or nothing is mounted there.
      OSError: the bucket cannot be reached.
    """
    if storage.in_bucket(workdir):
        bucket.check(str(workdir))
    elif BUCKET in workdir.parents and not BUCKET.is_mount() and not (BUCKET.is_dir() and any(BUCKET.iterdir())):
        raise ValueError(f"--workdir={workdir}: no bucket is mounted at {BUCKET}: is its name right, and may this host use it?")


def check_alike(config: Mapping[str, Any], workdir: str, versions: Mapping[str, str]) -> None:
    """That all processes were started with the same configuration, folder, packages, code and kind of device.

    Raises:
      ValueError: with what differs.
    """
    if processes.several():
        device = jax.local_devices()[0].device_kind
        facts = {
            "config": config,
            "workdir": workdir if storage.in_bucket(workdir) else os.path.abspath(os.path.expanduser(workdir)),
            "versions": versions,
            "code": _code(),
            "device": device,
        }
        processes.check_same({**facts, "local_devices": jax.local_device_count()})


def _code() -> str:
    """A checksum of the program itself."""
    digest = hashlib.sha256()
    for folder in ("kernels", "flowjax", "experiments"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            digest.update(file.relative_to(ROOT).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def lost_peer(error: BaseException) -> bool:
    """Whether an error comes from the loss of another process."""
    if isinstance(error, LostPeer):
        return True
    return processes.several() and isinstance(error, jax.errors.JaxRuntimeError) and any(word in str(error) for word in _LOST)


def leave(status: int) -> NoReturn:
    """End a process. One of several does not wait for the others, who may never come: they see that it is gone."""
    if not processes.several():
        sys.exit(status)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    if processes.is_first() and status != Exit.LOST_PEER:
        time.sleep(_GRACE)
    os._exit(status)
