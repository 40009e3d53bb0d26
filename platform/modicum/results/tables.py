"""Cells of a study beside each other: tables, counts of wins, paired comparisons of methods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from rich import box
from rich.table import Table as RichTable

from modicum.errors import InputError
from modicum.results.formatting import (
    markdown_table,
    rendered,
    show,
    show_number,
    show_settings,
    show_summary,
)
from modicum.results.layout import Objective, ReportLayout
from modicum.results.ranking import (
    Cell,
    best_first,
    ended_cells,
    summaries_of,
    trials_by_cell,
)
from modicum.results.records import (
    Key,
    StudyRecords,
    Where,
    outcomes_by_seed,
    stacked,
    values_by_seed,
)
from modicum.results.statistics import Difference, Summary, paired_difference


@dataclass(frozen=True)
class Table:
    """Rows compared across columns on one metric.

    Attributes:
        metric: Name of the metric.
        goal: `max` or `min`; with None no cell is marked.
        row_names: Settings that make a row's key.
        column_names: Settings that make a column's key.
        rows: Row keys, in order.
        columns: Column keys, in order.
        cells: Cells by row and column key, without the combinations that were not run.
        where: Settings that are the same in the whole table, shown in its title.
    """

    metric: str
    goal: str | None
    row_names: tuple[str, ...]
    column_names: tuple[str, ...]
    rows: Sequence[Key]
    columns: Sequence[Key]
    cells: Mapping[tuple[Key, Key], Cell]
    where: Mapping[str, Any]

    @property
    def title(self) -> str:
        """The metric, with the settings of the whole table."""
        return f"{self.metric} ({show_settings(self.where)})" if self.where else self.metric

    @property
    def header(self) -> list[str]:
        """Column titles, the row settings first."""
        columns = [", ".join(show(v) for v in key) or self.metric for key in self.columns]
        return [*self.row_names, *columns]

    @property
    def legend(self) -> str:
        """Explanation of columns and cells, without the marks of the best cells."""
        return f"{self._across}mean ± sd (number of seeds){self._early}"

    @property
    def _across(self) -> str:
        return f"columns: {', '.join(self.column_names)}; " if self.column_names else ""

    @property
    def _early(self) -> str:
        if all(cell.ended_at is None for cell in self.cells.values()):
            return ""
        return "; ended early: last value of a trial that a scheduler ended at this budget"

    def _lines(self, decorate: dict[int | None, str]) -> list[list[str]]:
        lines = []
        for row in self.rows:
            line = [show(value) for value in row]
            for column in self.columns:
                cell = self.cells.get((row, column))
                line.append("–" if cell is None else decorate[cell.rank].format(show_cell(cell)))
            lines.append(line)
        return lines

    def to_text(self, width: int | None = None, styled: bool = False) -> str:
        """Render the table for a terminal; `*` marks the best and `+` the second best.

        Args:
            width: Characters available; as many as the table needs if None.
            styled: Use terminal escapes for bold and underline.
        """
        marks = "* best, + second best; " if self.goal else ""
        table = RichTable(
            title=self.title,
            caption=f"{self._across}{marks}mean ± sd (seeds){self._early}",
            box=box.SIMPLE_HEAD,
            title_justify="left",
            caption_justify="left",
        )
        for index, name in enumerate(self.header):
            numeric = index >= len(self.row_names)
            table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
        decorate: dict[int | None, str] = {
            None: "{}  ",
            1: "[bold]{} *[/bold]",
            2: "[underline]{}[/underline] +",
        }
        for line in self._lines(decorate):
            table.add_row(*line)
        return rendered(table, width, styled)

    def to_markdown(self) -> str:
        """Write the table in Markdown; the best bold, the second best in italics."""
        lines = self._lines({None: "{}", 1: "**{}**", 2: "*{}*"})
        right = range(len(self.row_names), len(self.header))
        return markdown_table(self.header, lines, right) + "\n"

    def to_latex(self) -> str:
        """Write a `tabular` for the booktabs package; best bold, second best underlined."""
        keys = len(self.row_names)
        lines = [
            rf"\begin{{tabular}}{{{'l' * keys + 'r' * len(self.columns)}}}",
            r"\toprule",
            " & ".join(map(_latex, self.header)) + r" \\",
            r"\midrule",
        ]
        for line in self._lines({None: "{}", 1: r"\textbf{{{}}}", 2: r"\underline{{{}}}"}):
            cells = [text.replace("±", r"$\pm$") for text in line[keys:]]
            line = [*map(_latex, line[:keys]), *cells]
            lines.append(" & ".join(line).replace("–", "--") + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])

    def _repr_markdown_(self) -> str:
        marks = "; best bold, second best in italics" if self.goal else ""
        return f"**{self.title}**, {self.legend}{marks}\n\n{self.to_markdown()}"

    def __str__(self) -> str:
        return self.to_text()


def show_cell(cell: Cell, shown: Callable[[Summary], str] = show_summary) -> str:
    """Write a cell's summary, or a value with the budget at which a scheduler ended the trial."""
    if cell.ended_at is None:
        return shown(cell.summary)
    return f"{show_number(cell.summary.mean)} (ended early at {show(cell.ended_at)})"


