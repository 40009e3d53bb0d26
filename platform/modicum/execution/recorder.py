"""The driver's side of a run: what every trial reported, kept in the run folder.

Trials never write here. Runners hand their messages to a `Recorder`, which alone writes
`trials/<id>/` and knows what is finished.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from modicum.execution.messages import EndMessage, RecordMessage
from modicum.experiment.experiment import Experiment
from modicum.planning.trial_plan import TrialPlan
from modicum.run_folder.trial_record import (
    CHECKPOINT_NOTE,
    Status,
    StoppedBy,
    TrialState,
    describe_experiment,
    load_trial,
)
from modicum.storage import StorageFolder
from modicum.tracking import Tracking

# A running trial's records reach the disk at most this many seconds late.
FLUSH_SECONDS = 5.0


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
        folder: StorageFolder,
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

    def storage(self, trial_id: str) -> str:
        """Where a trial keeps state of long work."""
        return self.folder.display("storage", trial_id)

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
