"""Report of a study, written to a file."""

from __future__ import annotations

from pathlib import Path

from modicum.errors import InputError
from modicum.report.document import report_document
from modicum.report.html import render_report
from modicum.report.markdown import render_markdown
from modicum.results.layout import ReportLayout


def write_report(layout: ReportLayout, path: str | Path) -> str:
    """Write the report of a study; a path inside the run folder may be on any filesystem.

    Args:
        layout: The study, with the arrangement of its report.
        path: Markdown if it ends in `.md`, else HTML.

    Returns:
        Location of the file.

    Raises:
        InputError: The file cannot be written.
    """
    text = str(path)
    render = render_markdown if text.partition("?")[0].endswith(".md") else render_report
    page = render(report_document(layout))
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
