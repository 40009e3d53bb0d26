"""Tables of cells (mean, sd, interval over seeds), with the best in each column marked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from modicum.results.statistics import Summary

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        summary: n, mean, sd and interval.
        rank: 1 for the best mean of the column, 2 for the second best, else None.
    """

    summary: Summary
    rank: Literal[1, 2] | None = None


@dataclass(frozen=True)
class Table:
    """Rows compared across columns on one metric.

    Attributes:
        metric: The metric.
        goal: Whether more or less is better; None marks nothing.
        row_names: Settings that make a row's key.
        column_names: Settings that make a column's key.
        rows: Row keys, in order.
        columns: Column keys, in order.
        cells: By row and column key; a combination that was not run has none.
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
        """The metric and what the whole table has in common."""
        common = ", ".join(f"{name} = {show(value)}" for name, value in self.where.items())
        return f"{self.metric} ({common})" if common else self.metric

    @property
    def header(self) -> list[str]:
        """Column titles, the row settings first."""
        columns = [", ".join(show(v) for v in key) or self.metric for key in self.columns]
        return [*self.row_names, *columns]

    @property
    def legend(self) -> str:
        """What columns and cells are; how the best are marked is for who shows them."""
        across = f"columns: {', '.join(self.column_names)}; " if self.column_names else ""
        return f"{across}mean ± sd (number of seeds)"

    def _lines(self, decorate: dict[int | None, str]) -> list[list[str]]:
        lines = []
        for row in self.rows:
            line = [show(value) for value in row]
            for column in self.columns:
                cell = self.cells.get((row, column))
                text = "–" if cell is None else show_summary(cell.summary)
                line.append(text if cell is None else decorate[cell.rank].format(text))
            lines.append(line)
        return lines

    def to_text(self, width: int | None = None, styled: bool = False) -> str:
        """The table for a terminal; `*` marks the best and `+` the second best.

        Args:
            width: Characters available; as wide as needed if None.
            styled: With terminal escapes for bold and underline.
        """
        from rich import box
        from rich.table import Table as RichTable

        marks = "* best, + second best; " if self.goal else ""
        across = f"columns: {', '.join(self.column_names)}; " if self.column_names else ""
        table = RichTable(
            title=self.title,
            caption=f"{across}{marks}mean ± sd (seeds)",
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
        """The table in Markdown; the best bold, the second best in italics."""
        lines = self._lines({None: "{}", 1: "**{}**", 2: "*{}*"})
        width = len(self.row_names)
        rule = ["---"] * width + ["--:"] * len(self.columns)
        rows = [self.header, rule, *lines]
        return "".join("| " + " | ".join(row) + " |\n" for row in rows)

    def to_latex(self) -> str:
        """A `tabular` for the booktabs package; the best bold, the second best underlined."""
        lines = self._lines({None: "{}", 1: r"\textbf{{{}}}", 2: r"\underline{{{}}}"})
        shape = "l" * len(self.row_names) + "r" * len(self.columns)
        body = [
            " & ".join(
                _latex(text) if index < len(self.row_names) else text.replace("±", r"$\pm$")
                for index, text in enumerate(line)
            )
            + r" \\"
            for line in lines
        ]
        head = " & ".join(_latex(name) for name in self.header) + r" \\"
        return "\n".join(
            [
                rf"\begin{{tabular}}{{{shape}}}",
                r"\toprule",
                head,
                r"\midrule",
                *[line.replace("–", "--") for line in body],
                r"\bottomrule",
                r"\end{tabular}",
                "",
            ]
        )

    def _repr_markdown_(self) -> str:
        marks = "; best bold, second best in italics" if self.goal else ""
        return f"**{self.title}**, {self.legend}{marks}\n\n{self.to_markdown()}"

    def __str__(self) -> str:
        return self.to_text()


def rank_cells(
    summaries: Mapping[tuple[Key, Key], Summary], goal: str | None
) -> dict[tuple[Key, Key], Cell]:
    """Mark the best and second-best mean of every column (none without a goal).

    Equal means share a rank, and leave out the one after: where two are best, none is second. A
    column with a single cell has no best.
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


@dataclass(frozen=True)
class Wins:
    """In how many cells of several tables a row leads.

    Attributes:
        best: Cells in which its mean is the best of the column.
        second: Cells in which it is the second best.
        cells: Cells that it has in columns with something to compare.
    """

    best: int = 0
    second: int = 0
    cells: int = 0

    @property
    def best_or_second(self) -> int:
        """Cells in which it is the best or the second best."""
        return self.best + self.second


def count_wins(tables: Sequence[Table]) -> dict[Key, Wins]:
    """How often each row is best and second best, over all columns of all tables.

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


def show(value: Any) -> str:
    """A setting's value as a person would write it; `–` where it has no effect."""
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def rendered(table: Any, width: int | None = None, styled: bool = False) -> str:
    """A table of rich's as text that is never cut off where no width is given.

    Args:
        table: Its columns should not wrap.
        width: Characters available; as wide as needed if None.
        styled: With terminal escapes for bold and underline.
    """
    import io

    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=width or 400, force_terminal=styled, color_system=None)
    console.print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def show_number(value: float | None, digits: int = 4) -> str:
    """A number with four decimals if it is small, fewer if it is large."""
    if value is None:
        return "–"
    size = abs(value)
    decimals = digits if size < 10 else 2 if size < 1000 else 1
    return f"{value:.{decimals}f}"


def show_duration(seconds: float) -> str:
    """Hours and minutes, minutes and seconds, or seconds (with a decimal if they are few)."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def show_summary(summary: Summary) -> str:
    """`mean ± sd (n)`."""
    spread = "" if summary.sd is None else f" ± {show_number(summary.sd)}"
    return f"{show_number(summary.mean)}{spread} ({summary.n})"


def _latex(text: str) -> str:
    for plain, escaped in (("\\", r"\textbackslash{}"), ("_", r"\_"), ("%", r"\%"), ("&", r"\&")):
        text = text.replace(plain, escaped)
    return text
