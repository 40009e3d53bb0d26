"""The commands of a study: `modicum run`, `validate`, `report` and `compare`."""

from __future__ import annotations

import math
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modicum.errors import InputError

if TYPE_CHECKING:
    from modicum.study_results import Results


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


def duration(text: str | None) -> float | None:
    """Seconds of a duration such as 90s, 10m or 2h; a number alone is seconds."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if found is None:
        raise InputError(f"--wait-for-resources: expected a time such as 90s or 10m, got {text!r}")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


Seeds = Annotated[int | None, typer.Option(help="Number of seeds, instead of the file's.")]
WaitForResources = Annotated[
    str | None,
    typer.Option(
        help="Cluster that grows on demand: longest wait for its first nodes, such as 10m; the "
        "study then also asks for more."
    ),
]
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


def run(
    config: Annotated[Path, typer.Argument(help="Study file (YAML).", show_default=False)],
    out: Annotated[
        str | None, typer.Option(help="Run folder or URI; runs/NAME if left out.")
    ] = None,
    seeds: Seeds = None,
    set_: Overrides = None,
    local: Annotated[bool, typer.Option("--local", help="In this process, without Ray.")] = False,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster (host:port).")] = None,
    cpus: Annotated[
        int | None, typer.Option(help="CPUs of the cluster started here.", min=1)
    ] = None,
    wait_for_resources: WaitForResources = None,
    tables: TableFormat = "text",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress display.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard/--no-tensorboard", help="Write TensorBoard logs.")
    ] = True,
) -> None:
    """Run a study. Running it again with the same folder continues or extends it."""
    from modicum.study import Study
    from modicum.yaml_io import parse_settings

    wait = duration(wait_for_resources)
    study = Study.from_yaml(config, overrides=parse_settings(set_ or [], "--set"), seeds=seeds)
    try:
        results = study.run(
            out,
            runner="local" if local else "ray",
            address=address,
            cpus=cpus,
            wait_for_resources=wait,
            quiet=quiet,
            tensorboard=tensorboard,
            command=shlex.join(["modicum", *sys.argv[1:]]),
        )
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        raise typer.Exit(130) from None
    _print_results(results, tables)
    if any(t.status in {"pending", "running"} or t.stopped_by == "request" for t in results.trials):
        print("stopped on request; run the same command again to continue", file=sys.stderr)
        raise typer.Exit(1)
    if results.failed:
        raise typer.Exit(1)


def validate(
    configs: Annotated[list[Path], typer.Argument(help="Study files.", show_default=False)],
    no_data: Annotated[
        bool, typer.Option("--no-data", help="Check names and values only, not the data.")
    ] = False,
) -> None:
    """Check study files without running anything."""
    from modicum.study import Study

    wrong = 0
    for path in configs:
        try:
            study = Study.from_yaml(path)
            trials = [] if no_data else study.trials
            listed = trials and study.spec.search is None
            count = len(trials) if listed else study.size
        except InputError as error:
            print(f"{path}: error: {str(error).removeprefix(f'{path}: ')}", file=sys.stderr)
            wrong += 1
            continue
        print(f"{path}: {count} trials")
    if wrong:
        raise typer.Exit(2)


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


def _print_results(results: Results, tables: str) -> None:
    for table in results.tables():
        if tables == "markdown":
            print(f"{table.title}\n\n{table.to_markdown()}")
        elif tables == "latex":
            print(f"% {table.title}\n{table.to_latex()}")
        else:
            print(table.to_text(styled=sys.stdout.isatty()))
    for trial in results.failed:
        place = results.folder.display("trials", trial.id, "error.txt")
        print(f"failed: {_printable(trial.error or '')} ({place})", file=sys.stderr)
    print(f"report: {results.folder.display('report.html')}")


def _printable(text: str) -> str:
    """Replace characters that would control a terminal by spaces."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
