"""Titled tables of text, for a terminal or in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from modicum.results.formatting import (
    markdown_table,
    rendered,
    show,
    show_number,
    show_summary,
)
from modicum.results.run_comparison.cells import CellDifference, RunDifference


@dataclass(frozen=True)
class Block:
    """A titled table of text.

    Attributes:
        title: Title of the table.
        header: Titles of the columns.
        rows: Texts of each row; empty if there is only a remark.
        remark: Sentence below the table.
    """

    title: str
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    remark: str = ""

    def to_text(self, styled: bool = False) -> str:
        """Render the block for a terminal, if `styled` with escapes for bold."""
        if not self.rows:
            return f"{self.title}: {self.remark}\n"
        table = Table(box=box.SIMPLE_HEAD)
        for name in self.header:
            table.add_column(Text(name), no_wrap=True)
        for row in self.rows:
            table.add_row(*map(Text, row))
        remark = f"{self.remark}\n" if self.remark else ""
        return f"{self.title}\n{rendered(table, styled=styled)}{remark}"

    def to_markdown(self) -> str:
        """Write the block in Markdown."""
        lines = [f"**{self.title}**", ""]
        if self.rows:
            rows = [list(map(_escaped, row)) for row in self.rows]
            lines += [markdown_table(list(map(_escaped, self.header)), rows), ""]
        if self.remark:
            lines += [_escaped(self.remark), ""]
        return "\n".join(lines)


def result_blocks(difference: RunDifference) -> list[Block]:
    """Show the differences of two runs, a block for each metric."""
    title = f"Results: {difference.other} minus 1"
    if difference.refused is not None:
        return [Block(title, remark=difference.refused)]
    blocks = []
    by_metric: dict[str, list[CellDifference]] = {}
    for cell in difference.cells:
        by_metric.setdefault(cell.metric, []).append(cell)
    for metric, cells in by_metric.items():
        names = list(cells[0].where)
        header = [*names, "1", str(difference.other), "difference", "95% interval", "by", ""]
        equal = sum(cell.difference.mean == 0 for cell in cells)
        remark = f"{equal} of {len(cells)} cells have the same mean" if equal else ""
        rows = [[*(show(cell.where[name]) for name in names), *_texts(cell)] for cell in cells]
        blocks.append(Block(f"{title}, {metric}", header, rows, remark))
    if not blocks:
        blocks.append(Block(title, remark="the runs share no cell"))
    for number, only in ((1, difference.only_first), (difference.other, difference.only_other)):
        if only:
            rows = [[show(value) for value in where.values()] for where in only]
            blocks.append(Block(f"Cells only in {number}", list(only[0]), rows))
    return blocks


def _texts(cell: CellDifference) -> list[str]:
    found = cell.difference
    interval = "–"
    if found.low is not None and found.high is not None:
        interval = f"{show_number(found.low)} to {show_number(found.high)}"
    by = "–" if interval == "–" else f"{found.n} pairs" if cell.paired else "Welch"
    verdict = {True: "better", False: "worse", None: ""}[cell.better]
    sign = "+" if found.mean > 0 else ""
    return [
        show_summary(cell.first),
        show_summary(cell.other),
        sign + show_number(found.mean),
        interval,
        by,
        verdict,
    ]


def _escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("<", r"\<").replace("\n", " ")
