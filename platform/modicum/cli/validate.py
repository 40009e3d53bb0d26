"""The command `modicum validate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from modicum.errors import InputError


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
