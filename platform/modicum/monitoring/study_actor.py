"""A running study's address in its Ray cluster, for a dashboard that cannot see the run folder.

An actor holds what the driver said last, as JSON text, and the requests that the driver has not
taken yet. It dies with the driver. Nothing that comes from outside is a pickle of ours or a path.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import Any

from pydantic import ValidationError

from modicum.errors import InputError
from modicum.run_folder.driver_status import Status
from modicum.run_folder.stop_requests import StopRequest, StopRequests
from modicum.storage import StorageFolder

NAMESPACE = "modicum"
PREFIX = "modicum-study-"
_WATCHED_SECONDS = 30.0
_DOCUMENT_SECONDS = 10.0
_PATIENCE = 10.0
_MOST_WAITING = 1000


class _Box:
    """The actor."""

    def __init__(self, name: str, where: str) -> None:
        self._about = {"name": name, "where": where}
        self._view = self._document = self._trials = ""
        self._requests: list[str] = []
        self._asked = float("-inf")

    def exchange(self, view: str, trials: str, document: str | None) -> tuple[bool, list[str]]:
        """The driver's side: leave what there is to show, take requests; whether anybody looks."""
        self._view, self._trials = view, trials
        self._document = self._document if document is None else document
        requests, self._requests = self._requests, []
        return time.monotonic() - self._asked < _WATCHED_SECONDS, requests

    def about(self) -> dict[str, str]:
        """The study's name and run folder."""
        return self._about

    def look(self) -> tuple[str, str, str]:
        """The watcher's side: view, trials and document, each JSON text or empty."""
        self._asked = time.monotonic()
        return self._view, self._trials, self._document

    def ask(self, request: str) -> None:
        """Leave a request."""
        if len(self._requests) < _MOST_WAITING:
            self._requests.append(request[:1000])


class Mailbox:
    """The driver's end.

    Args:
        folder: Run folder of the study.
        actor: Handle of its actor.
    """

    def __init__(self, folder: StorageFolder, actor: Any) -> None:
        self._folder, self._actor = folder, actor
        self._reader: Any = None
        self._watched = False
        self._drawing: threading.Thread | None = None
        self._drawn = float("-inf")
        self._drawn_version = -1
        # Drawn and not sent yet.
        self._document: str | None = None

    def answer(self, requests: StopRequests, status: Status) -> None:
        """Show how things stand, draw the report if somebody looks, and take requests."""
        import ray

        from modicum.monitoring.dashboard.run_reader import RunReader

        with contextlib.suppress(Exception):  # A watcher's trouble is not the study's.
            said = {"status": status.model_dump(mode="json")}
            view: dict[str, Any] = said
            trials: dict[str, Any] = {}
            document, self._document = self._document, None
            if self._watched:
                if self._reader is None:
                    self._reader = RunReader(self._folder.uri)
                self._reader.refresh()
                view = {**self._reader.view(), **said}
                trials = self._reader.trials()
                self._draw()
            sent = (json.dumps(view), json.dumps(trials), document)
            asked = self._actor.exchange.remote(*sent)
            self._watched, texts = ray.get(asked, timeout=_PATIENCE)
            for text in texts:
                with contextlib.suppress(ValidationError):
                    requests.add(StopRequest.model_validate_json(text))

    def _draw(self) -> None:
        """Draw the report aside if it has changed: it may take many seconds on a busy machine."""
        busy = self._drawing is not None and self._drawing.is_alive()
        fresh = time.monotonic() - self._drawn < _DOCUMENT_SECONDS
        if busy or fresh or self._reader.version == self._drawn_version:
            return

        def work() -> None:
            version = self._reader.version
            with contextlib.suppress(Exception):
                self._document = json.dumps(self._reader.document())
                self._drawn_version = version
            self._drawn = time.monotonic()

        self._drawing = threading.Thread(target=work, name="modicum-drawing", daemon=True)
        self._drawing.start()


def open_mailbox(folder: StorageFolder) -> Mailbox | None:
    """Make a study findable in the cluster that this driver is connected to; None if that fails."""
    import secrets

    import ray

    try:
        name = f"{PREFIX}{secrets.token_hex(6)}"
        title = folder.uri.rsplit("/", 1)[-1]
        actor: Any = ray.remote(num_cpus=0)(_Box)
        return Mailbox(
            folder,
            actor.options(name=name, namespace=NAMESPACE).remote(title, folder.uri),
        )
    except Exception:
        return None


class RemoteStudy:
    """The watcher's end; what `RunReader` offers, as far as the driver sends it.

    Must be used while connected to the cluster.

    Args:
        name: Of the actor.
    """

    def __init__(self, name: str) -> None:
        import ray

        self._actor: Any = ray.get_actor(name, namespace=NAMESPACE)
        about: Any = ray.get(self._actor.about.remote(), timeout=_PATIENCE)
        self.about: dict[str, str] = about
        self.version: int = 0
        self._view: dict[str, Any] = {}
        self._trials: dict[str, Any] = {}
        self._text: str = ""
        self.refresh()

    def refresh(self) -> bool:
        """Ask the actor; whether there is another report than before."""
        import ray

        try:
            said: Any = ray.get(self._actor.look.remote(), timeout=_PATIENCE)
        except Exception as error:
            # The driver's end is the actor's, too; its last word stays on the page.
            self._view["gone"] = str(error).splitlines()[0]
            return False
        view, trials, text = said
        self._view = json.loads(view) if view else {}
        self._trials = json.loads(trials) if trials else {}
        changed = bool(text != self._text)
        self._text = text
        self.version += changed
        return changed

    def view(self) -> dict[str, Any]:
        """As `RunReader.view`."""
        return {
            "counts": {},
            "total": (self._view.get("status") or {}).get("total", 0),
            "metric": None,
            **self._view,
            "version": self.version,
            "now": time.time(),
        }

    def trials(self, query: str = "", limit: int = 100) -> dict[str, Any]:
        """Those that the driver sent, which are the first of the list."""
        found = self._trials or {"found": 0, "settings": [], "trials": []}
        words = query.lower().split()
        rows = [
            row for row in found["trials"] if all(word in json.dumps(row).lower() for word in words)
        ]
        return {**found, "trials": rows[:limit]}

    def document(self) -> dict[str, Any] | None:
        """The report as the driver drew it last; None before the first."""
        return json.loads(self._text) if self._text else None

    def log(self, trial_id: str) -> str:
        """Logs do not travel.

        Raises:
            InputError: Always.
        """
        where = self.about["where"]
        raise InputError(f"trial: its log lies in the run folder, trials/{trial_id} in {where}")

    def stop(self, trial_id: str | None) -> str:
        """Ask the driver to stop a trial, or the study.

        Raises:
            InputError: The name is none of a trial, or the driver is gone.
        """
        import ray

        try:
            request = StopRequest.of(trial_id)
        except ValidationError as error:
            raise InputError("trial: must be the name of a trial") from error
        try:
            ray.get(self._actor.ask.remote(request.model_dump_json()), timeout=_PATIENCE)
        except Exception as error:
            raise InputError("the study has ended") from error
        return ""


def running_studies() -> list[RemoteStudy]:
    """Studies whose drivers are connected to the cluster that this process is connected to."""
    from ray.util import list_named_actors

    found = []
    for entry in list_named_actors(all_namespaces=True):
        if entry["namespace"] == NAMESPACE and entry["name"].startswith(PREFIX):
            with contextlib.suppress(Exception):  # One that ends just now.
                found.append(RemoteStudy(entry["name"]))
    return found
