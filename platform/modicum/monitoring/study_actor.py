"""A running study in its Ray cluster, for dashboards that cannot see the run folder.

The driver publishes the study through an actor, and dashboards look it up there.
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
from ray.util import list_named_actors

from modicum.errors import InputError
from modicum.monitoring.relay import StudyActor
from modicum.monitoring.run_reader import RunReader
from modicum.ray_support.private_api import available_resources
from modicum.run_folder.driver_status import DriverStatus, Node
from modicum.run_folder.stop_requests import StopRequest, StopRequests
from modicum.storage import StorageFolder

NAMESPACE = "modicum"
PREFIX = "modicum-study-"
# Limit on every call of the actor.
CALL_SECONDS = 10.0
_DRAW_SECONDS = 10.0


class ClusterPublisher:
    """Publishes a study in the Ray cluster that its driver is connected to.

    Args:
        folder: Run folder of the study.
    """

    def __init__(self, folder: StorageFolder) -> None:
        self._folder = folder
        self._actor: Any = None
        with contextlib.suppress(Exception):  # The study runs without it.
            name, title = f"{PREFIX}{secrets.token_hex(6)}", folder.uri.rsplit("/", 1)[-1]
            actor: Any = ray.remote(num_cpus=0)(StudyActor).options(name=name, namespace=NAMESPACE)
            self._actor = actor.remote(title, folder.uri)
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
        """Publish the study's state, and its report while a dashboard looks; take requests."""
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


class RemoteStudy:
    """Shows a study as `RunReader` does, with the same methods, as far as its driver publishes it.

    The process must be connected to the study's cluster.

    Args:
        name: Name of the study's actor.

    Attributes:
        about: Name of the study (`name`) and its run folder (`where`).
        version: Number of reports received.
    """

    def __init__(self, name: str) -> None:
        self._actor: Any = ray.get_actor(name, namespace=NAMESPACE)
        about: Any = ray.get(self._actor.about.remote(), timeout=CALL_SECONDS)
        self.about: dict[str, str] = about
        self.version: int = 0
        self._view: dict[str, Any] = {}
        self._trials: dict[str, Any] = {}
        self._text: str = ""
        self.refresh()

    def refresh(self) -> bool:
        """Ask the actor for the study's state; returns True if the report has changed."""
        try:
            said: Any = ray.get(self._actor.look.remote(), timeout=CALL_SECONDS)
        except Exception as error:
            # The actor ends with the driver; the last state stays on the page.
            self._view["gone"] = str(error).splitlines()[0]
            return False
        view, trials, text = said
        self._view = json.loads(view) if view else {}
        self._trials = json.loads(trials) if trials else {}
        changed, self._text = bool(text != self._text), text
        self.version += changed
        return changed

    def view(self) -> dict[str, Any]:
        """State of the study, as plain data."""
        return {
            "counts": {},
            "total": (self._view.get("status") or {}).get("total", 0),
            "metric": None,
            **self._view,
            "version": self.version,
            "now": time.time(),
        }

    def trials(self, query: str = "", limit: int = 100) -> dict[str, Any]:
        """List of the trials that the driver published, which are the first of all."""
        found = self._trials or {"found": 0, "settings": [], "trials": []}
        words = query.lower().split()
        rows = [
            row for row in found["trials"] if all(word in json.dumps(row).lower() for word in words)
        ]
        return {**found, "trials": rows[:limit]}

    def document(self) -> dict[str, Any] | None:
        """The report as the driver drew it last; None before the first one."""
        return json.loads(self._text) if self._text else None

    def log(self, trial_id: str) -> str:
        """Refuse with an `InputError`, as logs stay in the run folder."""
        where = self.about["where"]
        raise InputError(f"trial: the log is in the run folder, trials/{trial_id} in {where}")

    def stop(self, trial_id: str | None) -> str:
        """Ask the driver to stop a trial, or with None the study.

        Raises:
            InputError: The name is no trial's, or the driver has ended.
        """
        try:
            request = StopRequest.of(trial_id)
        except ValidationError as error:
            raise InputError("trial: must be the name of a trial") from error
        try:
            ray.get(self._actor.ask.remote(request.model_dump_json()), timeout=CALL_SECONDS)
        except Exception as error:
            raise InputError("the study has ended") from error
        return ""


def find_study(name: str | None) -> RemoteStudy:
    """Find a study that runs on the connected cluster.

    Args:
        name: Name of the study; None if only one runs.

    Raises:
        InputError: No such study runs, or several do.
    """
    running = []
    for entry in list_named_actors(all_namespaces=True):
        if entry["namespace"] == NAMESPACE and entry["name"].startswith(PREFIX):
            with contextlib.suppress(Exception):  # A study that ends now.
                running.append(RemoteStudy(entry["name"]))
    chosen = [study for study in running if name is None or study.about["name"] == name]
    names = ", ".join(f"{study.about['name']} ({study.about['where']})" for study in running)
    if not chosen:
        raise InputError(
            f"--study: no such study runs on the cluster (there are: {names or 'none'})"
        )
    if len(chosen) > 1:
        raise InputError(f"--study: several studies run on the cluster, name one of {names}")
    return chosen[0]
