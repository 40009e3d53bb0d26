"""The study's experiment and trials in the run folder: `plan.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from modicum.experiment.config import settings_of
from modicum.experiment.experiment import Experiment
from modicum.planning.trial_plan import TrialPlan
from modicum.storage import StorageFolder

PLAN = "plan.json"


def write_plan(
    folder: StorageFolder, experiment: Experiment[Any], plans: Iterable[TrialPlan]
) -> None:
    """Write `plan.json`.

    Raises:
        StorageError: The run folder cannot be written.
    """
    trials = [plan.as_json() for plan in plans]
    folder.write_json({"experiment": describe_experiment(experiment), "trials": trials}, PLAN)


def describe_experiment(experiment: Experiment[Any]) -> Mapping[str, Any]:
    """What results need to know of an experiment without importing it, as plain data."""
    return {
        "name": experiment.name,
        "version": experiment.version,
        "budget_unit": experiment.budget_unit,
        "budget_settings": [n for n, s in settings_of(experiment.Config).items() if s.sets_budget],
        "metrics": {name: asdict(metric) for name, metric in experiment.metrics.items()},
    }
