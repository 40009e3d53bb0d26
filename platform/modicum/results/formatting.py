"""Numbers, settings and tables as text."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from modicum.results.statistics import Summary


def show(value: Any) -> str:
    """Write a setting's value as a person would; `–` where the setting has no effect."""
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def show_settings(settings: Mapping[str, Any]) -> str:
    """Write settings as `name = value, ...`."""
    return ", ".join(f"{name} = {show(value)}" for name, value in settings.items())


def show_number(value: float | None, digits: int = 4) -> str:
    """Write a number with four decimals if it is small, fewer if it is large."""
    if value is None:
        return "–"
    size = abs(value)
    decimals = digits if size < 10 else 2 if size < 1000 else 1
    return f"{value:.{decimals}f}"


def show_p(p: float | None) -> str:
    """Write a p-value with two digits; `–` where there is none."""
    return "–" if p is None else f"{p:.2g}"


def show_duration(seconds: float) -> str:
    """Write hours and minutes, minutes and seconds, or seconds (below 10 with a decimal)."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def show_summary(summary: Summary) -> str:
    """Write `mean ± sd (n)`."""
    spread = "" if summary.sd is None else f" ± {show_number(summary.sd)}"
    return f"{show_number(summary.mean)}{spread} ({summary.n})"


def rendered(table: Table, width: int | None = None, styled: bool = False) -> str:
    """Render a table of `rich` as text.

    Args:
        table: Table whose columns do not wrap.
        width: Characters available; as many as the table needs if None.
        styled: Keep bold and underline, as terminal escapes.
    """
    stream = io.StringIO()
    console = Console(file=stream, width=width or 400, force_terminal=styled, color_system=None)
    console.print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def markdown_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[int] = ()
) -> str:
    """Write a pipe table in Markdown.

    Args:
        header: Column titles.
        rows: Texts of each row, escaped already.
        right: Positions of the columns that are aligned to the right.
    """
    rule = ["--:" if index in right else "---" for index in range(len(header))]
    return "\n".join(map(markdown_line, (header, rule, *rows)))


def markdown_line(cells: Iterable[str]) -> str:
    """Write a row of a pipe table."""
    return "| " + " | ".join(cells) + " |"
