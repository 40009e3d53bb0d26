"""Curves over seeds: a metric against the budget, or against another metric."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from modicum.errors import InputError
from modicum.experiment.setting_filters import varying
from modicum.results.records import Key, StudyRecords, TrialInfo, Where
from modicum.results.statistics import Summary, summarise

# (budget, value) pairs of one seed, by rising budget.
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class CurvePoint:
    """One point of a curve over seeds.

    Attributes:
        budget: Budget spent.
        summary: The metric over the seeds that had spent at least some budget by then.
    """

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
    result = []
    for budget in budgets:
        reached = []
        for points in series:
            xs = [x for x, _ in points]
            reached.append(points[int(np.searchsorted(xs, budget, side="right")) - 1][1])
        result.append(CurvePoint(budget, summarise(reached)))
    return result


def points_by_seed(
    records: StudyRecords, metric: str, where: Where = None
) -> dict[int, list[tuple[float, float]]]:
    """Budget and value of every record of finished trials, by seed.

    Trials of one seed that differ only in settings that set the budget (a fraction of labels)
    join into one series; so do the records of one trial.
    """
    trials = records.selected(where)
    free = records.experiment["budget_settings"]
    _require_alike([name for name in _varied(trials) if name not in free])
    records.metric_info(metric)
    records.check_settings(where or {})
    rows = _finished(records, trials, ["budget", metric], [metric])
    # Of several records at one budget of a trial, the last.
    rows = rows.groupby(["trial_id", "budget"], sort=False).last().reset_index()
    return {seed: sorted(points) for seed, points in sorted(_series(rows, "budget", metric))}


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
    records.metric_info(metric)
    found = {}
    for key, chosen in _rows(records, rows, where):
        trials = records.selected(chosen)
        _require_alike(_varied(trials))
        frame = _finished(records, trials, [against, metric], [against, metric])
        series = dict(_series(frame, against, metric))
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


def _varied(trials: Sequence[TrialInfo]) -> list[str]:
    return varying(trial.columns for trial in trials)


def _require_alike(loose: Sequence[str]) -> None:
    """Refuse a curve of trials that differ in settings."""
    if loose:
        raise InputError(
            f"curve: the trials have different values of {', '.join(loose)}; name it in where"
        )


def _finished(
    records: StudyRecords, trials: Sequence[TrialInfo], columns: list[str], present: list[str]
) -> pd.DataFrame:
    """Records of finished trials that have values in some columns."""
    wanted = list(dict.fromkeys(["trial_id", "seed", "status", *columns]))
    frame = records.frame.reindex(columns=wanted)
    chosen = frame["trial_id"].isin({trial.id for trial in trials})
    return frame[(frame["status"] == "finished") & chosen].dropna(subset=present)


def _series(frame: pd.DataFrame, x: str, y: str) -> Iterator[tuple[int, list[tuple[float, float]]]]:
    """Points of each seed, in the order of the records."""
    series: dict[int, list[tuple[float, float]]] = {}
    for seed, at, value in zip(frame["seed"], frame[x], frame[y], strict=True):
        series.setdefault(int(seed), []).append((float(at), float(value)))
    yield from series.items()
