"""Ray actor of a running study.

The actor holds what the driver published last, as JSON text, and the requests to stop that the
driver has not taken yet. It ends with the driver. Nothing that comes from a dashboard is unpickled
or used as a path.

The actor's process imports this module, so it stays light: a study starts one such process.
"""

from __future__ import annotations

import time

# A study is watched for so long after somebody has looked.
WATCHED_SECONDS = 30.0
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
        """Publish the study's state as JSON texts and take requests, for the driver.

        The document is None if the report has not changed.

        Returns:
            True if a dashboard has asked lately; the requests, as JSON texts.
        """
        self._view, self._trials = view, trials
        self._document = self._document if document is None else document
        requests, self._requests = self._requests, []
        return time.monotonic() - self._asked < WATCHED_SECONDS, requests

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
