"""The commands `modicum report` and `modicum compare`, which read run folders."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from modicum.cli.options import Forecast, MarkdownFile, TableFormat


def report(
    folder: Annotated[str, typer.Argument(help="Run folder or URI.", show_default=False)],
    out: Annotated[
        str | None, typer.Option(help="File to write; by default FOLDER/report.html.")
    ] = None,
    markdown: MarkdownFile = None,
    tables: TableFormat = "text",
    forecast: Forecast = None,
) -> None:
    """Write the report of a run folder, and print its tables."""
    from modicum.study_results import load_results

    results = load_results(folder)
    planned = None
    if forecast is not None:
        metric, level = forecast.rsplit("=", 1)
        planned = results.describe_forecasts(metric, float(level))
    where = results.report(out or results.folder.display("report.html"))
    also = None if markdown is None else results.report(markdown)
    for table in results.tables():
        text = {"markdown": table.to_markdown, "latex": table.to_latex}.get(tables)
        print(table.to_text(styled=sys.stdout.isatty()) if text is None else text())
    if planned is not None:
        print(planned)
    print(f"report: {where}" + (f", {also}" if also else ""))


def compare(
    runs: Annotated[
        list[str], typer.Argument(help="Run folders or URIs, two or more.", show_default=False)
    ],
    metric: Annotated[
        str | None, typer.Option(help="Metric; by default all of the first run's report.")
    ] = None,
    markdown: MarkdownFile = None,
) -> None:
    """Compare runs: settings, versions and results that differ."""
    from modicum.atomic_files import whole_file
    from modicum.study_results import compare_runs

    comparison = compare_runs(*runs, metric=metric)
    print(comparison.to_text(styled=sys.stdout.isatty()), end="")
    if markdown is not None:
        with whole_file(Path(markdown), "--markdown", overwrite=True) as file:
            file.write(comparison.to_markdown().encode())
