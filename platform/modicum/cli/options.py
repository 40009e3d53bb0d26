"""Arguments and options that several commands share, so that each has one name, form and text."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from modicum.errors import InputError


def _known_format(tables: str) -> str:
    if tables not in {"text", "markdown", "latex"}:
        raise InputError(f"--tables: expected text, markdown or latex, got {tables!r}")
    return tables


def _markdown_file(path: str | None) -> str | None:
    if path is not None and not path.endswith(".md"):
        raise InputError(f"--markdown: expected a file that ends in .md, got {path!r}")
    return path


def _level(forecast: str | None) -> str | None:
    metric, _, level = (forecast or "").rpartition("=")
    try:
        known = forecast is None or bool(metric and math.isfinite(float(level)))
    except ValueError:
        known = False
    if not known:
        raise InputError(f"--forecast: expected METRIC=NUMBER, got {forecast!r}")
    return forecast


Seeds = Annotated[int | None, typer.Option(help="Number of seeds, instead of the file's.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Replace a setting: key=value, value as YAML. Repeatable."),
]
TableFormat = Annotated[str, typer.Option(help="text, markdown or latex.", callback=_known_format)]
MarkdownFile = Annotated[
    str | None,
    typer.Option(help="Also write it as Markdown to this file (.md).", callback=_markdown_file),
]
Forecast = Annotated[
    str | None,
    typer.Option(
        help="Also forecast the budget that reaches a level, to plan by: METRIC=NUMBER.",
        callback=_level,
    ),
]