def make_table(
    records: StudyRecords,
    rows: Sequence[str],
    columns: Sequence[str],
    metric: str,
    where: Where = None,
) -> Table:
    """Make a table of means over seeds."""
    cells = summaries_of(records, metric, [*rows, *columns], where)
    summaries = {(key[: len(rows)], key[len(rows) :]): found for key, found in cells.items()}
    filled_rows, filled_columns = ({key[side] for key in summaries} for side in (0, 1))
    goal = records.metric_info(metric)["goal"]
    return Table(
        metric=metric,
        goal=goal,
        row_names=tuple(rows),
        column_names=tuple(columns),
        rows=[key for key in records.keys(rows) if key in filled_rows],
        columns=[key for key in records.keys(columns) if key in filled_columns],
        cells=rank_cells(summaries, goal),
        where=where or {},
    )


def ranked_table(
    records: StudyRecords,
    rows: Sequence[str],
    metric: str,
    objective: Objective,
    where: Where = None,
) -> Table:
    """Make a table of configurations, the best by the objective first; see `best_first`.

    Only configurations whose trials have all finished get a rank. Trials that a scheduler ended
    early stand in the table with their last value.
    """
    order = best_first(records, rows, objective, where)
    trials = trials_by_cell(records, rows, where)
    cells: dict[tuple[Key, Key], Cell] = {
        (key, ()): cell for key, cell in ended_cells(records, metric, rows, where).items()
    }
    whole: dict[tuple[Key, Key], Summary] = {}
    for key, summary in summaries_of(records, metric, rows, where).items():
        cells[key, ()] = Cell(summary)
        if summary.n == len(trials[key]):
            whole[key, ()] = summary
    goal = objective.goal if metric == objective.metric else records.metric_info(metric)["goal"]
    return Table(
        metric=metric,
        goal=goal,
        row_names=tuple(rows),
        column_names=(),
        rows=[key for key in order if (key, ()) in cells],
        columns=[()],
        cells=cells | rank_cells(whole, goal),
        where=where or {},
    )


def report_table(layout: ReportLayout, metric: str, group: Mapping[str, Any]) -> Table:
    """Make the table of a metric in a study's report, for a group of `by`."""
    if (order := layout.order) is not None:
        return ranked_table(layout.records, layout.rows, metric, order, group)
    return make_table(layout.records, layout.rows, layout.columns, metric, group)


def tables_of(layout: ReportLayout, metrics: Sequence[str]) -> list[Table]:
    """Make the tables of a study's report, by metric and group."""
    return [report_table(layout, metric, group) for metric in metrics for group in layout.groups()]


def rank_cells(
    summaries: Mapping[tuple[Key, Key], Summary], goal: str | None
) -> dict[tuple[Key, Key], Cell]:
    """Mark the best and second-best mean of every column; without a goal mark none.

    Equal means share a rank, and the next rank is left out: where two are best, none is second.
    A column with a single cell has no best.
    """
    cells = {}
    for place, summary in summaries.items():
        # The mean of the same values in another order may differ in its last digits.
        column = {r: round(s.mean, 12) for (r, c), s in summaries.items() if c == place[1]}
        rank: Literal[1, 2] | None = None
        if goal is not None and len(column) > 1:
            mean = column[place[0]]
            better = sum(m > mean if goal == "max" else m < mean for m in column.values())
            rank = 1 if better == 0 else 2 if better == 1 else None
        cells[place] = Cell(summary, rank)
    return cells


