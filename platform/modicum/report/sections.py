"""Sections of a report: tables, pictures and budgets to target of one group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from modicum.report.search_parts import pareto_table, search_figures
from modicum.results.curves import budgets_by_row, needs_steps
from modicum.results.figures import (
    COLOURS,
    Lines,
    budget_lines,
    curves_figure,
    logarithmic,
    plot_boxes,
    progress_lines,
    step_lines,
    thinned,
    to_svg,
)
from modicum.results.formatting import show, show_number, show_settings, show_summary
from modicum.results.layout import ReportLayout
from modicum.results.ranking import Cell
from modicum.results.records import final_values
from modicum.results.statistics import Summary
from modicum.results.tables import Table, report_table, show_cell

# A picture of more rows or columns cannot be read; a table can.
_MOST_ROWS, _MOST_COLUMNS = 16, 24
_EMPTY = {"text": "–", "rank": None, "interval": ""}
_WIDE = 8.0  # inches
_CURVE_NOTE = "Mean over seeds; shaded: 95% t interval over seeds, with three or more."
_BOX_NOTE = "Box: quartiles; whiskers: 1.5 times their distance; dots: seeds."


def section(layout: ReportLayout, group: Mapping[str, Any]) -> dict[str, Any]:
    """Make the section of a group, given by values of the settings `by`."""
    found = [report_table(layout, metric, group) for metric in layout.metrics]
    tables = [table_part(table) for table in found if table.cells]
    if not layout.columns and len(tables) > 1:
        tables = [side_by_side(tables)]
    drawable = all(
        len(t["rows"]) <= _MOST_ROWS and len(t["header"]) - t["keys"] <= _MOST_COLUMNS
        for t in tables
    )
    if (front := pareto_table(layout, group)) is not None:
        tables.insert(0, front)
    pictures = [_picture(*parts) for parts in search_figures(layout, group)]
    if drawable and found:
        metric = layout.main_metric
        pictures += curve_pictures(layout, metric, group)
        pictures += progress_pictures(layout, group)
        if any(cell.summary.n > 1 for cell in found[0].cells.values()):
            figure = plot_boxes(layout.records, metric, layout.rows, layout.columns, group)
            pictures.append(_picture(f"{metric} over seeds", _BOX_NOTE, figure))
    return {
        "title": show_settings(group),
        "tables": tables,
        "pictures": pictures,
        "budgets": list(_budgets(layout, group)),
        "evaluation": evaluation_costs(layout, group),
    }


def _budgets(layout: ReportLayout, group: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Make the tables of budgets to target."""
    records = layout.records
    for target in layout.spec.targets:
        sign = "≥" if records.metric_info(target.metric)["goal"] == "max" else "≤"
        title = f"{records.budget_words} needed for {target.metric} {sign} {target.value:g}"
        for where in layout.curve_groups(group):
            needed = budgets_by_row(records, target.metric, target.value, layout.rows, where)
            rows = [
                {"key": [show(v) for v in key], "text": str(value)} for key, value in needed.items()
            ]
            if rows:
                yield {"title": title + beyond(where, group), "rows": rows, "names": layout.rows}


def table_part(table: Table) -> dict[str, Any]:
    """Make a table, its cells as text."""
    # Whole numbers that are neither good nor bad are sizes or counts.
    summaries = [cell.summary for cell in table.cells.values()]
    shown = show_count if table.goal is None and all(map(whole, summaries)) else show_summary

    def part(cell: Cell | None) -> dict[str, Any]:
        if cell is None:
            return _EMPTY
        return {
            "text": show_cell(cell, shown),
            "rank": cell.rank,
            "interval": _interval(cell.summary),
        }

    return {
        "title": table.metric,
        "header": table.header,
        "keys": len(table.row_names),
        "legend": table.legend,
        "marked": table.goal is not None,
        "rows": [
            {
                "key": [show(value) for value in row],
                "cells": [part(table.cells.get((row, column))) for column in table.columns],
            }
            for row in table.rows
        ],
    }


def _interval(summary: Summary) -> str:
    """Write the interval of a cell, and what it covers; empty without one."""
    if summary.low is None:
        return ""
    over = f"{summary.n} seeds" + (f" and {summary.rows} test rows" if summary.rows else "")
    ends = f"{show_number(summary.low)} to {show_number(summary.high)}"
    return f"95% interval {ends}, over {over}"


def covers(rows: Sequence[int | None]) -> str:
    """Write what the intervals of a table cover.

    Args:
        rows: Number of test rows of each interval; None if it covers seeds alone.
    """
    both = sum(count is not None for count in rows)
    if both == len(rows):
        return "Intervals cover other seeds and other test rows"
    if both:
        return f"Intervals cover other seeds, {both} of {len(rows)} also other test rows"
    return "Intervals cover other seeds, not other test rows"


