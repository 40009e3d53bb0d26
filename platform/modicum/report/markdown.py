"""The report as Markdown: the document of the page without the pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from modicum.report import phrases
from modicum.results.formatting import markdown_table

_MARKS = {1: "**{}**", 2: "*{}*", None: "{}"}


def render_markdown(document: dict[str, Any]) -> str:
    """Render a report as Markdown; the best of a column bold, the second best in italics."""
    blocks = [
        *_head(document),
        *(block for section in document["sections"] for block in _section(section, document)),
        *_wins(document["wins"]),
        *_comparisons(document["comparisons"]),
        *_verdicts(document["verdicts"]),
        *_failures(document["failures"]),
        *_provenance(document["provenance"]),
    ]
    return "\n\n".join(blocks) + "\n"


def _head(document: dict[str, Any]) -> Iterable[str]:
    yield f"# {document['title']}"
    if document["description"]:
        yield document["description"]
    counts = "".join(f", {count} {status}" for status, count in document["counts"].items())
    yield (
        f"Experiment {document['experiment']}; budget is counted in {document['budget_unit']}; "
        f"{document['total']} trials{counts}."
    )
    if document["notes"]:
        yield _list(document["notes"])


def _section(section: dict[str, Any], document: dict[str, Any]) -> Iterable[str]:
    if not section["tables"]:
        return
    yield f"## {section['title'] or 'Results'}"
    for table in section["tables"]:
        yield f"### {table['title']}"
        rows = [
            [
                *row["key"],
                *(_MARKS[cell["rank"]].format(cell["text"]) for cell in row["cells"]),
            ]
            for row in table["rows"]
        ]
        yield _table(table["header"], rows, table["keys"])
        marks = "; best bold, second best in italics" if table["marked"] else ""
        yield f"{table['legend']}{marks}."
    if section["evaluation"]:
        yield f"### {phrases.EVALUATION_TITLE}"
        yield _table(section["evaluation"]["header"], section["evaluation"]["rows"])
        yield phrases.EVALUATION_LEGEND
    for budget in section["budgets"]:
        yield f"### {budget['title']}"
        rows = [[*row["key"], row["text"]] for row in budget["rows"]]
        yield _table([*budget["names"], document["budget_unit"]], rows)
    if section["budgets"]:
        yield phrases.BUDGET_LEGEND


def _wins(wins: dict[str, Any] | None) -> Iterable[str]:
    if wins is None:
        return
    yield "## Wins"
    rows = [[*row["key"], *map(str, row["counts"])] for row in wins["rows"]]
    yield _table([*wins["names"], *wins["header"]], rows, len(wins["names"]))
    yield f"{wins['metric']}: {phrases.WINS_LEGEND}"


def _comparisons(comparisons: dict[str, Any] | None) -> Iterable[str]:
    if comparisons is None:
        return
    yield f"## Against {comparisons['baseline']}"
    header = [title.format(comparisons["metric"]) for title in phrases.COMPARISON_HEADER]
    rows = [
        [
            row["first"],
            row["where"],
            f"**{row['difference']}**" if row["excludes_zero"] else row["difference"],
            row["interval"],
            row["p"],
            str(row["n"]),
        ]
        for row in comparisons["rows"]
    ]
    yield _table(header, rows, 2)
    yield phrases.COMPARISON_LEGEND


def _verdicts(verdicts: dict[str, Any] | None) -> Iterable[str]:
    if verdicts is None:
        return
    yield f"## Against {verdicts['source']}"
    yield ", ".join(f"{count} {verdict}" for verdict, count in verdicts["counts"].items()) + "."
    names = ("where", "published", "ours", "interval", "verdict", "direction")
    rows = [[row[name] for name in names] for row in verdicts["rows"]]
    yield _table(phrases.VERDICT_HEADER, rows, 1, numbers=3)
    legend = f"{verdicts['metric']}. {phrases.VERDICT_LEGEND}"
    if verdicts["baseline"]:
        legend += f". {phrases.DIRECTION_LEGEND.format(verdicts['baseline'])}"
    yield f"{legend}."
    if verdicts["reasons"]:
        yield _list(
            f"Not comparable ({entry['where']}): {entry['reason']}."
            for entry in verdicts["reasons"]
        )


def _failures(failures: Sequence[dict[str, Any]]) -> Iterable[str]:
    if failures:
        yield "## Failed trials"
        yield _list(f"{f['where']}, seed {f['seed']}: {f['error']} ({f['file']})" for f in failures)


def _provenance(facts: Sequence[dict[str, str]]) -> Iterable[str]:
    if facts:
        yield "## Provenance"
        yield _list(
            f"{fact['name']}: "
            + (f"`{fact['text']}`" if fact["name"] == "command" else fact["text"])
            for fact in facts
        )


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    keys: int | None = None,
    numbers: int | None = None,
) -> str:
    """Write a pipe table.

    Args:
        header: Column titles.
        rows: Texts of each row.
        keys: Number of leading columns aligned to the left; by default all columns.
        numbers: Number of columns after the keys aligned to the right; by default all of them.
    """
    first = len(header) if keys is None else keys
    last = len(header) if numbers is None else first + numbers
    lines = [list(map(_safe, row)) for row in rows]
    return markdown_table(list(map(_safe, header)), lines, range(first, last))


def _safe(text: str) -> str:
    """Escape what would end a cell."""
    return text.replace("|", "\\|").replace("\n", " ")
