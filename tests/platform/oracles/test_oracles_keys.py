"""Keys stand nowhere: everything that real processes write and say is searched for them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import SUPPORT

KEY = "sk-test-Qx7Rw2Lm9Tz4Vb6Ny1Kp3Hs8"
PATHS = os.pathsep.join([str(SUPPORT), *map(str, filter(None, sys.path))])

WITH_A_KEY = """
import json, os, sys, traceback
from pathlib import Path

import ray
from modicum.oracles.endpoint.oracle import EndpointOracle
from modicum.oracles.endpoint.settings import Endpoint
from modicum.oracles.protocol import Pair

at, values = Path(sys.argv[1]), eval(sys.argv[2])
ray.init(
    address="local", num_cpus=1, _temp_dir=str(at / "ray"), include_dashboard=True,
    dashboard_port=0, logging_level="INFO",
)
said = []

def judge(count, **settings):
    oracle = EndpointOracle("judge", "summarisation", endpoint=Endpoint(**values | settings))
    pairs = [Pair(f"{count} {n}", "fine quality=0.9", "poor quality=0.1") for n in range(count)]
    with oracle:
        try:
            answers = oracle.judge(pairs)
            said.extend(map(repr, answers))
            said.append(repr(oracle.status()))
            print(len(answers), "answers", repr(answers[0]), flush=True)
        except Exception as error:
            said.extend(traceback.format_exception(error))
            traceback.print_exc()

judge(5)
judge(6, name="variable", ledger=str(at / "two.sqlite"), structured_output=False, key_file=None,
      key_variable="MODICUM_TEST_KEY")
judge(7, name="wrong model", ledger=str(at / "three.sqlite"), base_url=values["base_url"] + "/no")
from ray._private.internal_api import get_state_from_address  # noqa: E402,F401
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list
for space in (None, "cluster", "job", "package", "session", "tracing", "dashboard", "usage", "fun"):
    for name in _internal_kv_list(b"", namespace=space):
        said.append(repr((name, _internal_kv_get(name, namespace=space))))
said.append(repr(ray.nodes()))
said.append(repr(ray._private.state.jobs()))
said.append(repr(ray._private.state.actors()))
from ray.util import state
for listing in (state.list_actors, state.list_jobs, state.list_workers, state.list_tasks):
    try:
        said.append(repr(listing(detail=True)))
    except Exception as error:
        said.append(f"no listing: {error!r}")
(at / "said.txt").write_text("\\n".join(said))
ray.shutdown()
"""


def parts_of(key: str, length: int = 8) -> list[bytes]:
    return [key[at : at + length].encode() for at in range(len(key) - length + 1)]


def leaks(folder: Path, key: str) -> list[str]:
    """Files below a folder in which a part of a key stands, as it is or as JSON or hex has it."""
    found = []
    parts = parts_of(key)
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if any(part in content for part in parts):
                found.append(str(path.relative_to(folder)))
    return found


@pytest.mark.slow
def test_keys_stand_nowhere(tmp_path, request):
    """From a file and from a variable: a server repeats the key in every error and answer; then
    everything that was written is searched for it.
    """
    at = Path(tempfile.mkdtemp(prefix="keys-", dir="/tmp"))
    request.addfinalizer(lambda: shutil.rmtree(at, ignore_errors=True))
    secret = tmp_path / "secret"
    secret.write_text(KEY)
    given: dict[str, Any] = {
        "key_file": str(secret),
        "ledger": str(at / "one.sqlite"),
        "attempts": 3,
        "workers": 2,
        "first_wait": 0.02,
        "lease": 0.5,
    }
    with echoing(KEY) as url:
        given["base_url"] = url
        done = subprocess.run(
            [sys.executable, "-c", WITH_A_KEY, str(at), repr(given)],
            capture_output=True,
            text=True,
            timeout=200,
            env=os.environ | {"PYTHONPATH": PATHS, "RAY_ADDRESS": "", "MODICUM_TEST_KEY": KEY},
            check=False,
        )
    (at / "stdout.txt").write_text(done.stdout)
    (at / "stderr.txt").write_text(done.stderr)
    assert done.returncode == 0, done.stderr
    said = (at / "said.txt").read_text()
    assert "[key]" in said  # It was in what the server said.
    assert "does not accept the key" in done.stderr
    assert leaks(at, KEY) == []
    # The search does find: a key in a log, a part of one in a ledger.
    log = next((at / "ray").rglob("gcs_server.out"))
    with log.open("a") as file:
        file.write(f"... {KEY} ...")
    with contextlib.closing(sqlite3.connect(at / "one.sqlite")) as ledger:
        ledger.execute("UPDATE requests SET error = ? WHERE id = 1", (f"... {KEY[5:13]} ...",))
        ledger.commit()
    assert {Path(name).name for name in leaks(at, KEY)} >= {log.name, "one.sqlite"}


@contextlib.contextmanager
def echoing(key: str) -> Iterator[str]:
    """A server that repeats the key it was given, in errors of each kind and in answers."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    statuses = iter([400, 500, 429, 503, 200] * 1000)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            given = self.headers["authorization"].removeprefix("Bearer ")
            assert given == key
            status = 401 if "/no/" in self.path else next(statuses)
            said = f"Key {given} (or {given[3:20]}) is ..."
            error = {"error": {"message": said, "type": said, "code": said, "param": said}}
            choice = {"message": {"content": f"{said}\nPreferred: A"}, "finish_reason": "stop"}
            body = json.dumps({"choices": [choice]} if status == 200 else error).encode()
            self.send_response(status)
            self.send_header("x-key", given)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
    finally:
        httpd.shutdown()
        httpd.server_close()
