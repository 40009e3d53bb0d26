"""Starting the endpoint, and controlling it while it runs."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fake_endpoint.log import Log


class Endpoint:
    """A running endpoint.

    Attributes:
        url: Address, `http://127.0.0.1:PORT`.
        pid: Process of the endpoint; 0 if it was started elsewhere.
    """

    def __init__(self, url: str, pid: int = 0):
        self.url = url
        self.pid = pid

    @property
    def base_url(self) -> str:
        """Base URL for a client of OpenAI's protocol."""
        return f"{self.url}/v1"

    def set(self, **behaviour: Any) -> None:
        """Change fields of the `Behaviour`; the other fields stay.

        Raises:
            ValueError: A field is unknown or not allowed.
        """
        self._call("POST", "behaviour", _json(behaviour))

    def reset(self) -> None:
        """Clear the log; the behaviour stays, and a script begins again."""
        self._call("POST", "reset")

    def log(self) -> Log:
        """All requests for completions since the start or the last reset."""
        return Log(**self._call("GET", "log"))

    def counters(self) -> dict[str, Any]:
        """`requests`, `outcomes`, `in_flight`, `maximum_concurrency`, `cpu_seconds`."""
        found: dict[str, Any] = self._call("GET", "counters")
        return found

    def _call(self, method: str, name: str, body: str | None = None) -> Any:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        try:
            connection.request(method, f"/control/{name}", body=body)
            response = connection.getresponse()
            read = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(read["error"])
        return read


@contextmanager
def running_endpoint(*, port: int = 0, **behaviour: Any) -> Iterator[Endpoint]:
    """Start an endpoint in a process of its own, which ends with this process at the latest.

    Args:
        port: Port; 0 for a free one.
        **behaviour: Fields of `Behaviour`.
    """
    command = [sys.executable, "-m", "fake_endpoint", "--with-parent", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--behaviour", _json(behaviour)],
        cwd=Path(__file__).parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:  # Closes its stdin, at which it ends, and waits for it.
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError("the endpoint did not start")
        yield Endpoint(url, process.pid)


def _json(behaviour: dict[str, Any]) -> str:
    return json.dumps(behaviour, default=asdict)
