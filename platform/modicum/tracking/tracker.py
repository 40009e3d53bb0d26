"""The interface of a tracker, and what trackers log of a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modicum.experiment.metric import Value
from modicum.run_folder.trial_record import TrialRecord


class Tracker:
    """One place that trials are logged to; a method that it leaves out does nothing."""

    def start(self, trial: TrialRecord) -> None:
        """Begin the trial's log, perhaps again: all of its records follow, from the first one."""

    def log(self, trial: TrialRecord, index: int, step: int) -> None:
        """Log a record of the trial at a step."""

    def flush(self, trial: TrialRecord) -> None:
        """Write what has been logged: the trial's records are about to be written, too."""

    def end(self, trial: TrialRecord) -> None:
        """Complete the log of a trial that has ended; its status says how."""

    def reuse(self, trial: TrialRecord) -> None:
        """Take over a trial that ended in an earlier run."""

    def close(self) -> None:
        """End the logs at the end of the run; trials that still run were interrupted."""


def step_of(rows: Sequence[Mapping[str, Any]], index: int) -> int:
    """Step of a record of a trial: the budget, where that tells records apart.

    The record's index, from 0, takes the place of a budget that is not a whole number, or that
    does not grow from the first record to the second (epochs over the same images). Of a trial
    with more than one record, `rows` must have the first two.
    """
    first = [row["budget"] for row in rows[:2]]
    whole = all(float(budget).is_integer() for budget in first)
    grows = len(first) < 2 or first[1] > first[0]
    return int(rows[index]["budget"]) if whole and grows else index


def metrics_of(row: Mapping[str, Any]) -> dict[str, float]:
    """A record's numbers: its metrics and `budget`; text and missing values are left out."""
    return {
        name: float(value)
        for name, value in row.items()
        if name != "seconds" and isinstance(value, bool | int | float)
    }


def settings_of_trial(trial: TrialRecord) -> dict[str, Value]:
    """A trial's seed and active settings."""
    known = {name: value for name, value in trial.columns.items() if value is not None}
    return {**known, "seed": trial.seed}
