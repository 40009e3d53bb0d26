"""A report as a page and as Markdown, by templates that compute nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from modicum.errors import InputError
from modicum.report.document import report_document
from modicum.report.explorer import log_ends
from modicum.results.formatting import markdown_line, markdown_table
from modicum.results.layout import ReportLayout

_HERE = Path(__file__).parent
# Characters that could end the element or attribute of a page that holds JSON.
_UNSAFE = {ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&'"}
_MARKS = {1: "**{}**", 2: "*{}*", None: "{}"}


def templates(*folders: Path) -> jinja2.Environment:
    """Load templates from folders, the report's after the given ones.

    A template may include those of the report.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, _HERE]),
        autoescape=jinja2.select_autoescape(("html.j2",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["head"] = _head
    environment.globals["script"] = page_script
    environment.globals["digest"] = _digest
    environment.globals["plot_style"] = Markup(_read("uplot/uPlot.min.css"))
    environment.filters["json"] = _json
    environment.filters["cell"] = _cell
    environment.filters["line"] = lambda texts: markdown_line(map(_cell, texts))
    environment.filters["marked"] = lambda cell: _MARKS[cell["rank"]].format(cell["text"])
    return environment


@cache
def page_script() -> Markup:
    """The script of a report's page: uPlot, and our own code that draws with it."""
    return Markup("\n".join(map(_read, ("uplot/uPlot.iife.min.js", "charts.js", "explorer.js"))))


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


@cache
def _digest(script: str) -> str:
    """Digest of a script, by which a page's content policy allows it."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _json(data: object) -> Markup:
    """Write data as JSON that may stand in an element, or in single quotes as an attribute."""
    return Markup(json.dumps(finite(data), separators=(",", ":")).translate(_UNSAFE))


def finite(data: Any) -> Any:
    """Replace numbers that JSON lacks by None: a browser would refuse all of the data."""
    if isinstance(data, Mapping):
        return {name: finite(value) for name, value in data.items()}
    if isinstance(data, list):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def render_report(document: dict[str, Any]) -> str:
    """Render a report as one self-contained page."""
    return templates().get_template("page.html.j2").render(document)


def render_report_body(document: dict[str, Any]) -> str:
    """Render a report as the body of a page."""
    return templates().get_template("body.html.j2").render(document)


def render_markdown(document: dict[str, Any]) -> str:
    """Render a report as Markdown; the best of a column bold, the second best in italics."""
    return templates().get_template("report.md.j2").render(document).rstrip("\n") + "\n"


def write_report(layout: ReportLayout, path: str | Path) -> str:
    """Write the report of a study, as Markdown if the path ends in `.md`, else as HTML.

    A path inside the run folder may be on any filesystem. Returns the location of the file.

    Raises:
        InputError: The file cannot be written.
    """
    text = str(path)
    render = render_markdown if text.partition("?")[0].endswith(".md") else render_report
    document = report_document(layout)
    if render is render_report:
        document["explorer"]["logs"] = log_ends(layout.records)
    page = render(document)
    folder = layout.records.folder
    try:
        member = folder.member(text)
        if member is not None:
            folder.write_text(page, member)
            return text
        target = Path(text).expanduser().absolute()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"report: {text!r} cannot be written ({error})") from error
    return str(target)


def _head(header: Sequence[str], keys: int | None = None, numbers: int | None = None) -> str:
    """Write the head of a pipe table.

    The first `keys` columns, by default all, are aligned to the left, and the `numbers` columns
    after them, by default all others, to the right.
    """
    first = len(header) if keys is None else keys
    last = len(header) if numbers is None else first + numbers
    return markdown_table([_cell(title) for title in header], [], range(first, last))


def _cell(value: object) -> str:
    """Escape what would end a cell of a pipe table."""
    return str(value).replace("|", "\\|").replace("\n", " ")
