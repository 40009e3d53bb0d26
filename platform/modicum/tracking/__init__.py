"""Logs for other programs to watch a study in: TensorBoard, MLflow, Weights & Biases.

The driver's recorder says what happens to trials; `Tracking` hands on whole, clean records:
settings and seed, metrics, and a step. No part of a trial's identity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

from modicum.experiment.metric import Value

if TYPE_CHECKING:
    from modicum.run_folder.trial_record import TrialState

__all__ = ["Tracker", "Tracking", "metrics_of", "settings_of_trial", "step_of"]


class Tracker(Protocol):
    """One place that records are logged to."""

    def start(self, state: TrialState) -> None:
        """A trial starts, perhaps again: all of its records follow, from the first one."""

    def log(self, state: TrialState, index: int, step: int) -> None:
        """A record of the trial, at a step."""

    def flush(self, state: TrialState) -> None:
        """The trial's records are about to be written to the run folder."""

    def end(self, state: TrialState) -> None:
        """The trial has ended; its status says how."""

    def reuse(self, state: TrialState) -> None:
        """The trial ended in an earlier run and is taken over."""

    def close(self) -> None:
        """The run is over; trials that still run were interrupted."""


class Tracking:
    """Hands a recorder's trials to trackers.

    A record is handed on once its step is known (see `step_of`), so the first one of a trial
    waits for the second one or the end. Where a trial starts again, or reports a record anew
    that it had reported before its process died, all of its records are handed on afresh.

    Args:
        trackers: Where to log.
    """

    def __init__(self, trackers: Sequence[Tracker] = ()) -> None:
        self._trackers = trackers
        self._logged: dict[str, int] = {}

    def reuse(self, state: TrialState) -> None:
        """The trial ended in an earlier run."""
        for tracker in self._trackers:
            tracker.reuse(state)

    def start(self, state: TrialState) -> None:
        """The trial starts, or starts again."""
        if state.plan.id not in self._logged:
            self._begin(state)

    def _begin(self, state: TrialState) -> None:
        self._logged[state.plan.id] = 0
        for tracker in self._trackers:
            tracker.start(state)

    def record(self, state: TrialState) -> None:
        """The last record of the trial is new; it may have replaced others."""
        if len(state.rows) <= self._logged.get(state.plan.id, 0):
            self._begin(state)
        if len(state.rows) > 1:
            self._catch_up(state)

    def _catch_up(self, state: TrialState) -> None:
        self.start(state)
        for index in range(self._logged[state.plan.id], len(state.rows)):
            for tracker in self._trackers:
                tracker.log(state, index, step_of(state.rows, index))
        self._logged[state.plan.id] = len(state.rows)

    def flush(self, state: TrialState) -> None:
        """The trial's records are about to be written to the run folder."""
        for tracker in self._trackers:
            tracker.flush(state)

    def end(self, state: TrialState) -> None:
        """The trial has ended."""
        self._catch_up(state)
        for tracker in self._trackers:
            tracker.end(state)
        del self._logged[state.plan.id]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for tracker in self._trackers:
            tracker.close()


def step_of(rows: Sequence[Mapping[str, Any]], index: int) -> int:
    """The place of a record along the horizontal axis: the budget where that tells records apart.

    The record's index, from 0, stands in for a budget that is no whole number, or that does not
    grow from the first record to the second (epochs over the same images).

    Args:
        rows: Records of a trial, the first two at least where it has more than one.
        index: Which one is meant.
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


def settings_of_trial(state: TrialState) -> dict[str, Value]:
    """A trial's settings, those without an effect left out, and its seed."""
    known = {name: value for name, value in state.plan.columns.items() if value is not None}
    return {**known, "seed": state.plan.seed}
