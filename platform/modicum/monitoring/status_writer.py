"""What a running study says of itself, and what it is asked: the driver's side of the dashboard.

While trials run, a thread of the driver writes `status.json` into the run folder every few seconds
and takes the requests that lie in `control/`. On Ray it also answers those who cannot see the run
folder, through a `Mailbox`, an actor that dies with the driver.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from modicum.execution.recorder import Recorder
from modicum.monitoring.progress import Progress
from modicum.ray_support.private_api import available_resources
from modicum.run_folder.driver_status import STATUS, Node, State, Status
from modicum.run_folder.stop_requests import ControlFolder, StopRequests
from modicum.storage import StorageFolder

_LOCAL_SECONDS, _REMOTE_SECONDS = 2.0, 10.0
# Of requests that were dropped, and of those that were taken.
_MOST_NOTES = 20
_LEDGER_SECONDS = 15.0


class Live:
    """Publishes a study's status while its trials run, and takes requests to stop.

    Args:
        recorder: Knows the trials.
        progress: Knows how long they will take.
        requests: Told of what has been asked to stop.
        links: Pages of other programs by name, such as Ray's dashboard.
        on_ray: Whether the driver is connected to Ray, whose resources are then said.
    """

    def __init__(
        self,
        recorder: Recorder,
        progress: Progress,
        requests: StopRequests,
        *,
        links: Mapping[str, str] | None = None,
        on_ray: bool = False,
    ) -> None:
        # One of its own: what fails to be said must not end the study.
        self._folder = StorageFolder(recorder.folder.uri)
        self._control = ControlFolder(self._folder)
        self._recorder, self._progress, self._requests = recorder, progress, requests
        self._links, self._on_ray = dict(links or {}), on_ray
        self._interval = _LOCAL_SECONDS if self._folder.local is not None else _REMOTE_SECONDS
        self._started = time.time()
        self._taken: list[str] = []
        self._notes: list[str] = []
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._work, name="modicum-live", daemon=True)
        self._mailbox: Any = None
        self._spent: list[str] = []
        self._looked = float("-inf")

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):
            self._control.clear()
        if self._on_ray:
            from modicum.monitoring.study_actor import open_mailbox

            self._mailbox = open_mailbox(self._recorder.folder)
        self._publish("running")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ends.set()
        self._thread.join()
        state: State = "ended" if error is None else "interrupted"
        self._publish("stopped" if self._requests.study else state)

    def _work(self) -> None:
        while not self._ends.wait(self._interval):
            # A slow or lost file system is the study's affair, not this thread's.
            with contextlib.suppress(OSError):
                polled = self._control.poll()
                self._notes = [*self._notes, *polled.dropped][-_MOST_NOTES:]
                for key, request in polled.requests.items():
                    self._requests.add(request)
                    self._taken = [*self._taken, key][-_MOST_NOTES:]
            status = self._publish("running")
            if self._mailbox is not None:
                self._mailbox.answer(self._requests, status)

    def _publish(self, state: State) -> Status:
        status = self._status(state)
        with contextlib.suppress(OSError):
            self._folder.write_json(status.model_dump(mode="json"), STATUS)
        return status

    def _status(self, state: State) -> Status:
        left = self._progress.seconds_left()
        return Status(
            state=state,
            host=socket.gethostname(),
            pid=os.getpid(),
            started=self._started,
            updated=time.time(),
            interval=self._interval,
            total=self._progress.total(),
            seconds_left=None if left is None or state != "running" else round(left, 1),
            nodes=self._nodes() if self._on_ray and state == "running" else [],
            oracles=self._oracles(),
            links=self._links,
            stopping=self._requests.study,
            taken=self._taken,
            notes=self._notes,
        )

    def _oracles(self) -> list[str]:
        """What endpoints have cost since yesterday's midnight (UTC), by the ledgers seen here."""
        if time.monotonic() - self._looked > _LEDGER_SECONDS:
            self._looked = time.monotonic()
            with contextlib.suppress(Exception):  # One that is being written or damaged.
                self._spent = _spent_today()
        return self._spent

    def _nodes(self) -> list[Node]:
        """What each node has and how much of it is in use; empty while Ray does not answer."""
        try:
            import ray

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


def _spent_today() -> list[str]:
    from modicum.oracles.ledger.locations import ledgers_folder
    from modicum.oracles.ledger.report import spending

    today = datetime.now(UTC).date().isoformat()
    calls: Counter[str] = Counter()
    dollars: defaultdict[str, float] = defaultdict(float)
    for path in sorted(ledgers_folder().glob("*.sqlite")):
        for entry in spending(path):
            if entry.day == today:
                calls[entry.model] += entry.calls
                dollars[entry.model] += entry.dollars
    return [f"{model}: {calls[model]:,} calls, ${dollars[model]:.2f} today" for model in calls]
