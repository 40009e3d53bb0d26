"""The report as HTML, by templates that compute nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from modicum.report import phrases

TEMPLATES = Path(__file__).parent


def templates(*folders: Path) -> jinja2.Environment:
    """Load templates from folders; a template may include those of the report.

    Args:
        *folders: Folders to search before the report's.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["phrases"] = phrases
    return environment


def render_report(document: dict[str, Any]) -> str:
    """Render a report as one self-contained page."""
    return templates().get_template("page.html.j2").render(document)


def render_report_body(document: dict[str, Any]) -> str:
    """Render a report as the body of a page."""
    return templates().get_template("body.html.j2").render(document)
