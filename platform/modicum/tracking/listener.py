"""A listener of the recorder that hands trials to the trackers of a study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from modicum.errors import InputError, reason_of
from modicum.execution.recorder import Listener
from modicum.planning.spec import StudySpec
from modicum.run_folder.trial_record import TrialRecord
from modicum.storage import StorageFolder
from modicum.tracking.tracker import Tracker, step_of


class Tracking(Listener):
    """Hands a recorder's trials to trackers.

    A record is handed on once its step is known (see `step_of`), so the first record of a trial
    waits for the second one or the end. Where a trial starts again, or reports a record anew
    that it had reported before its process died, all of its records are handed on afresh.
    """

    def __init__(self, trackers: Sequence[Tracker] = ()) -> None:
        self._trackers = trackers
        self._logged: dict[str, int] = {}

    def reused(self, trial: TrialRecord) -> None:
        """Hand on a trial that ended in an earlier run."""
        for tracker in self._trackers:
            tracker.reuse(trial)

    def started(self, trial: TrialRecord) -> None:
        """Begin the trial's log, unless it has one of this run."""
        if trial.id not in self._logged:
            self._begin(trial)

    def recorded(self, trial: TrialRecord) -> None:
        """Hand on the trial's new record, or all of them where it has replaced others."""
        if len(trial.rows) <= self._logged.get(trial.id, 0):
            self._begin(trial)
        if len(trial.rows) > 1:
            self._catch_up(trial)

    def saving(self, trial: TrialRecord) -> None:
        """Let the trackers write, too."""
        for tracker in self._trackers:
            tracker.flush(trial)

    def ended(self, trial: TrialRecord) -> None:
        """Hand on what is left, and complete the trial's log."""
        self._catch_up(trial)
        for tracker in self._trackers:
            tracker.end(trial)
        del self._logged[trial.id]

    def _begin(self, trial: TrialRecord) -> None:
        self._logged[trial.id] = 0
        for tracker in self._trackers:
            tracker.start(trial)

    def _catch_up(self, trial: TrialRecord) -> None:
        self.started(trial)
        for index in range(self._logged[trial.id], len(trial.rows)):
            for tracker in self._trackers:
                tracker.log(trial, index, step_of(trial.rows, index))
        self._logged[trial.id] = len(trial.rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for tracker in self._trackers:
            tracker.close()


def make_tracking(spec: StudySpec, folder: StorageFolder, *, tensorboard: bool) -> Tracking:
    """Set up the trackers that a study names; without TensorBoard if `tensorboard` is false.

    Raises:
        InputError: A service cannot be reached, or its package is missing.
    """
    wanted, trackers = spec.tracking, list[Tracker]()
    if tensorboard and wanted.tensorboard:
        from modicum.tracking.tensorboard import TensorBoard

        trackers.append(TensorBoard(folder))
    for name, options in (("mlflow", wanted.mlflow), ("wandb", wanted.wandb)):
        if options is None:
            continue
        # The packages raise many kinds of exceptions, none of which names the field.
        try:
            from modicum.tracking import services

            made = getattr(services, name)(options, spec.name, folder)
        except ImportError as error:
            raise InputError(
                f"tracking.{name}: its package is missing ({reason_of(error)}); "
                "pip install modicum[tracking] brings it"
            ) from error
        except Exception as error:
            raise InputError(f"tracking.{name}: {reason_of(error)}") from error
        trackers.append(made)
    return Tracking(trackers)