def _latex(text: str) -> str:
    for plain, escaped in (("\\", r"\textbackslash{}"), ("_", r"\_"), ("%", r"\%"), ("&", r"\&")):
        text = text.replace(plain, escaped)
    return text


@dataclass(frozen=True)
class Wins:
    """Number of cells in which a row leads, over several tables.

    Attributes:
        best: Cells with the best mean of the column.
        second: Cells with the second-best mean.
        cells: Cells of the row in columns with at least two cells.
    """

    best: int = 0
    second: int = 0
    cells: int = 0

    @property
    def best_or_second(self) -> int:
        """Cells with the best or second-best mean."""
        return self.best + self.second


def count_wins(tables: Sequence[Table]) -> dict[Key, Wins]:
    """Count how often each row is best and second best, over all columns of all tables.

    Rows with equal means share a rank, and columns with a single cell are left out, as in
    `rank_cells`.
    """
    wins: dict[Key, Wins] = {}
    for table in tables:
        compared = {place: c for place, c in table.cells.items() if c.ended_at is None}
        filled = Counter(column for _, column in compared)
        for (row, column), cell in compared.items():
            before = wins.get(row, Wins())
            wins[row] = Wins(
                best=before.best + (cell.rank == 1),
                second=before.second + (cell.rank == 2),
                cells=before.cells + (filled[column] > 1),
            )
    return wins


def wins_by_row(layout: ReportLayout, metric: str) -> dict[Key, Wins]:
    """Count the wins of each row of a report, over the tables of all groups."""
    layout.records.goal(metric, "a count of wins")
    wins = count_wins(tables_of(layout, [metric]))
    return {key: wins[key] for key in layout.records.keys(layout.rows) if key in wins}


@dataclass(frozen=True)
class Comparison:
    """A cell of two methods, with their settings: first minus second, paired by seed."""

    where: Mapping[str, Any]
    first: Mapping[str, Any]
    second: Mapping[str, Any]
    difference: Difference


def compare_methods(
    records: StudyRecords,
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    metric: str,
    where: Where = None,
) -> list[Comparison]:
    """Compare two methods, given by the same settings, in every cell that both have."""
    if set(first) != set(second):
        raise InputError("compare: both sides must name the same settings")
    others = [n for n in records.varied if n not in first and n not in (where or {})]
    places = [{**(where or {}), **side} for side in (first, second)]
    sides = [values_by_seed(records, metric, others, place) for place in places]
    tested = [outcomes_by_seed(records, metric, others, place) for place in places]
    compared = []
    for key in records.keys(others):
        one, two = (side.get(key, {}) for side in sides)
        seeds = sorted(one.keys() & two.keys())
        if not seeds:
            continue
        rows = [stacked(side.get(key, {}), seeds) for side in tested]
        difference = paired_difference(
            [one[s] for s in seeds], [two[s] for s in seeds], _minus(*rows)
        )
        settings = {**(where or {}), **dict(zip(others, key, strict=True))}
        compared.append(Comparison(settings, first, second, difference))
    return compared


def _minus(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    """Difference of outcomes of the same test rows; None unless both have them."""
    if first is None or second is None or first.shape != second.shape:
        return None
    difference: np.ndarray = first - second
    return difference


def write_summary(layout: ReportLayout) -> None:
    """Write `summary.json`: n, mean, sd and interval of each cell, and the failures."""
    records = layout.records
    cells = []
    for metric in layout.metrics:
        for key, summary in summaries_of(records, metric, records.varied).items():
            settings = dict(zip(records.varied, key, strict=True))
            cells.append({"metric": metric, "settings": settings, **vars(summary)})
    failures = [
        {"trial_id": t.id, "seed": t.seed, "error": t.error, "settings": t.columns}
        for t in records.failed
    ]
    content = {"trials": records.status_counts(), "cells": cells, "failures": failures}
    records.folder.write_json(content, "summary.json")
