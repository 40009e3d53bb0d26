"""The command `modicum run`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modicum.cli.options import Overrides, Seeds, TableFormat

if TYPE_CHECKING:
    from modicum.study_results import Results


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
    tables: TableFormat = "text",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress display.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard/--no-tensorboard", help="Write TensorBoard logs.")
    ] = True,
) -> None:
    """Run a study. Running it again with the same folder continues or extends it."""
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
