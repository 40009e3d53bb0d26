"""Curves over seeds, and the budget that a target needs."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from modicum.errors import InputError
from modicum.experiment.setting_filters import varying
from modicum.results.records import Key, StudyRecords, TrialInfo, Where
from modicum.results.statistics import Summary, median_of, summarise

# (budget, value) pairs of one seed, by rising budget.
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class CurvePoint:
    """One point of a curve: the metric over the seeds that had spent some budget by then."""

    budget: float
    summary: Summary


def curve(by_seed: Mapping[int, Points], *, carry: bool = True) -> list[CurvePoint]:
    """Summarise a metric over seeds at each budget.

    Args:
        by_seed: Points of each seed.
        carry: True for series within a trial: every seed contributes at each budget its value
            at the largest budget not beyond it, and the curve spans only the budgets that all
            seeds cover (nothing is extrapolated). False for series across trials: each budget
            has the seeds that were run with it.
    """
    if not carry:
        values: dict[float, list[float]] = {}
        for points in by_seed.values():
            for budget, value in points:
                values.setdefault(budget, []).append(value)
        return [CurvePoint(budget, summarise(values[budget])) for budget in sorted(values)]
    series = [sorted(points) for points in by_seed.values() if points]
    if not series:
        return []
    first = max(points[0][0] for points in series)
    last = min(points[-1][0] for points in series)
    budgets = sorted({b for points in series for b, _ in points if first <= b <= last})
    reached = [
        [
            points[place - 1][1]
            for place in np.searchsorted([x for x, _ in points], budgets, "right")
        ]
        for points in series
    ]
    columns = zip(*reached, strict=True)
    return [CurvePoint(b, summarise(values)) for b, values in zip(budgets, columns, strict=True)]


def points_by_seed(
    records: StudyRecords, metric: str, where: Where = None
) -> dict[int, list[tuple[float, float]]]:
    """Budget and value of every record of finished trials, by seed.

    Trials of one seed that differ only in settings that set the budget (a fraction of labels)
    join into one series; so do the records of one trial.
    """
    trials = records.selected(where)
    free = records.experiment["budget_settings"]
    _require_alike(trials, free)
    records.metric_info(metric)
    records.check_settings(where or {})
    rows = _finished(records, trials, ["budget", metric], [metric])
    # Of several records at one budget of a trial, the last.
    rows = rows.groupby(["trial_id", "budget"], sort=False).last().reset_index()
    series = _series(rows, "budget", metric)
    return {seed: sorted(points) for seed, points in sorted(series.items())}


def points_by_row(
    records: StudyRecords, metric: str, rows: Sequence[str], where: Where = None
) -> Iterator[tuple[Key, Mapping[int, Points], bool]]:
    """Points by seed of each row, and True if a seed's points join several trials."""
    for key, chosen in _rows(records, rows, where):
        points = points_by_seed(records, metric, chosen)
        if points:
            seeds = [trial.seed for trial in records.selected(chosen)]
            yield key, points, len(seeds) > len(set(seeds))


def curves_by_row(
    records: StudyRecords, metric: str, rows: Sequence[str], where: Where = None
) -> dict[Key, list[CurvePoint]]:
    """Metric against budget over seeds, for each row."""
    found = points_by_row(records, metric, rows, where)
    return {key: curve(points, carry=not joined) for key, points, joined in found}


def progress_by_row(
    records: StudyRecords, against: str, metric: str, rows: Sequence[str], where: Where = None
) -> dict[Key, list[CurvePoint]]:
    """Metric against another metric of the same records over seeds, for each row.

    The `budget` of a point is a value of `against`.
    """
    records.metric_info(against)
    return _within_trials(records, against, metric, rows, where)


def steps_by_row(
    records: StudyRecords, metric: str, rows: Sequence[str], where: Where = None
) -> dict[Key, list[CurvePoint]]:
    """Metric against the number of the record over seeds, from 1, for each row.

    The `budget` of a point is the number.
    """
    found = _within_trials(records, "record", metric, rows, where)
    return {
        key: [replace(point, budget=point.budget + 1) for point in points]
        for key, points in found.items()
    }


def needs_steps(records: StudyRecords, metric: str, where: Where = None) -> bool:
    """Tell whether finished trials have several values of a metric, all at one budget."""
    frame = _finished(records, records.selected(where), ["budget", metric], [metric])
    budgets = frame.groupby("trial_id")["budget"].agg(["size", "nunique"])
    return bool((budgets["size"] > 1).any() and (budgets["nunique"] == 1).all())


