"""Figures of a study: curves against budget, progress within trials, box plots."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from modicum.results.cells import values_by_seed
from modicum.results.curves import curves_by_row, progress_by_row
from modicum.results.formatting import show
from modicum.results.plots import boxes_figure, curves_figure
from modicum.results.records import Key, StudyRecords, Where


def plot_curves(
    records: StudyRecords, metric: str, rows: Sequence[str], where: Where = None
) -> Figure:
    """Draw metric against budget: a line per row, 95% intervals over seeds shaded."""
    curves = curves_by_row(records, metric, rows, where)
    lines = {_label(key): points for key, points in curves.items()}
    return curves_figure(lines, metric, f"budget ({records.budget_words})")


def plot_progress(
    records: StudyRecords,
    against: str,
    metrics: Sequence[str],
    rows: Sequence[str],
    where: Where = None,
) -> Figure:
    """Draw metrics against another metric: a line per row and metric, 95% intervals shaded."""
    lines = {}
    for metric in metrics:
        for key, points in progress_by_row(records, against, metric, rows, where).items():
            parts = [_label(key)] if any(part is not None for part in key) else []
            lines[", ".join(parts + ([metric] if len(metrics) > 1 else []))] = points
    units = {records.metric_info(metric).get("unit") for metric in metrics}
    unit = units.pop() if len(units) == 1 else None
    title = metrics[0] if len(metrics) == 1 else unit or "value"
    return curves_figure(lines, title, against, logarithmic=False)


def plot_boxes(
    records: StudyRecords,
    metric: str,
    rows: Sequence[str],
    columns: Sequence[str],
    where: Where = None,
) -> Figure:
    """Draw box plots over seeds: a group per column, a box per row."""
    cells = values_by_seed(records, metric, [*rows, *columns], where)
    samples = {
        (_label(key[: len(rows)]), _label(key[len(rows) :])): list(seeds.values())
        for key, seeds in cells.items()
    }
    return boxes_figure(
        samples,
        rows=[_label(key) for key in records.keys(rows)],
        columns=[_label(key) for key in records.keys(columns)],
        metric=metric,
        column_title=", ".join(columns),
    )


def _label(key: Key) -> str:
    return ", ".join(show(value) for value in key if value is not None) or "all"
