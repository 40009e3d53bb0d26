"""The report: one JSON document from results, shown as a page or as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from modicum.errors import InputError
from modicum.report.document import report_document
from modicum.report.markdown import render_markdown

if TYPE_CHECKING:
    import jinja2

    from modicum.results.results import Results

__all__ = [
    "render_live_page",
    "render_markdown",
    "render_report",
    "render_report_body",
    "report_document",
    "write_report",
]


def render_report(document: dict[str, Any]) -> str:
    """The document as one self-contained HTML page."""
    return _template("page.html.j2").render(document)


def render_report_body(document: dict[str, Any]) -> str:
    """The document as HTML that stands within a page."""
    return _template("body.html.j2").render(document)


def render_live_page(title: str, nonce: str) -> str:
    """The page that shows a report and a study's state as they change.

    Args:
        title: The page's title.
        nonce: Of its script, for the page's content policy.
    """
    return _template("live.html.j2").render(title=title, nonce=nonce)


def _template(name: str) -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("modicum", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def write_report(results: Results, path: str | Path) -> str:
    """Write the report; a place inside the run folder may be on any filesystem.

    Args:
        results: What to report.
        path: Markdown if it ends in `.md`, else HTML.

    Returns:
        Where it lies.

    Raises:
        InputError: The file cannot be written.
    """
    text = str(path)
    render = render_markdown if text.partition("?")[0].endswith(".md") else render_report
    page = render(report_document(results))
    try:
        member = results.folder.member(text)
        if member is not None:
            results.folder.write_text(page, member)
            return text
        target = Path(text).expanduser().absolute()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"report: {text!r} cannot be written ({error})") from error
    return str(target)
