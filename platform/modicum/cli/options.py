"""Options that several commands have, so that each has one name, one form and one text."""

from __future__ import annotations

from typing import Annotated

import typer

Seeds = Annotated[int | None, typer.Option(help="Number of seeds, instead of the file's.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Replace a setting: key=value, value as YAML. Repeatable."),
]
