"""Failures of trials whose process died, and the limit on them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from modicum.execution.tune.trainable import trial_id
from modicum.ray_support.private_api import actor_of, died_with_node

if TYPE_CHECKING:
    from ray.tune.experiment import Trial as TuneTrial


class Failures:
    """Counts the deaths of each trial's process since the trial's last new record.

    Two kinds are not the trial's own and are not counted: deaths with a node, and the first death
    in a process that other trials had before, which may be their doing.

    Args:
        retries: Largest number of counted deaths after which a trial is started again.

    Attributes:
        final: Summary and trace of the trials that are not to be started again, by trial.
    """

    def __init__(self, retries: int) -> None:
        self.final: dict[str, tuple[str, str]] = {}
        self._retries = retries
        self._deaths: Counter[str] = Counter()
        self._records: Counter[str] = Counter()
        self._used: set[str | None] = set()
        self._inherited: set[str] = set()
        self._excused: set[str] = set()

    def started(self, trial: TuneTrial) -> None:
        """Note the process in which a trial starts."""
        actor, name = actor_of(trial), trial_id(trial)
        (self._inherited.add if actor in self._used else self._inherited.discard)(name)
        self._used.add(actor)

    def recorded(self, name: str, index: int) -> None:
        """Note a record of a trial; one that repeats an earlier attempt's is no progress."""
        if index >= self._records[name]:
            self._records[name] = index + 1
            self._deaths[name] = 0

    def died(self, trial: TuneTrial) -> None:
        """Note that a trial's process has died, and settle whether that was once too often."""
        name = trial_id(trial)
        if died_with_node(trial):
            return
        if name in self._inherited and name not in self._excused:
            self._excused.add(name)
            return
        self._deaths[name] += 1
        if self._deaths[name] > self._retries:
            reason, trace = last_error(trial)
            times = "once" if self._deaths[name] == 1 else f"{self._deaths[name]} times"
            self.final[name] = (
                f"the trial's process died {times} without a new record (retries: "
                f"{self._retries}): {reason}",
                trace,
            )


def last_error(trial: TuneTrial) -> tuple[str, str]:
    """Last line and whole text of what Tune has noted about the ends of a trial's processes."""
    trace = ""
    if trial.error_file and Path(trial.error_file).exists():
        trace = Path(trial.error_file).read_text()
    lines = [line for line in trace.splitlines() if line.strip()]
    return (lines[-1].strip() if lines else "no reason is known"), trace
