"""Sections of a report: tables, pictures and budgets to target of one group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modicum.report.pictures import beyond, box_picture, curve_pictures, progress_pictures
from modicum.report.tables import evaluation_costs, side_by_side, table_part
from modicum.results.budget import budgets_by_row
from modicum.results.formatting import show, show_settings
from modicum.results.layout import ReportLayout
from modicum.results.tables import make_table

# A picture of more rows or columns cannot be read; a table can.
_MOST_ROWS, _MOST_COLUMNS = 16, 24


def section(layout: ReportLayout, group: Mapping[str, Any]) -> dict[str, Any]:
    """Make the section of a group.

    Args:
        layout: The study, with the arrangement of its report.
        group: Values of the settings `by`.
    """
    found = [
        make_table(layout.records, layout.rows, layout.columns, metric, group)
        for metric in layout.metrics
    ]
    tables = [table_part(table) for table in found if table.cells]
    if not layout.columns and len(tables) > 1:
        tables = [side_by_side(tables)]
    drawable = all(
        len(t["rows"]) <= _MOST_ROWS and len(t["header"]) - t["keys"] <= _MOST_COLUMNS
        for t in tables
    )
    pictures: list[dict[str, Any]] = []
    if drawable and found:
        metric = layout.main_metric
        pictures += curve_pictures(layout, metric, group)
        pictures += progress_pictures(layout, group)
        if any(cell.summary.n > 1 for cell in found[0].cells.values()):
            pictures.append(box_picture(layout, metric, group))
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
        for where in layout.curve_groups(group):
            needed = budgets_by_row(records, target.metric, target.value, layout.rows, where)
            if needed:
                yield {
                    "title": f"{records.budget_words} needed for "
                    f"{target.metric} {sign} {target.value:g}{beyond(where, group)}",
                    "rows": [
                        {"key": [show(v) for v in key], "text": str(value)}
                        for key, value in needed.items()
                    ],
                    "names": layout.rows,
                }
