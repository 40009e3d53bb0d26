"""A study read from its run folder; later reads take only the files that have changed."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from pydantic import ValidationError

from modicum.errors import InputError
from modicum.experiment.setting_filters import varying
from modicum.planning.spec import ReportSpec
from modicum.report.document import report_document
from modicum.results.formatting import show
from modicum.results.layout import report_layout
from modicum.results.store import gather
from modicum.run_folder.driver_status import DriverStatus, read_status
from modicum.run_folder.plan_file import read_plan
from modicum.run_folder.stop_requests import TRIAL_PATTERN, StopRequest, send_request
from modicum.run_folder.trial_logs import log_end
from modicum.run_folder.trial_record import TrialRecord, load_trial, trial_stamps
from modicum.storage import StorageFolder
from modicum.tracking.tensorboard import LOGS
from modicum.yaml_io import parse_yaml

_LOG_BYTES = 200_000
# Failed trials in the report; the list of trials has all of them.
_MOST_FAILURES = 20
_ORDER = {"running": 0, "failed": 1, "stopped": 2, "finished": 3, "pending": 4}
_CURVE_POINTS = 40


class RunReader:
    """Reads a study from its run folder, again and again.

    Args:
        location: Path or URI of the run folder.

    Attributes:
        title: Name of the study.
        version: Number of refreshes that found a change.
        reads: Number of trials read so far.

    Raises:
        InputError: The folder holds no run.
    """

    def __init__(self, location: str) -> None:
        self.folder = StorageFolder(location)
        self.title = ""
        self.version = 0
        self.reads = 0
        self._plan: Any = None
        self._plan_stamp: tuple[Any, ...] | None = None
        self._trials: dict[str, TrialRecord] = {}
        self._stamps: dict[str, Mapping[str, tuple[int, int]]] = {}
        # Errors of trials that could not be read, by trial.
        self._broken: dict[str, str] = {}
        # Trials in the folder, those of other studies included.
        self._present: set[str] = set()
        self._status: DriverStatus | None = None
        self._metric: str | None = None
        self.refresh()

    def refresh(self) -> bool:
        """Read the files that have changed.

        Returns:
            True if the plan or a trial has changed.

        Raises:
            InputError: The folder holds no run any more, or a broken one.
            OSError: The folder cannot be read.
        """
        self._status = read_status(self.folder)
        changed = self._refresh_plan()
        found = trial_stamps(self.folder)
        self._present = set(found)
        for trial_id, stamp in found.items():
            if trial_id in self._trials and self._stamps.get(trial_id) != stamp:
                changed |= self._read(trial_id, stamp)
        self.version += changed
        return changed

    def _read(self, trial_id: str, stamp: Mapping[str, tuple[int, int]]) -> bool:
        """Read a trial; a trial that cannot be read stays as it was, for the next refresh."""
        try:
            trial = load_trial(self.folder, trial_id)
        except InputError as error:
            self._broken[trial_id] = str(error)
            return False
        self._trials[trial_id] = trial.with_plan(self._trials[trial_id])
        self._stamps[trial_id] = stamp
        self._broken.pop(trial_id, None)
        self.reads += 1
        return True

    def _refresh_plan(self) -> bool:
        info = self.folder.filesystem.get_file_info(self.folder.path("plan.json"))
        stamp = (info.mtime_ns, info.size)
        if stamp == self._plan_stamp and self._plan is not None:
            return False
        self._plan = read_plan(self.folder)
        planned = [TrialRecord.model_validate(entry) for entry in self._plan["trials"]]
        self._trials = {trial.id: self._trials.get(trial.id, trial) for trial in planned}
        # A trial that leaves the plan is read afresh when it comes back.
        self._stamps = {name: s for name, s in self._stamps.items() if name in self._trials}
        self._broken = {name: s for name, s in self._broken.items() if name in self._trials}
        self._plan_stamp = stamp
        self._read_study()
        return True

    def _read_study(self) -> None:
        """Read name and main metric of the study; defaults replace a broken study file."""
        study: Any = {}
        with contextlib.suppress(OSError, InputError):
            study = parse_yaml(self.folder.read_bytes("study.yaml"))
        study = study if isinstance(study, Mapping) else {}
        name = study.get("name")
        self.title = name if isinstance(name, str) else self.folder.uri.rsplit("/", 1)[-1]
        report = ReportSpec()
        with contextlib.suppress(ValidationError):
            report = ReportSpec.model_validate(study.get("report", {}))
        self._metric = report.main_metric(
            {name: each["goal"] for name, each in self._plan["experiment"]["metrics"].items()}
        )

    def view(self) -> dict[str, Any]:
        """State of the study, as plain data: counts, status of the driver, links, budget spent."""
        status = self._status
        links = dict(status.links) if status else {}
        if self.folder.exists(LOGS):
            links["TensorBoard"] = f"tensorboard --logdir {self.folder.display(LOGS)}"
        return {
            "version": self.version,
            "now": time.time(),
            "total": max(len(self._trials), status.total if status else 0),
            "counts": dict(Counter(trial.status for trial in self._trials.values())),
            "status": status and status.model_dump(mode="json"),
            "links": links,
            "metric": self._metric,
            "trouble": "; ".join(islice(self._broken.values(), _MOST_FAILURES)) or None,
            "spent": sum(trial.rows[-1]["budget"] for trial in self._trials.values() if trial.rows),
            "unit": str(self._plan["experiment"]["budget_unit"]).replace("_", " "),
        }

    def trials(self, query: str = "", limit: int = 100) -> dict[str, Any]:
        """List trials: running ones first, then failed ones, then the others by their end.

        Args:
            query: Words that must occur in a trial's name, status or settings.
            limit: Largest number of trials to list.

        Returns:
            Plain data: the number of trials that match, the settings that vary, and the trials.
        """
        words, trials = query.lower().split(), list(self._trials.values())
        found = []
        for trial in trials:
            settings = [f"{name}={show(value)}" for name, value in trial.columns.items()]
            text = " ".join([trial.id, trial.status, *settings]).lower()
            if all(word in text for word in words):
                found.append(trial)
        found.sort(key=lambda s: (_ORDER.get(s.status, 9), -(s.ended or s.started or 0.0)))
        varied = varying(trial.columns for trial in trials)
        return {
            "found": len(found),
            "settings": varied,
            "trials": [_row(trial, varied, self._metric) for trial in found[:limit]],
        }

    def document(self) -> dict[str, Any]:
        """Make the report as it stands, which takes seconds where there is much to draw."""
        trials = list(self._trials.values())
        records = gather(self.folder, trials, self._plan["experiment"], self._present)
        records.damaged.update(self._broken)
        return report_document(report_layout(records), _MOST_FAILURES)

    def log(self, trial_id: str) -> str:
        """Read the end of a trial's log, followed by the traceback of a failed trial.

        Raises:
            InputError: The study has no such trial, or a link leads out of the run folder.
        """
        if trial_id not in self._trials:
            raise InputError(f"trial: must be one of the study's, got {trial_id!r}")
        return log_end(self.folder, trial_id, _LOG_BYTES)

    def stop(self, trial_id: str | None) -> str:
        """Leave a request to stop a trial, or with None the study; returns the request's name.

        Raises:
            InputError: The study has no such trial, or the folder cannot be written.
        """
        if trial_id is not None and trial_id not in self._trials:
            raise InputError(f"trial: must be one of the study's ({TRIAL_PATTERN})")
        try:
            return send_request(self.folder, StopRequest.of(trial_id))
        except OSError as error:
            raise InputError(f"the request cannot be left in the run folder ({error})") from error


def _row(trial: TrialRecord, varied: Iterable[str], metric: str | None) -> dict[str, Any]:
    value = trial.value(metric) if metric else None
    last = trial.rows[-1] if trial.rows else {}
    return {
        "id": trial.id,
        "status": trial.status,
        "settings": [show(trial.columns.get(name)) for name in varied],
        "seed": trial.seed,
        "budget": last.get("budget"),
        "value": value if isinstance(value, int | float) else None,
        "curve": _curve(trial, metric),
        "started": trial.started,
        "ended": trial.ended,
        "host": trial.host,
        "error": trial.error,
    }


def _curve(trial: TrialRecord, metric: str | None) -> list[tuple[float, float]]:
    """Thinned points of the metric against the budget; empty for fewer than two points."""
    points = [
        (row["budget"], row[metric])
        for row in trial.rows
        if metric in row and isinstance(row[metric], int | float) and math.isfinite(row[metric])
    ]
    step = -(-len(points) // _CURVE_POINTS)
    return points[::step] if len(points) > 1 else []
