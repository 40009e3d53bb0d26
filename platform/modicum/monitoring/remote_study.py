"""A study that runs on a Ray cluster, seen through its actor."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import ray
from pydantic import ValidationError
from ray.util import list_named_actors

from modicum.errors import InputError
from modicum.monitoring.study_actor import CALL_SECONDS, NAMESPACE, PREFIX
from modicum.run_folder.stop_requests import StopRequest


class RemoteStudy:
    """Shows a study as `RunReader` does, as far as its driver publishes it.

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
        changed = bool(text != self._text)
        self._text = text
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
        """Refuse, as logs stay in the run folder.

        Raises:
            InputError: Always.
        """
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
    running = _running_studies()
    chosen = [study for study in running if name is None or study.about["name"] == name]
    names = ", ".join(f"{study.about['name']} ({study.about['where']})" for study in running)
    if not chosen:
        raise InputError(
            f"--study: no such study runs on the cluster (there are: {names or 'none'})"
        )
    if len(chosen) > 1:
        raise InputError(f"--study: several studies run on the cluster, name one of {names}")
    return chosen[0]


def _running_studies() -> list[RemoteStudy]:
    """Find the studies that run on the connected cluster."""
    found = []
    for entry in list_named_actors(all_namespaces=True):
        if entry["namespace"] == NAMESPACE and entry["name"].startswith(PREFIX):
            with contextlib.suppress(Exception):  # A study that ends now.
                found.append(RemoteStudy(entry["name"]))
    return found
