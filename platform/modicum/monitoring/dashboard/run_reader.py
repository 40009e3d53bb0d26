"""A study as its run folder shows it, read again only where it has changed."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from modicum.errors import InputError
from modicum.planning.spec import ReportSpec
from modicum.results.results import Results
from modicum.results.store import collected, read_plan
from modicum.results.tables import show
from modicum.run_folder.driver_status import Status, read_status
from modicum.run_folder.stop_requests import TRIAL_PATTERN, StopRequest, submit
from modicum.run_folder.trial_record import TrialState, load_trial
from modicum.storage import StorageFolder
from modicum.tracking.tensorboard import LOGS
from modicum.yaml_io import parse_yaml

_ORDER = {"running": 0, "failed": 1, "stopped": 2, "finished": 3, "pending": 4}
_LOG_BYTES = 200_000
_CURVE_POINTS = 40
# Of failed trials in full on the page; the list of trials has all.
_MOST_FAILURES = 20


class RunReader:
    """Reads a run folder again and again.

    Args:
        location: The run folder: a path or a URI.

    Attributes:
        title: The study's name.

    Raises:
        InputError: The folder holds no run.
    """

    def __init__(self, location: str) -> None:
        self.folder = StorageFolder(location)
        self._stamps: dict[str, tuple[Any, ...]] = {}
        self._states: dict[str, TrialState] = {}
        self._plan_stamp: tuple[Any, ...] | None = None
        self._plan: Any = None
        self._status: Status | None = None
        self._metric: str | None = None
        self.title = ""
        self._broken: dict[str, str] = {}
        self._present: set[str] = set()
        self.version = 0
        self.reads = 0
        self.refresh()

    def refresh(self) -> bool:
        """Read what has changed; whether anything has.

        Raises:
            InputError: The folder holds no run (any more), or something else than one.
            OSError: It cannot be read.
        """
        self._status = read_status(self.folder)
        changed = self._refresh_plan()
        found = self._found()
        self._present = set(found)
        for trial_id, stamp in found.items():
            if trial_id in self._states and self._stamps.get(trial_id) != stamp:
                changed |= self._read(trial_id, stamp)
        self.version += changed
        return changed

    def _read(self, trial_id: str, stamp: tuple[Any, ...]) -> bool:
        """Read a trial; one that cannot be read stays as it was, and is tried again."""
        try:
            state = load_trial(self.folder, trial_id, with_log=False)
        except (InputError, FileNotFoundError) as error:
            self._broken[trial_id] = str(error)
            return False
        state.plan = self._states[trial_id].plan
        self._states[trial_id] = state
        self._stamps[trial_id] = stamp
        self._broken.pop(trial_id, None)
        self.reads += 1
        return True

    def _refresh_plan(self) -> bool:
        info = self.folder.filesystem.get_file_info(self.folder.path("plan.json"))
        stamp = (info.mtime_ns, info.size)
        if stamp == self._plan_stamp and self._plan is not None:
            return False
        from modicum.planning.trial_plan import TrialPlan

        self._plan = read_plan(self.folder)
        plans = [TrialPlan.from_json(entry) for entry in self._plan["trials"]]
        known = self._states
        self._states = {plan.id: known.get(plan.id, TrialState(plan)) for plan in plans}
        # A trial that leaves the plan is read afresh when it comes back.
        self._stamps = {name: s for name, s in self._stamps.items() if name in self._states}
        self._broken = {name: s for name, s in self._broken.items() if name in self._states}
        self._plan_stamp = stamp
        self._read_study()
        return True

    def _read_study(self) -> None:
        """The study's name and main metric; a study file that cannot be read has neither."""
        study: Any = {}
        with contextlib.suppress(OSError, InputError):
            study = parse_yaml(self.folder.read_text("study.yaml"))
        study = study if isinstance(study, Mapping) else {}
        name = study.get("name")
        self.title = name if isinstance(name, str) else self.folder.uri.rsplit("/", 1)[-1]
        report = ReportSpec()
        with contextlib.suppress(ValidationError):
            report = ReportSpec.model_validate(study.get("report", {}))
        self._metric = report.main_metric(
            {name: each["goal"] for name, each in self._plan["experiment"]["metrics"].items()}
        )

    def _found(self) -> dict[str, tuple[Any, ...]]:
        """The stamp of each trial's state, which is written after its records."""
        from pyarrow import fs

        selector = fs.FileSelector(self.folder.path("trials"), allow_not_found=True, recursive=True)
        return {
            info.path.rsplit("/", 2)[-2]: (info.mtime_ns, info.size)
            for info in self.folder.filesystem.get_file_info(selector)
            if info.base_name == "trial.json"
        }

    def view(self) -> dict[str, Any]:
        """What changes from second to second, as plain data."""
        counts: dict[str, int] = {}
        for state in self._states.values():
            counts[state.status] = counts.get(state.status, 0) + 1
        status = self._status
        return {
            "version": self.version,
            "now": time.time(),
            "total": max(len(self._states), status.total if status else 0),
            "counts": counts,
            "status": status and status.model_dump(mode="json"),
            "links": {**(status.links if status else {}), **self._tensorboard()},
            "metric": self._metric,
            "trouble": next(iter(self._broken.values()), None),
            "spent": sum(state.rows[-1]["budget"] for state in self._states.values() if state.rows),
            "unit": str(self._plan["experiment"]["budget_unit"]).replace("_", " "),
        }

    def _tensorboard(self) -> dict[str, str]:
        if not self.folder.exists(LOGS):
            return {}
        return {"TensorBoard": f"tensorboard --logdir {self.folder.display(LOGS)}"}

    def trials(self, query: str = "", limit: int = 100) -> dict[str, Any]:
        """Trials for the list: those that run first, then failed ones, then the last to end.

        Args:
            query: Words that must stand in a trial's name, status or settings.
            limit: Most trials to list.
        """
        words = query.lower().split()
        found = [state for state in self._states.values() if _holds(state, words)]
        found.sort(key=lambda s: (_ORDER.get(s.status, 9), -(s.ended or s.started or 0.0)))
        varied = self._varied()
        return {
            "found": len(found),
            "settings": varied,
            "trials": [self._row(state, varied) for state in found[:limit]],
        }

    def _varied(self) -> list[str]:
        from modicum.experiment.setting_filters import varying

        return list(varying(state.plan.columns for state in self._states.values()))

    def _row(self, state: TrialState, varied: Iterable[str]) -> dict[str, Any]:
        value = state.value(self._metric) if self._metric else None
        last = state.rows[-1] if state.rows else {}
        return {
            "id": state.plan.id,
            "status": state.status,
            "settings": [show(state.plan.columns.get(name)) for name in varied],
            "seed": state.plan.seed,
            "budget": last.get("budget"),
            "value": value if isinstance(value, int | float) else None,
            "curve": self._curve(state),
            "started": state.started,
            "ended": state.ended,
            "host": state.host,
            "error": state.error,
        }

    def _curve(self, state: TrialState) -> list[tuple[float, float]]:
        """The metric against budget, thinned; empty where there is no line to draw."""
        metric = self._metric
        points = [
            (row["budget"], row[metric])
            for row in state.rows
            if metric in row and isinstance(row[metric], int | float) and math.isfinite(row[metric])
        ]
        step = -(-len(points) // _CURVE_POINTS)
        return points[::step] if len(points) > 1 else []

    def document(self) -> dict[str, Any]:
        """The report as it stands; takes seconds where there is much to draw."""
        from modicum.report import report_document

        states = list(self._states.values())
        others = len(self._present - {state.plan.id for state in states})
        results = Results(self.folder, collected(states, self._plan["experiment"], others))
        return report_document(results, failures=_MOST_FAILURES)

    def log(self, trial_id: str) -> str:
        """A trial's log and, if it failed, its traceback; the end of it where it is long.

        Raises:
            InputError: There is no such trial.
        """
        if trial_id not in self._states:
            raise InputError(f"trial: must be one of the study's, got {trial_id!r}")
        parts = []
        for name in ("log.txt", "error.txt"):
            if self.folder.exists("trials", trial_id, name):
                content = self.folder.read_bytes("trials", trial_id, name)[-_LOG_BYTES:]
                parts.append(content.decode("utf-8", "replace"))
        return "\n".join(parts)

    def stop(self, trial_id: str | None) -> str:
        """Ask the driver to stop a trial, or the study.

        Raises:
            InputError: There is no such trial, or the folder cannot be written.
        """
        if trial_id is not None and trial_id not in self._states:
            raise InputError(f"trial: must be one of the study's ({TRIAL_PATTERN})")
        try:
            return submit(self.folder, StopRequest.of(trial_id))
        except OSError as error:
            raise InputError(f"the request cannot be left in the run folder ({error})") from error


def _holds(state: TrialState, words: Iterable[str]) -> bool:
    columns = state.plan.columns.items()
    text = " ".join([state.plan.id, state.status, *(f"{n}={show(v)}" for n, v in columns)]).lower()
    return all(word in text for word in words)
