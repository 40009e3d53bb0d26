"""Ray actor of a running study, for dashboards that cannot see the run folder.

The actor holds what the driver published last, as JSON text, and the requests to stop that the
driver has not taken yet. It ends with the driver. Nothing that comes from a dashboard is unpickled
or used as a path.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from typing import Any

import ray
from pydantic import ValidationError

from modicum.monitoring.run_reader import RunReader
from modicum.ray_support.private_api import available_resources
from modicum.run_folder.driver_status import DriverStatus, Node
from modicum.run_folder.stop_requests import StopRequest, StopRequests
from modicum.storage import StorageFolder

NAMESPACE = "modicum"
PREFIX = "modicum-study-"
# Limit on every call of the actor.
CALL_SECONDS = 10.0
_WATCHED_SECONDS = 30.0
_DRAW_SECONDS = 10.0
_MOST_WAITING = 1000


class StudyActor:
    """Passes a study's state from its driver to dashboards, and their requests back.

    Args:
        name: Name of the study.
        where: URI of the run folder.
    """

    def __init__(self, name: str, where: str) -> None:
        self._about = {"name": name, "where": where}
        self._view = self._document = self._trials = ""
        self._requests: list[str] = []
        self._asked = float("-inf")

    def exchange(self, view: str, trials: str, document: str | None) -> tuple[bool, list[str]]:
        """Publish the study's state and take requests, for the driver.

        Args:
            view: State of the study, as JSON text.
            trials: List of trials, as JSON text.
            document: The report, as JSON text; None if it has not changed.

        Returns:
            True if a dashboard has asked lately; the requests, as JSON texts.
        """
        self._view, self._trials = view, trials
        self._document = self._document if document is None else document
        requests, self._requests = self._requests, []
        return time.monotonic() - self._asked < _WATCHED_SECONDS, requests

    def about(self) -> dict[str, str]:
        """Name and run folder of the study."""
        return self._about

    def look(self) -> tuple[str, str, str]:
        """View, trials and document for a dashboard, each JSON text or empty."""
        self._asked = time.monotonic()
        return self._view, self._trials, self._document

    def ask(self, request: str) -> None:
        """Leave a request to stop, as JSON text."""
        if len(self._requests) < _MOST_WAITING:
            self._requests.append(request[:1000])


class ClusterPublisher:
    """Publishes a study in the Ray cluster that its driver is connected to.

    Args:
        folder: Run folder of the study.
    """

    def __init__(self, folder: StorageFolder) -> None:
        self._folder = folder
        self._actor = _start_actor(folder)
        self._reader: RunReader | None = None
        self._watched = False
        self._drawing: threading.Thread | None = None
        self._drawn = float("-inf")
        self._drawn_version = -1
        # A report that has not been published yet.
        self._document: str | None = None

    def nodes(self) -> list[Node]:
        """Resources of each node of the cluster; empty while Ray does not answer."""
        try:
            free = available_resources()
            nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
            return [
                Node(
                    address=node["NodeManagerAddress"],
                    alive=node["Alive"],
                    resources={
                        name: (round(total - free.get(node["NodeID"], {}).get(name, 0), 2), total)
                        for name in ("CPU", "GPU", "memory")
                        if (total := node["Resources"].get(name, 0))
                    },
                )
                for node in nodes
            ]
        except Exception:
            return []

    def exchange(self, status: DriverStatus, requests: StopRequests) -> None:
        """Publish the study's state, and its report while a dashboard looks; take requests.

        Args:
            status: DriverStatus of the driver.
            requests: Collection that the dashboards' requests are added to.
        """
        if self._actor is None:
            return
        with contextlib.suppress(Exception):  # A dashboard's trouble must not end the study.
            view: dict[str, Any] = {"status": status.model_dump(mode="json")}
            trials: dict[str, Any] = {}
            document, self._document = self._document, None
            if self._watched:
                if self._reader is None:
                    self._reader = RunReader(self._folder.uri)
                self._reader.refresh()
                view = {**self._reader.view(), **view}
                trials = self._reader.trials()
                self._draw(self._reader)
            sent = (json.dumps(view), json.dumps(trials), document)
            answer: Any = self._actor.exchange.remote(*sent)
            self._watched, texts = ray.get(answer, timeout=CALL_SECONDS)
            for text in texts:
                with contextlib.suppress(ValidationError):
                    requests.add(StopRequest.model_validate_json(text))

    def _draw(self, reader: RunReader) -> None:
        """Draw a changed report in a thread: it may take many seconds on a busy machine."""
        busy = self._drawing is not None and self._drawing.is_alive()
        fresh = time.monotonic() - self._drawn < _DRAW_SECONDS
        if busy or fresh or reader.version == self._drawn_version:
            return

        def work() -> None:
            version = reader.version
            with contextlib.suppress(Exception):
                self._document = json.dumps(reader.document())
                self._drawn_version = version
            self._drawn = time.monotonic()

        self._drawing = threading.Thread(target=work, name="modicum-drawing", daemon=True)
        self._drawing.start()


def _start_actor(folder: StorageFolder) -> Any:
    """Start the study's actor; None if that fails, as the study runs without it."""
    try:
        name = f"{PREFIX}{secrets.token_hex(6)}"
        title = folder.uri.rsplit("/", 1)[-1]
        actor: Any = ray.remote(num_cpus=0)(StudyActor)
        return actor.options(name=name, namespace=NAMESPACE).remote(title, folder.uri)
    except Exception:
        return None
