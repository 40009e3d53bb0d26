"""Tables of a report."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from modicum.report.texts import interval, show_count, whole
from modicum.results.cells import final_values
from modicum.results.formatting import show, show_summary
from modicum.results.layout import ReportLayout
from modicum.results.tables import Cell, Table

_EMPTY = {"text": "–", "rank": None, "interval": ""}


def table_part(table: Table) -> dict[str, Any]:
    """Make a table, its cells as text."""
    # Whole numbers that are neither good nor bad are sizes or counts.
    summaries = [cell.summary for cell in table.cells.values()]
    shown = show_count if table.goal is None and all(map(whole, summaries)) else show_summary

    def part(cell: Cell | None) -> dict[str, Any]:
        if cell is None:
            return _EMPTY
        found = cell.summary
        return {"text": shown(found), "rank": cell.rank, "interval": interval(found)}

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


def side_by_side(tables: list[dict[str, Any]]) -> dict[str, Any]:
    """Join tables of one column each into one table, a column for each metric."""
    lines: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for table in tables:
        for row in table["rows"]:
            lines.setdefault(tuple(row["key"]), [])
    for table in tables:
        cells = {tuple(row["key"]): row["cells"] for row in table["rows"]}
        for key, line in lines.items():
            line += cells.get(key, [_EMPTY])
    keys = tables[0]["keys"]
    return {
        "title": "Metrics",
        "header": tables[0]["header"][:keys]
        + [name for t in tables for name in t["header"][keys:]],
        "keys": keys,
        "legend": tables[0]["legend"],
        "marked": any(table["marked"] for table in tables),
        "rows": [{"key": list(key), "cells": line} for key, line in lines.items()],
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
