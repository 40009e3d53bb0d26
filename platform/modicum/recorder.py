"""The driver's side of a run: what every trial reported, kept in the run folder.

Trials never write here. Runners hand their messages to a `Recorder`, which alone writes
`trials/<id>/` and knows what is finished.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from modicum.errors import InputError, reason_of
from modicum.execution import CHECKPOINT_NOTE, EndMessage, RecordMessage
from modicum.experiment import Experiment, settings_of
from modicum.folder import RunFolder
from modicum.identity import TrialPlan
from modicum.tracking import Tracking

Status = Literal["pending", "running", "finished", "failed", "stopped"]
StoppedBy = Literal["scheduler", "request"]

# A running trial's records reach the disk at most this many seconds late.
FLUSH_SECONDS = 5.0

# Larger whole numbers fit into no table.
_LARGEST = 2**63 - 1


@dataclass
class TrialState:
    """What is known of one trial.

    Attributes:
        plan: The trial.
        status: `stopped` means ended early: not finished, in no cell.
        stopped_by: Who stopped it: the study's `scheduler`, or somebody's `request`.
        attempt: Counts starts, from 0.
        rows: Its records: `budget`, `seconds` and the metrics.
        checkpoint: Where the last checkpoint lies, relative to the run folder.
        best_checkpoint: Where the best one lies, by the experiment's selection metric.
        best_score: Its score; larger is better.
    """

    plan: TrialPlan
    status: Status = "pending"
    attempt: int = -1
    rows: list[dict[str, Any]] = field(default_factory=list)
    checkpoint: str | None = None
    best_checkpoint: str | None = None
    best_score: float | None = None
    commit: str | None = None
    host: str | None = None
    started: float | None = None
    ended: float | None = None
    error: str | None = None
    stopped_by: StoppedBy | None = None
    log: str = ""
    flushed: float = 0.0
    reused: bool = False

    def value(self, metric: str) -> Any:
        """The metric's value in the last record that has it, or None."""
        return next((row[metric] for row in reversed(self.rows) if metric in row), None)