def side_by_side(tables: list[dict[str, Any]]) -> dict[str, Any]:
    """Join tables of one column each into one table, a column for each metric."""
    parts = [{tuple(row["key"]): row["cells"][0] for row in table["rows"]} for table in tables]
    keys = tables[0]["keys"]
    return {
        **tables[0],
        "title": "Metrics",
        "header": tables[0]["header"][:keys] + [t["header"][keys] for t in tables],
        "marked": any(table["marked"] for table in tables),
        "rows": [
            {"key": list(key), "cells": [part.get(key, _EMPTY) for part in parts]}
            for key in dict.fromkeys(key for part in parts for key in part)
        ],
    }


def evaluation_costs(layout: ReportLayout, group: Mapping[str, Any]) -> dict[str, Any] | None:
    """Make the table of evaluation costs, which are no part of the budget.

    Each row has its mean per trial; None if no metric is an evaluation cost.
    """
    records = layout.records
    declared = records.experiment["metrics"]
    names = [n for n in map(str, records.frame) if declared.get(n, {}).get("evaluation_cost")]
    spent: dict[tuple[Any, ...], list[list[float]]] = {}
    for index, name in enumerate(names):
        for settings, value in final_values(records, name, group):
            key = tuple(settings.get(row) for row in layout.rows)
            spent.setdefault(key, [[] for _ in names])[index].append(value)
    if not spent:
        return None
    return {
        "header": [*layout.rows, *names],
        "rows": [
            [*map(show, key), *(f"{fmean(v):g}" if v else "–" for v in values)]
            for key, values in spent.items()
        ],
    }


def curve_pictures(
    layout: ReportLayout, metric: str, group: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Draw a metric against the budget, where a row has more than one point.

    Where the budget does not vary within trials, and no picture of the study shows their course,
    the metric is drawn against the step as well.
    """
    records, unit = layout.records, layout.records.budget_words
    for where in layout.curve_groups(group):
        lines = budget_lines(records, metric, layout.rows, where)
        if any(len(points) > 1 for points in lines.curves.values()):
            yield _curves(f"{metric} against {unit}{beyond(where, group)}", lines)
    if not layout.spec.pictures and needs_steps(records, metric, group):
        for where in layout.column_groups(group):
            lines = step_lines(records, metric, layout.rows, where)
            if lines.curves:
                yield _curves(f"{metric} against the step{beyond(where, group)}", lines)


def progress_pictures(layout: ReportLayout, group: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Draw the study's metrics against another metric, for each value of the columns."""
    for picture in layout.spec.pictures:
        for where in layout.column_groups(group):
            lines = progress_lines(
                layout.records, picture.against, picture.metrics, layout.rows, where
            )
            if lines.curves:
                title = f"{', '.join(picture.metrics)} against {picture.against}"
                yield _curves(title + beyond(where, group), lines)


def _curves(title: str, lines: Lines) -> dict[str, Any]:
    """Make a picture of curves, with their points for readers whose browser draws them."""
    budgets = sorted({point.budget for points in lines.curves.values() for point in points})
    plot = {
        "x": lines.across,
        "y": lines.up,
        "legend": lines.legend,
        "ticks": lines.budget,
        "logarithmic": lines.budget and logarithmic(budgets),
        "lines": [
            {
                "label": label,
                "colour": COLOURS[index % len(COLOURS)],
                "points": [
                    [point.budget, point.summary.mean, point.summary.low, point.summary.high]
                    for point in thinned(points)
                ],
            }
            for index, (label, points) in enumerate(lines.curves.items())
        ],
    }
    return {**_picture(title, _CURVE_NOTE, curves_figure(lines)), "plot": plot}


def beyond(where: Mapping[str, Any], group: Mapping[str, Any]) -> str:
    """Write the settings of a picture that are not those of its group, to end a title."""
    own = {name: value for name, value in where.items() if name not in group}
    return f", {describe(own)}" if own else ""


def _picture(title: str, note: str, figure: Figure) -> dict[str, Any]:
    # A wide picture has a row of the page to itself.
    wide = bool(figure.get_figwidth() > _WIDE)
    return {"title": title, "note": note, "svg": to_svg(figure), "wide": wide, "plot": None}


def describe(settings: Mapping[str, Any]) -> str:
    """Write settings as `name = value, ...`, without those that have no effect."""
    return show_settings({name: v for name, v in settings.items() if v is not None})


def whole(summary: Summary) -> bool:
    """Test if a summary is one whole number, as sizes and counts are."""
    return summary.mean.is_integer() and not summary.sd


def show_count(summary: Summary) -> str:
    """Write `mean (n)`, for a whole number."""
    return f"{summary.mean:.0f} ({summary.n})"


def signed_interval(low: float | None, high: float | None) -> str:
    """Write the interval of a difference; empty where it is undefined."""
    return "" if low is None or high is None else f"{low:+.4f} to {high:+.4f}"
