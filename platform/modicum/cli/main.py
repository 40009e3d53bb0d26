"""The command line. Exit codes: 0 done, 1 some trial failed, 2 the input was wrong."""

from __future__ import annotations

import inspect
import os
import sys
import warnings

import typer

from modicum.cli.dashboard import dashboard
from modicum.cli.installation import describe, doctor, list_experiments
from modicum.cli.note import note
from modicum.cli.oracle import app as oracle_commands
from modicum.cli.study import compare, report, run, validate
from modicum.cli.submit import submit
from modicum.errors import InputError, StorageError
from modicum.experiment.registry import added_commands

app = typer.Typer(
    name="modicum",
    help="Experiments in data-efficient deep learning: budget is the x-axis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# In the order of `modicum --help`.
app.command()(run)
app.command()(report)
app.command()(compare)
app.command()(dashboard)
app.command()(note)
app.command(name="list")(list_experiments)
app.command()(describe)
app.command()(validate)
app.command()(doctor)
app.command()(submit)
app.add_typer(oracle_commands, name="oracle")


def _add_commands() -> None:
    """Register the commands of installed packages, once in a process."""
    registered = {command.name for command in app.registered_commands}
    registered |= {group.name for group in app.registered_groups}
    for name, point in added_commands().items():
        if name in registered:
            continue
        try:
            _add_command(name, point.load())
        except Exception as error:
            # A broken package must not disable the other commands.
            print(f"warning: the command {name!r} cannot be loaded: {error}", file=sys.stderr)


def _add_command(name: str, loaded: object) -> None:
    if isinstance(loaded, typer.Typer):
        app.add_typer(loaded, name=name)
    elif inspect.isfunction(loaded):
        app.command(name=name)(loaded)
    else:
        raise TypeError(f"expected a Typer application or a function, got {loaded!r}")


def main() -> None:
    """Run the command line; a user's mistake becomes one line and exit code 2."""
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