class Recorder:
    """Collects messages and keeps the run folder in step.

    Args:
        folder: The run folder.
        experiment: What the trials run.
        commit: Version of the code that is running, recorded with every trial.
        keep_stopped: Leave trials that a scheduler stopped in an earlier run as they are,
            rather than run them to their end.
        tracking: Logs for other programs, told of every trial and record.
        on_change: Called after every change, for a progress display.
    """

    def __init__(
        self,
        folder: RunFolder,
        experiment: Experiment[Any],
        commit: str | None = None,
        keep_stopped: bool = False,
        tracking: Tracking | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder = folder
        self.experiment = experiment
        self.commit = commit
        self.keep_stopped = keep_stopped
        self.tracking = tracking or Tracking()
        self.trials: dict[str, TrialState] = {}
        self.on_change = on_change

    def __reduce__(self) -> tuple[Any, ...]:
        """A recorder stays in its driver: Tune, which pickles what it is given, keeps None."""
        return type(None), ()

    def __deepcopy__(self, memo: object) -> Recorder:
        return self

    def add(self, plans: Iterable[TrialPlan]) -> None:
        """Register trials; those that are finished in the folder are taken over as they are."""
        for plan in plans:
            if plan.id not in self.trials:
                self.trials[plan.id] = self._load(plan)
                if self.trials[plan.id].reused:
                    self.tracking.reuse(self.trials[plan.id])
        self._write_plan()
        self.on_change()

    def unfinished(self) -> list[TrialPlan]:
        """The registered trials that still have to run."""
        return [state.plan for state in self.trials.values() if state.status == "pending"]

    @property
    def storage(self) -> str:
        """Where trials keep state of long work, each in a folder named as the trial."""
        return self.folder.display("storage")

    def count(self, status: Status) -> int:
        """How many registered trials have this status."""
        return sum(state.status == status for state in self.trials.values())

    def start(self, trial_id: str) -> TrialState:
        """A trial starts, or starts again from its last checkpoint."""
        state = self.trials[trial_id]
        state.status = "running"
        state.attempt += 1
        state.started = time.time()
        state.ended = state.error = state.stopped_by = None
        state.commit = self.commit
        state.host = socket.gethostname()
        self.tracking.start(state)
        self._write(state)
        self.on_change()
        return state

    def record(self, trial_id: str, message: RecordMessage, host: str | None = None) -> None:
        """A record arrived. One with an index seen before replaces it and all after it."""
        state = self.trials[trial_id]
        del state.rows[message.index :]
        state.rows.append({"budget": message.budget, "seconds": message.seconds, **message.metrics})
        state.log += message.log
        state.host = host or state.host
        self.tracking.record(state)
        if time.monotonic() - state.flushed > FLUSH_SECONDS:
            self._write(state)
        self.on_change()

    def saved_checkpoint(self, trial_id: str, where: str) -> None:
        """A checkpoint after the last record is safe at this place in the run folder."""
        state = self.trials[trial_id]
        state.checkpoint = where
        score = self.experiment.selection_score(state.rows[-1]) if state.rows else None
        if score is not None and (state.best_score is None or score > state.best_score):
            state.best_checkpoint, state.best_score = where, score
        self._write(state)

    def prune_checkpoints(self, trial_id: str) -> None:
        """Delete all of a trial's checkpoints but the best and the last."""
        state = self.trials[trial_id]
        kept = {state.checkpoint, state.best_checkpoint}
        for attempt in self.folder.folders("checkpoints"):
            if not attempt.startswith(f"{trial_id}-"):
                continue
            names = self.folder.folders("checkpoints", attempt)
            dropped = [name for name in names if f"checkpoints/{attempt}/{name}" not in kept]
            places: list[tuple[str, ...]] = [(attempt, name) for name in dropped]
            if len(dropped) == len(names):
                places = [(attempt,)]
            for place in places:
                self.folder.remove_folder("checkpoints", *place)

    def end(self, trial_id: str, message: EndMessage) -> None:
        """A trial ended by itself."""
        state = self.trials[trial_id]
        state.log += message.log
        self._close(state, message.status, message.error or None, message.traceback)

    def lose(self, trial_id: str, error: str, trace: str) -> None:
        """A trial's process died, or the platform failed around it."""
        self._close(self.trials[trial_id], "failed", error, trace)

    def stop(self, trial_id: str, by: StoppedBy = "scheduler") -> None:
        """The trial was stopped early; by a request, it runs on when the study is run again."""
        state = self.trials[trial_id]
        state.stopped_by = by
        self._close(state, "stopped", None, "")

    def _close(self, state: TrialState, status: Status, error: str | None, trace: str) -> None:
        state.status, state.error, state.ended = status, error, time.time()
        if trace:
            self.folder.write_text(trace, "trials", state.plan.id, "error.txt")
        self.tracking.end(state)
        self._write(state)
        if status == "finished":
            if state.checkpoint is not None:
                self.prune_checkpoints(state.plan.id)
            self.folder.remove_folder("storage", state.plan.id)
        self.on_change()

    def _write(self, state: TrialState) -> None:
        """Records before status: a trial that says it is finished has all its records."""
        self.tracking.flush(state)
        place = ("trials", state.plan.id)
        lines = "".join(json.dumps(row) + "\n" for row in state.rows)
        self.folder.write_text(lines, *place, "records.jsonl")
        if state.log:
            self.folder.write_text(state.log, *place, "log.txt")
        self.folder.write_json(
            {
                **state.plan.as_json(),
                "status": state.status,
                "attempt": state.attempt,
                "commit": state.commit,
                "host": state.host,
                "started": state.started,
                "ended": state.ended,
                "error": state.error,
                "stopped_by": state.stopped_by,
                "checkpoint": state.checkpoint,
                "best_checkpoint": state.best_checkpoint,
                "best_score": state.best_score,
            },
            *place,
            "trial.json",
        )
        state.flushed = time.monotonic()

    def _load(self, plan: TrialPlan) -> TrialState:
        if not self.folder.exists("trials", plan.id, "trial.json"):
            return TrialState(plan)
        state = load_trial(self.folder, plan.id)
        # Settings outside the identity (paths, names) are the current ones.
        state.plan = plan
        wanted = self.experiment.saves_checkpoints(
            self.experiment.Config.model_validate(plan.config)
        )
        complete = state.status == "finished" and (state.checkpoint is not None or not wanted)
        early = state.status == "stopped" and state.stopped_by != "request"
        if complete or (early and self.keep_stopped):
            state.reused = True
            return state
        if state.checkpoint is None or not self._intact(state.checkpoint):
            state.checkpoint = state.best_checkpoint = state.best_score = None
            state.rows, state.log = [], ""
        state.status, state.stopped_by = "pending", None
        return state

    def _intact(self, where: str) -> bool:
        return self.folder.exists(*where.split("/"), CHECKPOINT_NOTE)

    def _write_plan(self) -> None:
        self.folder.write_json(
            {
                "experiment": describe_experiment(self.experiment),
                "trials": [state.plan.as_json() for state in self.trials.values()],
            },
            "plan.json",
        )


def load_trial(folder: RunFolder, trial_id: str, *, with_log: bool = True) -> TrialState:
    """A trial's state from a run folder; its log may be long and is not always wanted.

    Raises:
        InputError: The trial's files are not what this program wrote.
    """
    try:
        return _loaded(folder, trial_id, with_log)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        place = folder.display("trials", trial_id)
        raise InputError(f"{place}: broken records or state ({reason_of(error)})") from error


def _loaded(folder: RunFolder, trial_id: str, with_log: bool) -> TrialState:
    data = folder.read_json("trials", trial_id, "trial.json")
    lines = folder.read_text("trials", trial_id, "records.jsonl").splitlines()
    has_log = with_log and folder.exists("trials", trial_id, "log.txt")
    return TrialState(
        plan=TrialPlan.from_json(data),
        status=data["status"],
        attempt=data["attempt"],
        rows=[_row(line) for line in lines],
        checkpoint=data["checkpoint"],
        best_checkpoint=data["best_checkpoint"],
        best_score=data["best_score"],
        commit=data["commit"],
        host=data["host"],
        started=data["started"],
        ended=data["ended"],
        error=data["error"],
        stopped_by=data.get("stopped_by"),
        log=folder.read_text("trials", trial_id, "log.txt") if has_log else "",
    )


def _row(line: str) -> dict[str, Any]:
    row = json.loads(line)
    if not isinstance(row, dict) or not isinstance(row["budget"], int | float):
        raise TypeError("a record has to be a mapping with a budget")
    for name, value in row.items():
        if not (value is None or isinstance(value, str | int | float)):
            raise TypeError(f"{name!r} has to be a number or text")
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise TypeError(f"{name!r} is too large")
    return row


def describe_experiment(experiment: Experiment[Any]) -> Mapping[str, Any]:
    """What results need to know of an experiment without importing it."""
    return {
        "name": experiment.name,
        "version": experiment.version,
        "budget_unit": experiment.budget_unit,
        "budget_settings": [n for n, s in settings_of(experiment.Config).items() if s.sets_budget],
        "metrics": {
            name: {
                "description": metric.description,
                "goal": metric.goal,
                "unit": metric.unit,
                "timing": metric.timing,
                "evaluation_cost": metric.evaluation_cost,
            }
            for name, metric in experiment.metrics.items()
        },
    }
