"""The driver's side of a run: the messages of all trials, kept in the run folder.

Trials never write here. Runners hand their messages to a `Recorder`, which alone writes
`trials/<id>/` and knows what is finished.
"""

from __future__ import annotations

import socket
import time
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

from modicum.errors import InputError
from modicum.execution.messages import EndMessage, RecordMessage
from modicum.experiment.experiment import Experiment
from modicum.planning.trial_plan import TrialPlan
from modicum.run_folder.outcomes import load_outcomes
from modicum.run_folder.plan_file import write_plan
from modicum.run_folder.trial_logs import TrialLogs
from modicum.run_folder.trial_record import (
    TRIALS,
    StoppedBy,
    TrialRecord,
    TrialStatus,
    is_recorded,
    kept_records_before,
    load_trial,
    prune_checkpoints,
    set_aside_trial,
    write_trial,
)
from modicum.storage import StorageFolder

# A running trial's records reach the disk at most this many seconds late.
FLUSH_SECONDS = 5.0
# Ended trials whose files are being forced to the disk.
_MOST_CLOSING = 32


class Listener:
    """Hears from a recorder what happens to trials; each method does nothing unless overridden."""

    def reused(self, trial: TrialRecord) -> None:
        """The trial ended in an earlier run, whose results are taken over."""

    def started(self, trial: TrialRecord) -> None:
        """The trial starts, perhaps again."""

    def recorded(self, trial: TrialRecord) -> None:
        """The last of the trial's rows is new; it may have replaced others."""

    def saving(self, trial: TrialRecord) -> None:
        """The trial's files are about to be written."""

    def ended(self, trial: TrialRecord) -> None:
        """The trial has ended; its status says how."""


