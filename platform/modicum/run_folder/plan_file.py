"""The study's experiment and trials in the run folder: `plan.json`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel

from modicum.errors import InputError, reason_of
from modicum.experiment.config import settings_of
from modicum.experiment.experiment import Experiment
from modicum.planning.trial_plan import TrialPlan
from modicum.run_folder.stop_requests import TRIAL_PATTERN
from modicum.run_folder.trial_record import TrialRecord
from modicum.storage import StorageFolder

PLAN = "plan.json"


class _Metric(BaseModel):
    goal: str | None


class _Experiment(BaseModel):
    name: str
    version: str
    budget_unit: str
    budget_settings: list[str]
    metrics: dict[str, _Metric]


class _Plan(BaseModel):
    experiment: _Experiment
    trials: list[TrialRecord]


def write_plan(
    folder: StorageFolder, experiment: Experiment[Any], plans: Iterable[TrialPlan]
) -> None:
    """Write `plan.json`."""
    trials = [plan.as_json() for plan in plans]
    folder.write_json({"experiment": describe_experiment(experiment), "trials": trials}, PLAN)


def read_plan(folder: StorageFolder) -> Any:
    """Read `plan.json`: the experiment and the trials of the study.

    Raises:
        InputError: The folder holds no run, or `plan.json` is broken.
    """
    if not folder.exists(PLAN):
        raise InputError(f"{folder.uri}: no run here (there is no plan.json)")
    try:
        plan = folder.read_json(PLAN)
        # A trial's name becomes part of paths.
        if not all(re.fullmatch(TRIAL_PATTERN, t.id) for t in _Plan.model_validate(plan).trials):
            raise ValueError("a trial's name has to be 12 hexadecimal digits")
    except (ValueError, RecursionError) as error:
        reason = reason_of(error, _Plan)
    else:
        return plan
    raise InputError(
        f"{folder.display(PLAN)}: no plan ({reason}); `modicum run` with the study writes it again"
    )


def describe_experiment(experiment: Experiment[Any]) -> Mapping[str, Any]:
    """Describe an experiment as plain data, for results that do not import it."""
    return {
        "name": experiment.name,
        "version": experiment.version,
        "budget_unit": experiment.budget_unit,
        "budget_settings": [n for n, s in settings_of(experiment.Config).items() if s.sets_budget],
        "metrics": {name: asdict(metric) for name, metric in experiment.metrics.items()},
    }
