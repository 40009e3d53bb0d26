"""Differences of two runs in the cells that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modicum.experiment.setting_filters import varying
from modicum.results.cells import final_values
from modicum.results.layout import ReportLayout
from modicum.results.records import Key, StudyRecords
from modicum.results.statistics import (
    Difference,
    Summary,
    paired_difference,
    summarise,
    welch_interval,
)


@dataclass(frozen=True)
class CellDifference:
    """A cell that two runs share.

    Attributes:
        metric: Metric of the cell.
        where: Settings of the cell.
        first: Values of the first run.
        other: Values of the other run.
        difference: Other minus first; the interval is None where it is undefined.
        paired: True if the difference is paired over shared seeds (`difference.n` of them),
            False if its interval is Welch's.
        better: True if the other run is better, False if it is worse; None if the interval
            contains 0 or the metric has no goal.
    """

    metric: str
    where: Mapping[str, Any]
    first: Summary
    other: Summary
    difference: Difference
    paired: bool
    better: bool | None


@dataclass(frozen=True)
class RunDifference:
    """Another run against the first one.

    Attributes:
        other: Number of the other run, from 2.
        cells: Cells that both have.
        only_first: Settings of cells that only the first run has.
        only_other: Settings of cells that only the other run has.
        refused: Reason why no results are compared; None where they are.
    """

    other: int
    cells: Sequence[CellDifference]
    only_first: Sequence[Mapping[str, Any]]
    only_other: Sequence[Mapping[str, Any]]
    refused: str | None = None


def compare_cells(
    number: int, first: ReportLayout, other: StudyRecords, metric: str | None
) -> RunDifference:
    """Compare the results of run `number` with the first run's.

    Without a metric, all metrics that the first run shows and the other run has are compared.
    """
    runs = (first.records, other)
    names = [run.experiment["name"] for run in runs]
    if names[0] != names[1]:
        refused = (
            f"results are not compared: {names[0]} and {names[1]} are different experiments, "
            "which share no cells"
        )
        return RunDifference(number, [], [], [], refused)
    metrics = [metric] if metric is not None else [n for n in first.metrics if n in other.frame]
    keys = varying(trial.columns for run in runs for trial in run.trials)
    keys = [name for name in keys if any(name in run.varied for run in runs)]
    cells: list[CellDifference] = []
    lone: tuple[dict[Key, None], dict[Key, None]] = ({}, {})
    for name in metrics:
        one, two = (_by_cell(run, name, keys) for run in runs)
        goal = first.records.metric_info(name)["goal"]
        for key in one:
            if key in two:
                where = dict(zip(keys, key, strict=True))
                cells.append(_compare_cell(name, goal, where, one[key], two[key]))
        lone[0].update(dict.fromkeys(key for key in one if key not in two))
        lone[1].update(dict.fromkeys(key for key in two if key not in one))
    only = [[dict(zip(keys, key, strict=True)) for key in side] for side in lone]
    return RunDifference(number, cells, only[0], only[1])


def _by_cell(run: StudyRecords, metric: str, keys: Sequence[str]) -> dict[Key, dict[int, float]]:
    cells: dict[Key, dict[int, float]] = {}
    for settings, value in final_values(run, metric):
        cells.setdefault(tuple(settings.get(name) for name in keys), {})[settings["seed"]] = value
    return cells


def _compare_cell(
    metric: str,
    goal: str | None,
    where: Mapping[str, Any],
    first: Mapping[int, float],
    other: Mapping[int, float],
) -> CellDifference:
    one, two = summarise(list(first.values())), summarise(list(other.values()))
    shared = sorted(first.keys() & other.keys())
    paired = len(shared) > 1
    if paired:
        difference = paired_difference([other[s] for s in shared], [first[s] for s in shared])
    else:
        low: float | None = None
        high: float | None = None
        if one.sd is not None and two.sd is not None:
            low, high = welch_interval(two.mean, two.sd, two.n, one.mean, one.sd, one.n)
        difference = Difference(min(one.n, two.n), two.mean - one.mean, low, high, None)
    return CellDifference(metric, where, one, two, difference, paired, _better(difference, goal))


def _better(difference: Difference, goal: str | None) -> bool | None:
    if goal is None or difference.low is None or difference.high is None:
        return None
    if difference.low <= 0 <= difference.high:
        return None
    return (difference.mean > 0) == (goal == "max")