def _within_trials(
    records: StudyRecords, column: str, metric: str, rows: Sequence[str], where: Where
) -> dict[Key, list[CurvePoint]]:
    """Metric against a column of the same records over seeds, for each row."""
    records.metric_info(metric)
    found = {}
    for key, chosen in _rows(records, rows, where):
        trials = records.selected(chosen)
        _require_alike(trials)
        frame = _finished(records, trials, [column, metric], [column, metric])
        series = _series(frame, column, metric)
        if series:
            found[key] = curve(series, carry=False)
    return found


def _rows(
    records: StudyRecords, names: Sequence[str], where: Where
) -> Iterator[tuple[Key, dict[str, Any]]]:
    """Every row key, with all settings of the row's trials."""
    records.check_settings(names)
    for key in records.keys(names):
        yield key, {**(where or {}), **dict(zip(names, key, strict=True))}


def _require_alike(trials: Sequence[TrialInfo], free: Collection[str] = ()) -> None:
    """Refuse a curve of trials that differ in settings, those in `free` apart."""
    loose = [name for name in varying(trial.columns for trial in trials) if name not in free]
    if loose:
        raise InputError(
            f"curve: the trials have different values of {', '.join(loose)}; name it in where"
        )


def _finished(
    records: StudyRecords, trials: Sequence[TrialInfo], columns: list[str], present: list[str]
) -> pd.DataFrame:
    """Records of finished trials that have values in some columns."""
    wanted = list(dict.fromkeys(["trial_id", "seed", "status", *columns]))
    frame = records.of_trials(trials).reindex(columns=wanted)
    return frame[frame["status"] == "finished"].dropna(subset=present)


def _series(frame: pd.DataFrame, x: str, y: str) -> dict[int, list[tuple[float, float]]]:
    """Points of each seed, in the order of the records."""
    series: dict[int, list[tuple[float, float]]] = {}
    for seed, at, value in zip(frame["seed"], frame[x], frame[y], strict=True):
        series.setdefault(int(seed), []).append((float(at), float(value)))
    return series


def complete_seeds(by_seed: Mapping[int, Points]) -> dict[int, Points]:
    """Seeds that were run with every budget; a failed trial must not count as a miss."""
    budgets = {budget for points in by_seed.values() for budget, _ in points}
    return {s: points for s, points in by_seed.items() if {b for b, _ in points} == budgets}


@dataclass(frozen=True)
class BudgetNeeded:
    """Budget that a target needs, censored where the target was not reached.

    Attributes:
        target: Level of the metric.
        n: Number of seeds.
        reached: Number of seeds that reached the target.
        median: Median over seeds; infinite if half of the seeds or more missed the target.
        low: Lower end of the median's interval, a seed's budget; None for fewer than three seeds,
            and if all need the same.
        high: Upper end; infinite if it is beyond the largest budget tried, None where `low` is.
        coverage: Probability that the interval covers the true median, as `median_of` says.
        largest: Largest budget tried.
    """

    target: float
    n: int
    reached: int
    median: float
    low: float | None
    high: float | None
    coverage: float | None
    largest: float

    def __str__(self) -> str:
        if self.n == 0:
            return "no seed was run with every budget"
        interval = ""
        if self.low is not None and self.high is not None and self.coverage is not None:
            ends = f"{self._show(self.low)} to {self._show(self.high)}"
            interval = f" [{ends}, {100 * self.coverage:.4g}%]"
        return f"{self._show(self.median)}{interval} ({self.reached} of {self.n} seeds)"

    def _show(self, budget: float) -> str:
        return f"> {self.largest:g}" if math.isinf(budget) else f"{budget:g}"


def budget_to_target(by_seed: Mapping[int, Points], target: float, goal: str) -> BudgetNeeded:
    """Find the smallest budget tried at which each seed reached a target.

    Budgets between those tried are not interpolated, and none beyond the largest extrapolated.
    With the goal `max` the target is reached from below, with `min` from above.
    """
    sign = 1.0 if goal == "max" else -1.0
    needed = []
    for points in by_seed.values():
        hits = [budget for budget, value in sorted(points) if sign * value >= sign * target]
        needed.append(hits[0] if hits else math.inf)
    if not needed:
        return BudgetNeeded(target, 0, 0, math.inf, None, None, None, math.nan)
    reached = sum(map(math.isfinite, needed))
    largest = max(budget for points in by_seed.values() for budget, _ in points)
    found = median_of(needed)
    return BudgetNeeded(
        target, len(needed), reached, found.value, found.low, found.high, found.coverage, largest
    )


def budgets_by_row(
    records: StudyRecords, metric: str, target: float, rows: Sequence[str], where: Where = None
) -> dict[Key, BudgetNeeded]:
    """Find the budget that each row needs to reach a level of a metric with a goal."""
    goal = records.goal(metric, "a budget to target")
    return {
        key: budget_to_target(complete_seeds(points) if joined else points, target, goal)
        for key, points, joined in points_by_row(records, metric, rows, where)
    }
