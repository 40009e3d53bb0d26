"""What a run folder holds of a trial: its state, its records, its log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from modicum.errors import InputError, reason_of
from modicum.experiment.config import settings_of
from modicum.experiment.experiment import Experiment
from modicum.planning.trial_plan import TrialPlan
from modicum.storage import StorageFolder

# Beside what the experiment saved: whose checkpoint it is, and how many records it follows.
CHECKPOINT_NOTE = "modicum_checkpoint.json"


Status = Literal["pending", "running", "finished", "failed", "stopped"]


StoppedBy = Literal["scheduler", "request"]


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


def load_trial(folder: StorageFolder, trial_id: str, *, with_log: bool = True) -> TrialState:
    """A trial's state from a run folder; its log may be long and is not always wanted.

    Raises:
        InputError: The trial's files are not what this program wrote.
    """
    try:
        return _loaded(folder, trial_id, with_log)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        place = folder.display("trials", trial_id)
        raise InputError(f"{place}: broken records or state ({reason_of(error)})") from error


def _loaded(folder: StorageFolder, trial_id: str, with_log: bool) -> TrialState:
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


def records_before(checkpoint: Path) -> int:
    """How many records a checkpoint follows."""
    return int(json.loads((checkpoint / CHECKPOINT_NOTE).read_text())["records"])
