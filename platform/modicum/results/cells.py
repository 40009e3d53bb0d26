"""Final values of a metric, by trial and by cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modicum.errors import InputError
from modicum.results.records import Key, StudyRecords, Where


def final_values(
    records: StudyRecords, metric: str, where: Where = None
) -> list[tuple[Mapping[str, Any], float]]:
    """Settings and final value of every finished trial: the last record that has the metric."""
    records.metric_info(metric)
    records.check_settings(where or {})
    frame = records.frame
    if metric not in frame:
        return []
    done = frame[(frame["status"] == "finished") & frame[metric].notna()]
    last = done.groupby("trial_id", sort=False)[metric].last()
    return [
        (records.settings[trial.id], float(last[trial.id]))
        for trial in records.selected(where)
        if trial.id in last.index
    ]


def values_by_seed(
    records: StudyRecords, metric: str, names: Sequence[str], where: Where = None
) -> dict[Key, dict[int, float]]:
    """Final values by seed, for each cell of the settings `names`."""
    records.check_settings(names)
    cells: dict[Key, dict[int, float]] = {}
    for settings, value in final_values(records, metric, where):
        cell = cells.setdefault(tuple(settings.get(name) for name in names), {})
        if settings["seed"] in cell:
            loose = [n for n in records.varied if n not in names and n not in (where or {})]
            raise InputError(
                f"table: cells would mix different values of {', '.join(loose)}; "
                "name it in rows, columns or where"
            )
        cell[settings["seed"]] = value
    return cells
