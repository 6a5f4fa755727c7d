"""A job of two JAX processes on this machine, for tests of what each of them holds."""

import os
import pathlib
import socket
import subprocess
import sys

from tests.xla_flags import xla_flags

ROOT = pathlib.Path(__file__).parents[1]


def run_two(code: str, out: pathlib.Path, folder: pathlib.Path, *, devices: int) -> None:
    """Run `code` in both until they end, and fail with their last words if one does.

    Args:
      code: finds in `sys.argv[1:]` the coordinator's port, the number of the process, 0 or 1, and `out`.
      folder: for what they print.
      devices: CPU devices of each.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment, files = os.environ | {"XLA_FLAGS": xla_flags(devices)}, [folder / f"{i}.txt" for i in range(2)]

    def start(i: int) -> subprocess.Popen[bytes]:
        with files[i].open("wb") as output:
            command = [sys.executable, "-c", code, port, str(i), str(out)]
            return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)

    workers = [start(0), start(1)]
    try:
        codes = [worker.wait(timeout=240) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert codes == [0, 0], [file.read_text()[-1500:] for file in files]
