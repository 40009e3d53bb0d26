"""Records of a trial, and the metrics in them."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from modicum.errors import unknown_name

if TYPE_CHECKING:
    import numpy as np

BudgetUnit = Literal["labels", "samples", "episodes", "oracle_calls"]
Value = float | int | str | bool | None


@dataclass(frozen=True)
class Metric:
    """The declaration of a metric.

    Attributes:
        description: One sentence.
        goal: `max` if larger values are better, `min` if smaller ones are; None for neither.
        unit: Unit of the value; None for a pure number.
        timing: True for wall-clock figures, which alone may differ between two runs of the
            same trial.
        evaluation_cost: True for the cost of evaluation (validation labels, evaluation episodes),
            which is reported in separate columns and never part of the budget.
        outcomes: True if records may have the outcome of each test row (`Record.outcomes`), whose
            mean is the value. Intervals of the value then cover other test rows as well as other
            seeds.
    """

    description: str
    goal: Literal["max", "min"] | None = None
    unit: str | None = None
    timing: bool = False
    evaluation_cost: bool = False
    outcomes: bool = False


@dataclass(frozen=True, kw_only=True)
class Record:
    """One row of a trial's results.

    Attributes:
        budget: Distinct data acquired for training so far, in the experiment's budget unit.
        metrics: Values by slash name, such as `test/accuracy`; every name must be declared in
            `Experiment.metrics`.
        checkpoint: A folder with the state to resume from after this record, and with files for
            the user (weights, an exported model). The runner copies it before the generator
            continues, then empties it if it lies in the trial's scratch folder, and keeps the
            best and the last copy.
        outcomes: Outcome of each test row, such as right (1) or wrong (0), by the name of a metric
            of the record that is declared with `outcomes=True` and is their mean. The rows are
            the same, in the same order, for all trials that are compared.
    """

    budget: float
    metrics: Mapping[str, Value]
    checkpoint: Path | None = None
    outcomes: Mapping[str, Sequence[float] | np.ndarray] = field(default_factory=dict)


M = TypeVar("M")


def find_metric(declared: Mapping[str, M], name: str) -> M:
    """The declaration of a metric: under its name, else under the first pattern that it matches.

    Raises:
        InputError: No such metric is declared.
    """
    if name in declared:
        return declared[name]
    for pattern, metric in declared.items():
        if fnmatch.fnmatchcase(name, pattern):
            return metric
    raise unknown_name("metric", name, declared)
