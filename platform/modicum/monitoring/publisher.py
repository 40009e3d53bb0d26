"""Status of a running study, published by a thread of its driver.

While trials run, the thread writes `status.json` into the run folder every few seconds and takes
the requests to stop that lie in `control/`. On Ray it also exchanges both through the study's
actor, for dashboards that cannot see the run folder.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from modicum.execution.recorder import Recorder
from modicum.monitoring.progress import Progress
from modicum.oracles.ledger.database import ledgers_folder
from modicum.oracles.ledger.report import spending
from modicum.run_folder.driver_status import STATUS, DriverState, DriverStatus
from modicum.run_folder.stop_requests import ControlFolder, StopRequests
from modicum.storage import StorageFolder

if TYPE_CHECKING:
    from modicum.monitoring.study_actor import ClusterPublisher

_LOCAL_SECONDS, _REMOTE_SECONDS = 2.0, 10.0
# Requests that the status keeps: those taken, and notes on those dropped.
_MOST_NOTES = 20
_LEDGER_SECONDS = 15.0


class StatusPublisher:
    """Publishes a study's status while its trials run, and takes requests to stop.

    Args:
        recorder: Recorder of the trials.
        progress: Estimate of the remaining time.
        requests: Collection that requests to stop are added to.
        links: Pages of other programs by name, such as Ray's dashboard.
        cluster: Publisher in the Ray cluster, if the driver is connected to one.
    """

    def __init__(
        self,
        recorder: Recorder,
        progress: Progress,
        requests: StopRequests,
        *,
        links: Mapping[str, str] | None = None,
        cluster: ClusterPublisher | None = None,
    ) -> None:
        # A separate object: a status that cannot be written must not end the study.
        self._folder = StorageFolder(recorder.folder.uri)
        self._control = ControlFolder(self._folder)
        self._recorder, self._progress, self._requests = recorder, progress, requests
        self._links, self._cluster = dict(links or {}), cluster
        self._interval = _LOCAL_SECONDS if self._folder.local is not None else _REMOTE_SECONDS
        self._started = time.time()
        self._taken: list[str] = []
        self._notes: list[str] = []
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._work, name="modicum-status", daemon=True)
        self._costs: list[str] = []
        self._costs_read = float("-inf")

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):
            self._control.clear()
        self._publish("running")
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._ends.set()
        self._thread.join()
        state: DriverState = "ended" if error is None else "interrupted"
        self._publish("stopped" if self._requests.study else state)

    def _work(self) -> None:
        while not self._ends.wait(self._interval):
            # A slow or lost file system is reported by the study, not by this thread.
            with contextlib.suppress(OSError):
                polled = self._control.poll()
                self._notes = [*self._notes, *polled.dropped][-_MOST_NOTES:]
                for key, request in polled.requests.items():
                    self._requests.add(request)
                    self._taken = [*self._taken, key][-_MOST_NOTES:]
            status = self._publish("running")
            if self._cluster is not None:
                self._cluster.exchange(status, self._requests)

    def _publish(self, state: DriverState) -> DriverStatus:
        left = self._progress.seconds_left()
        status = DriverStatus(
            state=state,
            host=socket.gethostname(),
            pid=os.getpid(),
            started=self._started,
            updated=time.time(),
            interval=self._interval,
            total=self._progress.total(),
            seconds_left=None if left is None or state != "running" else round(left, 1),
            nodes=self._cluster.nodes() if self._cluster and state == "running" else [],
            oracles=self._oracle_costs(),
            links=self._links,
            stopping=self._requests.study,
            taken=self._taken,
            notes=self._notes,
        )
        with contextlib.suppress(OSError):
            self._folder.write_json(status.model_dump(mode="json"), STATUS)
        return status

    def _oracle_costs(self) -> list[str]:
        """Costs of endpoints since midnight (UTC), by the ledgers on this machine."""
        if time.monotonic() - self._costs_read > _LEDGER_SECONDS:
            self._costs_read = time.monotonic()
            today = datetime.now(UTC).date().isoformat()
            spent: dict[str, tuple[int, float]] = {}
            with contextlib.suppress(Exception):  # A ledger may be half written or damaged.
                for path in sorted(ledgers_folder().glob("*.sqlite")):
                    for entry in spending(path):
                        if entry.day == today:
                            calls, dollars = spent.get(entry.model, (0, 0.0))
                            spent[entry.model] = calls + entry.calls, dollars + entry.dollars
                self._costs = [f"{m}: {n:,} calls, ${d:.2f} today" for m, (n, d) in spent.items()]
        return self._costs
