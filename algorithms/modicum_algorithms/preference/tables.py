"""Tables 6.3 and D.1 to D.4 in Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from modicum_algorithms.preference.inspection import Row


@dataclass(frozen=True)
class WinRate:
    """Mean win-rate over a number of seeds, with its 95% interval if there are at least three."""

    mean: float
    low: float | None
    high: float | None
    seeds: int

    def __str__(self) -> str:
        interval = "" if self.low is None else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.mean:.3f}{interval} ({self.seeds})"


def win_rate_table(rates: Mapping[str, Mapping[float, WinRate]], unit: str) -> str:
    """Win-rates by budget, with a column for each acquisition and the best in bold (table 6.3)."""
    lines = []
    for budget in sorted({budget for column in rates.values() for budget in column}):
        row = {name: column[budget] for name, column in rates.items() if budget in column}
        # Rounded, as the order of a sum may change the last digits.
        best = max(round(rate.mean, 9) for rate in row.values())
        cells = [f"{budget:g}"]
        for name in rates:
            text = str(row.get(name, "–"))
            bold = name in row and len(row) > 1 and round(row[name].mean, 9) == best
            cells.append(f"**{text}**" if bold else text)
        lines.append(cells)
    return table([unit, *map(escaped, rates)], lines)


def prompts_table(evaluations: Iterable[Row], count: int) -> str:
    """The first prompts with the completions that they are judged against (tables D.1 and D.2)."""
    opponents: dict[str, str] = {}
    for row in evaluations:
        opponents.setdefault(row["prompt"], row["opponent"])
    lines = [list(map(escaped, texts)) for texts in opponents.items()]
    return table(["Prompt", "Judged against"], lines[:count])


def example_table(row: Row, number: int) -> str:
    """A completion, its opponent and the oracle's rationale (tables D.3 and D.4).

    A and B are the positions in which the oracle saw the two, as its rationale may name them.
    """
    ours, theirs = "Fine-tuned completion", "Opponent"
    letters = {"given": ("A: ", "B: "), "swapped": ("B: ", "A: ")}.get(row.get("order", ""))
    first, second = letters or ("", "")
    lines = [
        ["Prompt", row["prompt"]],
        [first + ours, row["completion"]],
        [second + theirs, row["opponent"]],
        ["Preference", first + ours if row["winner"] == "model" else second + theirs],
        ["Rationale", row["rationale"] or "–"],
    ]
    if row.get("order") == "swapped":
        lines[1], lines[2] = lines[2], lines[1]
    return table(["", f"Example {number}"], [[name, escaped(text)] for name, text in lines])


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table of cells in Markdown."""
    rows = [header, ["---"] * len(header), *lines]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def escaped(text: str) -> str:
    """A text escaped for one cell of a Markdown table."""
    text = html.escape(" ".join(re.split(r"[^\S\n]+", text)).strip(), quote=False)
    text = re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", text)
    return re.sub(r" ?\n\s*", "<br>", text)
