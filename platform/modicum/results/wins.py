"""Counts of the cells in which each row of a study's tables leads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from modicum.results.layout import ReportLayout
from modicum.results.records import Key
from modicum.results.tables import Table, tables_of


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
        filled = Counter(column for _, column in table.cells)
        for (row, column), cell in table.cells.items():
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
