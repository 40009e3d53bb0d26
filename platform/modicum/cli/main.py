"""The command line. Exit codes: 0 done, 1 some trial failed, 2 the input was wrong."""

from __future__ import annotations

import inspect
import os
import shlex
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from modicum.cli.options import Overrides, Seeds
from modicum.cli.oracle import app as oracle_commands
from modicum.cli.submit import submit
from modicum.errors import InputError, StorageError
from modicum.experiment.registry import added_commands, experiment_names, get_experiment

app = typer.Typer(
    name="modicum",
    help="Experiments in data-efficient deep learning: budget is the x-axis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Config = Annotated[Path, typer.Argument(help="Study file (YAML).", show_default=False)]


@app.command()
def run(
    config: Config,
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
    tables: Annotated[str, typer.Option(help="text, markdown or latex.")] = "text",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress display.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard/--no-tensorboard", help="Write TensorBoard logs.")
    ] = True,
) -> None:
    """Run a study. Running it again with the same folder continues or extends it."""
    if tables not in {"text", "markdown", "latex"}:
        raise InputError(f"--tables: expected text, markdown or latex, got {tables!r}")
    from modicum.study import Study
    from modicum.yaml_io import parse_settings

    study = Study.from_yaml(config, overrides=parse_settings(set_ or [], "--set"), seeds=seeds)
    try:
        results = study.run(
            out,
            runner="local" if local else "ray",
            address=address,
            cpus=cpus,
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


def _print_results(results: Any, form: str) -> None:
    for table in results.tables():
        if form == "markdown":
            print(f"{table.title}\n\n{table.to_markdown()}")
        elif form == "latex":
            print(f"% {table.title}\n{table.to_latex()}")
        else:
            print(table.to_text(styled=sys.stdout.isatty()))
    for trial in results.failed:
        place = results.folder.display("trials", trial.id, "error.txt")
        print(f"failed: {_plain(trial.error or '')} ({place})", file=sys.stderr)
    print(f"report: {results.folder.display('report.html')}")


def _plain(text: str) -> str:
    """Text without what would control a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


@app.command()
def report(
    folder: Annotated[str, typer.Argument(help="Run folder or URI.", show_default=False)],
    out: Annotated[
        str | None, typer.Option(help="File to write; FOLDER/report.html if left out.")
    ] = None,
    markdown: Annotated[
        str | None, typer.Option(help="Also write it as Markdown to this file (.md).")
    ] = None,
    tables: Annotated[str, typer.Option(help="text, markdown or latex.")] = "text",
) -> None:
    """Write the report of a run folder as it stands, and print its tables."""
    if tables not in {"text", "markdown", "latex"}:
        raise InputError(f"--tables: expected text, markdown or latex, got {tables!r}")
    if markdown is not None and not markdown.endswith(".md"):
        raise InputError(f"--markdown: expected a file that ends in .md, got {markdown!r}")
    from modicum.study_results import load_results

    results = load_results(folder)
    where = results.report(out or results.folder.display("report.html"))
    also = None if markdown is None else results.report(markdown)
    for table in results.tables():
        text = {"markdown": table.to_markdown, "latex": table.to_latex}.get(tables)
        print(table.to_text(styled=sys.stdout.isatty()) if text is None else text())
    print(f"report: {where}" + (f", {also}" if also else ""))


@app.command()
def compare(
    runs: Annotated[
        list[str], typer.Argument(help="Run folders or URIs, two or more.", show_default=False)
    ],
    metric: Annotated[
        str | None, typer.Option(help="The metric; those of the first run's report if left out.")
    ] = None,
    markdown: Annotated[
        str | None, typer.Option(help="Also write it as Markdown to this file (.md).")
    ] = None,
) -> None:
    """Show what differs between runs: settings, versions and results."""
    if markdown is not None and not markdown.endswith(".md"):
        raise InputError(f"--markdown: expected a file that ends in .md, got {markdown!r}")
    from modicum.atomic_files import whole_file
    from modicum.study_results import compare_runs

    comparison = compare_runs(*runs, metric=metric)
    print(comparison.to_text(styled=sys.stdout.isatty()), end="")
    if markdown is not None:
        with whole_file(Path(markdown), "--markdown", overwrite=True) as file:
            file.write(comparison.to_markdown().encode())


@app.command()
def dashboard(
    folder: Annotated[
        str | None, typer.Argument(help="Run folder or URI.", show_default=False)
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="A Ray cluster (host:port) whose running study is to be shown."),
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="Which one, where several run on the cluster.")
    ] = None,
    host: Annotated[str, typer.Option(help="Interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 for one that is free.", min=0)] = 0,
) -> None:
    """Watch a study while it runs: its report as it stands, what runs, and what can be stopped."""
    from modicum.cli.dashboard import show_dashboard

    show_dashboard(folder, address, study, host, port)


@app.command(name="list")
def list_() -> None:
    """List the experiments that are installed."""
    for name in experiment_names():
        try:
            experiment = get_experiment(name)
        except InputError as error:
            print(f"{name:16} not usable: {error}")
            continue
        summary = (type(experiment).__doc__ or "").strip().splitlines()[0]
        print(f"{name:16} budget: {experiment.budget_unit:14} {summary}")


@app.command()
def describe(
    experiment: Annotated[str, typer.Argument(help="Name of an experiment.", show_default=False)],
) -> None:
    """Show an experiment's settings (with defaults and units) and its metrics."""
    from modicum.experiment.config import settings_of

    found = get_experiment(experiment)
    print(f"{found.name} {found.version}; budget: {found.budget_unit}\n\nsettings")
    for info in settings_of(found.Config).values():
        default = "required" if info.required else f"default {info.default}"
        unit = f" {info.unit}" if info.unit else ""
        limits = "".join(f", {name} {value}" for name, value in info.limits.items())
        print(f"  {info.name}: {info.kind} ({default}{unit}{limits})\n      {info.description}")
        for other, values in (info.used_by or {}).items():
            print(f"      only with {other}: {', '.join(map(str, values))}")
    print("\nmetrics")
    for name, metric in found.metrics.items():
        goal = {"max": "more is better", "min": "less is better", None: ""}[metric.goal]
        notes = ", ".join(part for part in (metric.unit, goal) if part)
        print(f"  {name}: {metric.description}" + (f" ({notes})" if notes else ""))


@app.command()
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


@app.command()
def doctor() -> None:
    """Say what this machine has: versions, Ray's authentication, accelerators, keys, data."""
    from modicum.cli.doctor import findings

    for name, text in findings():
        print(f"{name:22} {text}")


app.command()(submit)
app.add_typer(oracle_commands, name="oracle")


def _add_commands() -> None:
    for name, point in added_commands().items():
        try:
            _add_command(name, point.load())
        except Exception as error:
            # Somebody's broken package must not take the other commands with it.
            print(f"warning: the command {name!r} cannot be loaded: {error}", file=sys.stderr)


def _add_command(name: str, loaded: object) -> None:
    if isinstance(loaded, typer.Typer):
        app.add_typer(loaded, name=name)
    elif inspect.isfunction(loaded):
        app.command(name=name)(loaded)
    else:
        raise TypeError(f"expected a Typer application or a function, got {loaded!r}")


def main() -> None:
    """Entry point: turn a user's mistake into one line and exit code 2."""
    warnings.showwarning = _show_warning
    _add_commands()
    try:
        app(standalone_mode=True)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except StorageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    if category is UserWarning or os.environ.get("PYTHONWARNINGS"):
        print(f"warning: {message}", file=sys.stderr)