class Recorder:
    """Collects messages of trials and keeps the run folder up to date.

    As a context manager, it writes the files of ended trials in threads: forcing a trial to the
    disk may take longer than the trial. The end of the block waits for them.

    Args:
        folder: The run folder.
        experiment: The trials' experiment.
        commit: Version of the code that runs, kept with every trial.
        keep_stopped: Whether trials that a scheduler stopped in an earlier run stay stopped;
            otherwise they run to their end.
        listeners: Told of every trial and record.

    Attributes:
        plans: The registered trials, by id.
        trials: The state of each trial, by id.
        reused: Ids of the trials whose results are an earlier run's.
        listeners: Told of every trial and record.
    """

    def __init__(
        self,
        folder: StorageFolder,
        experiment: Experiment[Any],
        commit: str | None = None,
        keep_stopped: bool = False,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.folder = folder
        self.experiment = experiment
        self.plans: dict[str, TrialPlan] = {}
        self.trials: dict[str, TrialRecord] = {}
        self.reused: set[str] = set()
        self.listeners = list(listeners)
        self._commit = commit
        self._keep_stopped = keep_stopped
        self._written: dict[str, float] = {}
        self._logs = TrialLogs(folder)
        self._threads: ThreadPoolExecutor | None = None
        self._closing: dict[str, Future[None]] = {}

    def __enter__(self) -> Self:
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="modicum-recorder")
        return self

    def __exit__(self, *exception: object) -> None:
        """Wait until all is written.

        Raises:
            StorageError: The folder cannot be written.
        """
        assert self._threads is not None
        self._threads.shutdown()
        self._threads = None
        for trial_id in list(self._closing):
            self._wait_for(trial_id)

    def __reduce__(self) -> tuple[Any, ...]:
        """A recorder stays in its driver: Tune, which pickles its callbacks, keeps None."""
        return type(None), ()

    def __deepcopy__(self, memo: object) -> Recorder:
        return self

    def add(self, plans: Iterable[TrialPlan]) -> None:
        """Register trials, and take over those that are finished in the run folder."""
        for plan in plans:
            if plan.id in self.plans:
                continue
            self.plans[plan.id] = plan
            self.trials[plan.id] = self._take_over(plan)
            if plan.id in self.reused:
                for listener in self.listeners:
                    listener.reused(self.trials[plan.id])
        write_plan(self.folder, self.experiment, self.plans.values())

    def unfinished(self) -> list[TrialPlan]:
        """The registered trials that still have to run."""
        return [self.plans[name] for name, t in self.trials.items() if t.status == "pending"]

    def storage(self, trial_id: str) -> str:
        """Path or URI of the folder where a trial keeps the state of long work."""
        return self.folder.display("storage", trial_id)

    def count(self, status: TrialStatus) -> int:
        """Number of registered trials with this status."""
        return sum(trial.status == status for trial in self.trials.values())

    def start(self, trial_id: str) -> TrialRecord:
        """Note that a trial starts, perhaps again from its last checkpoint."""
        self._wait_for(trial_id)
        trial = self.trials[trial_id]
        if trial_id not in self._written and trial.checkpoint is None:
            # An earlier run's.
            self._logs.remove(trial_id)
        trial.status = "running"
        trial.attempt += 1
        trial.started = time.time()
        trial.ended = trial.error = trial.stopped_by = None
        trial.commit = self._commit
        trial.host = socket.gethostname()
        for listener in self.listeners:
            listener.started(trial)
        self._write(trial)
        return trial

    def record(self, trial_id: str, message: RecordMessage, host: str | None = None) -> None:
        """Take a record; one with an index seen before replaces that record and all after it."""
        trial = self.trials[trial_id]
        row = {"budget": message.budget, "seconds": message.seconds, **message.metrics}
        trial.put(message.index, row)
        trial.outcomes |= message.outcomes
        self._take_log(trial_id, message)
        trial.host = host or trial.host
        for listener in self.listeners:
            listener.recorded(trial)
        if time.monotonic() - self._written.get(trial_id, 0.0) > FLUSH_SECONDS:
            self._write(trial)

    def saved_checkpoint(self, trial_id: str, where: str) -> None:
        """Take a checkpoint that lies complete at this path in the run folder."""
        trial = self.trials[trial_id]
        trial.checkpoint = where
        score = self.experiment.selection_score(trial.rows[-1]) if trial.rows else None
        if score is not None and (trial.best_score is None or score > trial.best_score):
            trial.best_checkpoint, trial.best_score = where, score
        self._write(trial)

    def prune_checkpoints(self, trial_id: str) -> None:
        """Delete a trial's checkpoints, except for the best and the last."""
        trial = self.trials[trial_id]
        prune_checkpoints(self.folder, trial_id, {trial.checkpoint, trial.best_checkpoint})

    def end(self, trial_id: str, message: EndMessage) -> None:
        """Take the last message of a trial, which has finished or failed."""
        trial = self.trials[trial_id]
        self._take_log(trial_id, message)
        self._close(trial, message.status, message.error or None, message.traceback)

    def lose(self, trial_id: str, error: str, trace: str) -> None:
        """Note that a trial's process died, or that the platform failed around it."""
        self._close(self.trials[trial_id], "failed", error, trace)

    def stop(self, trial_id: str, by: StoppedBy = "scheduler") -> None:
        """Note that a trial was stopped; one stopped by a request runs on in the next run."""
        trial = self.trials[trial_id]
        trial.stopped_by = by
        self._close(trial, "stopped")

    def withdraw(self, trial_id: str) -> None:
        """Count a finished trial as ended early, since the scheduler has ended its other seeds."""
        self._wait_for(trial_id)
        trial = self.trials[trial_id]
        trial.status, trial.stopped_by = "stopped", "scheduler"
        self._write(trial)

    def _close(
        self, trial: TrialRecord, status: TrialStatus, error: str | None = None, trace: str = ""
    ) -> None:
        self._wait_for(trial.id)
        trial.status, trial.error, trial.ended = status, error, time.time()
        if trace:
            self.folder.write_text(trace, TRIALS, trial.id, "error.txt")
        for listener in self.listeners:
            listener.ended(trial)
        self._save(trial)
        if self._threads is None:
            self._complete(trial)
            return
        self._closing[trial.id] = self._threads.submit(self._complete, trial)
        for trial_id, closing in list(self._closing.items()):
            if closing.done() or len(self._closing) > _MOST_CLOSING:
                self._wait_for(trial_id)

    def _complete(self, trial: TrialRecord) -> None:
        """Write an ended trial's files, and delete what it needs no more."""
        write_trial(self.folder, trial)
        if trial.status == "finished":
            if trial.checkpoint is not None:
                self.prune_checkpoints(trial.id)
            self.folder.remove_folder("storage", trial.id)

    def _wait_for(self, trial_id: str) -> None:
        """Wait until an ended trial's files are written, and raise what went wrong."""
        closing = self._closing.pop(trial_id, None)
        if closing is not None:
            closing.result()

    def _take_log(self, trial_id: str, message: RecordMessage | EndMessage) -> None:
        """Move a message's log to the run folder; Tune keeps the last message of every trial."""
        content, message.log = message.log, b""
        self._logs.append(trial_id, content)

    def _write(self, trial: TrialRecord) -> None:
        self._save(trial)
        write_trial(self.folder, trial)

    def _save(self, trial: TrialRecord) -> None:
        """Write what belongs to a trial beside its own files."""
        for listener in self.listeners:
            listener.saving(trial)
        self._logs.save(trial.id)
        self._written[trial.id] = time.monotonic()

    def _take_over(self, plan: TrialPlan) -> TrialRecord:
        """The trial as an earlier run left it: done, to be continued, or to be run afresh.

        A damaged trial is set aside.
        """
        fresh = TrialRecord.pending(plan)
        if not is_recorded(self.folder, plan.id):
            return fresh
        try:
            trial = load_trial(self.folder, plan.id).with_plan(fresh)
            load_outcomes(self.folder, (TRIALS, plan.id))
        except InputError as error:
            place = set_aside_trial(self.folder, plan.id)
            warnings.warn(
                f"{error}; the trial runs again, its files are in {self.folder.display(place)}",
                stacklevel=2,
            )
            return fresh
        wanted = self.experiment.saves_checkpoints(plan.config)
        complete = trial.status == "finished" and (trial.checkpoint is not None or not wanted)
        early = trial.status == "stopped" and trial.stopped_by != "request"
        if complete or (early and self._keep_stopped):
            self.reused.add(plan.id)
            return trial
        where = trial.checkpoint
        before = None if where is None else kept_records_before(self.folder, where)
        if before is None or before > len(trial.rows):
            trial.checkpoint = trial.best_checkpoint = trial.best_score = None
            trial.rows = []
        trial.status, trial.stopped_by = "pending", None
        return trial
