"""Data sets of the hub, through the real client, from a server of this machine that answers as the hub does; and without any."""

import hashlib
import http.server
import io
import json
import pathlib
import socket
import threading
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.binary import Binary, Place

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "someone/small-latents"


def parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"latent": list(np.arange(24.0).reshape(6, 4)), "label": [0, 1, 2, 0, 1, 2]}), out)
    return out.getvalue()


FILES = {"README.md": b"# a data set", "data/train-00000-of-00001.parquet": parquet(), "script.py": b"raise SystemExit(99)"}


class Hub(http.server.BaseHTTPRequestHandler):
    """What the client asks for: the repository's state, its files, their heads and their bytes."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        api, files = f"/api/datasets/{REPO}", f"/datasets/{REPO}/resolve/{COMMIT}/"
        if path.startswith(files) and path.removeprefix(files) in FILES:
            content = FILES[path.removeprefix(files)]
            self.reply(
                200, content if body else b"", {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}, len(content)
            )
        elif path.startswith(f"{api}/tree"):
            entries = [{"type": "file", "path": name, "size": len(c), "oid": hashlib.sha1(c).hexdigest()} for name, c in FILES.items()]
            self.reply(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})
        elif path == api or path.startswith(f"{api}/revision/"):
            told = {"id": REPO, "sha": COMMIT, "siblings": [{"rfilename": name} for name in FILES], "private": False, "gated": False}
            self.reply(200, json.dumps(told | {"disabled": False, "downloads": 0, "likes": 0, "tags": []}).encode(), {})
        else:
            self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def reply(self, status: int, content: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content) if length is None else length)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(name="hub")
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.slow
def test_a_name_of_the_hub_is_fetched_once_read_and_otherwise_refused_in_one_line(
    hub: http.server.ThreadingHTTPServer, tmp_path: pathlib.Path
) -> None:
    inspect = Binary("inspect_data", tmp_path)
    home = ("HF_HOME", str(tmp_path / "home"))
    here = Place(environment=(home, ("HF_ENDPOINT", f"http://127.0.0.1:{hub.server_address[1]}")))
    done = inspect(f"--config.data.path=hf://{REPO}", f"--workdir={tmp_path / 'one'}", place=here)
    assert done.status == 0, done.output
    summary = json.loads((tmp_path / "one" / "summary.json").read_text())
    assert (summary["dataset"], summary["n"], summary["provenance"]["hub"]) == (REPO, 6, f"{REPO}@{COMMIT}")
    assert not any("script.py" in path for path in hub.asked)  # neither fetched nor run

    missing = inspect("--config.data.path=hf://someone/nothing", f"--workdir={tmp_path / 'two'}", place=here)
    assert "the hub has no such data set" in missing.error
    odd = inspect("--config.data.path=hf://nobody", f"--workdir={tmp_path / 'two'}", place=here)
    assert "expected hf://OWNER/NAME" in odd.error

    with socket.socket() as closed:  # a port that refuses: no network
        closed.bind(("127.0.0.1", 0))
        gone = ("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        kept = inspect(f"--config.data.path=hf://{REPO}", f"--workdir={tmp_path / 'three'}", place=Place(environment=(home, gone)))
        assert kept.status == 0, kept.output
        alone = Place(environment=(("HF_HOME", str(tmp_path / "empty")), gone))
        failed = inspect(f"--config.data.path=hf://{REPO}", f"--workdir={tmp_path / 'four'}", place=alone)
    assert "the hub cannot be reached, and the cache does not have it" in failed.error
