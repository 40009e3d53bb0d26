"""Parts of a search in a report beside its tables: a Pareto front, and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from matplotlib.figure import Figure

from modicum.results.figures import plot_search
from modicum.results.formatting import show, show_summary
from modicum.results.importance import finished_configurations, importance_of
from modicum.results.layout import ReportLayout
from modicum.results.pareto import ParetoPoint, pareto_points
from modicum.results.ranking import by_time
from modicum.results.search_figures import (
    MOST_SETTINGS,
    plot_importance,
    plot_parallel,
    plot_pareto,
    plot_slices,
)

_TIME_NOTE = "Mean over seeds of each configuration; hollow: ended early by the scheduler."
_FRONT_NOTE = "Means over seeds of the configurations whose seeds have all finished."
_SLICE_NOTE = "Mean over seeds of each finished configuration, by the settings that matter most."
_PARALLEL_NOTE = (
    "A line for each finished configuration, in the colour of its objective. An axis has the "
    "smallest value at its foot, or texts in the order of the study."
)


def pareto_table(layout: ReportLayout, group: Mapping[str, Any]) -> dict[str, Any] | None:
    """Make the table of the Pareto-optimal configurations, by the first objective.

    None for a study without several objectives, or without a finished configuration.
    """
    front = [point for point in _points(layout, group) if point.optimal]
    if not front:
        return None
    objectives = layout.objectives
    first = objectives[0]
    front.sort(key=lambda p: p.values[first.metric].mean, reverse=first.goal == "max")
    wanted = ", ".join(f"{o.metric} ({o.goal})" for o in objectives)
    return {
        "title": "Pareto front",
        "header": [*layout.rows, *(o.metric for o in objectives)],
        "keys": len(layout.rows),
        "legend": "configurations that no other one equals by all objectives and beats by one: "
        f"{wanted}; mean ± sd (number of seeds)",
        "marked": False,
        "rows": [
            {
                "key": [show(point.settings.get(name)) for name in layout.rows],
                "cells": [
                    {"text": show_summary(point.values[o.metric]), "rank": None, "interval": ""}
                    for o in objectives
                ],
            }
            for point in front
        ],
    }


def search_figures(
    layout: ReportLayout, group: Mapping[str, Any]
) -> Iterator[tuple[str, str, Figure]]:
    """Titles, notes and figures of a search."""
    if not layout.ranked or not layout.metrics:
        return
    records, names = layout.records, layout.rows
    for first, second in combinations([o.metric for o in layout.objectives], 2):
        if len(points := _points(layout, group)) > 1:
            yield f"{second} against {first}", _FRONT_NOTE, plot_pareto(points, first, second)
    for objective in layout.objectives:
        metric = objective.metric
        if len(by_time(records, names, objective, group)) > 1:
            figure = plot_search(records, names, objective, group)
            yield f"{metric} in the order of time", _TIME_NOTE, figure
        found = finished_configurations(records, names, objective, group)
        if (importance := importance_of(found)) is None:
            continue
        note = f"From {importance.configurations} finished configurations, within the values tried."
        yield f"Importance of settings for {metric}", note, plot_importance(importance)
        largest = list(importance.shares)[:MOST_SETTINGS]
        yield f"{metric} by setting", _SLICE_NOTE, plot_slices(found, metric, largest)
        yield f"Settings and {metric}", _PARALLEL_NOTE, plot_parallel(found, metric, largest)


def _points(layout: ReportLayout, group: Mapping[str, Any]) -> list[ParetoPoint]:
    objectives = layout.objectives if layout.ranked and layout.metrics else []
    if len(objectives) < 2:
        return []
    return pareto_points(layout.records, layout.rows, objectives, group)
