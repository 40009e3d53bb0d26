"""The report: one JSON document from results, one template that shows it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from modicum.errors import InputError
from modicum.report.document import report_document

if TYPE_CHECKING:
    from modicum.results import Results

__all__ = ["render_report", "report_document", "write_report"]


def render_report(document: dict[str, Any]) -> str:
    """The document as one self-contained HTML page."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("modicum", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(document)


def write_report(results: Results, path: str | Path) -> str:
    """Write the page; a place inside the run folder may be on any filesystem.

    Returns:
        Where it lies.

    Raises:
        InputError: The file cannot be written.
    """
    page = render_report(report_document(results))
    text = str(path)
    try:
        if text.startswith(results.folder.uri + "/"):
            results.folder.write_text(page, text.removeprefix(results.folder.uri + "/"))
            return text
        target = Path(text).expanduser().absolute()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"report: {text!r} cannot be written ({error})") from error
    return str(target)
