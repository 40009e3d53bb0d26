"""Command lines that draw figures: `python -m PACKAGE.plots WHAT FOLDER`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from modicum.errors import InputError


def drawing_command(
    usage: str,
    draw: Callable[[str, Path], Iterable[Path]],
    arguments: Sequence[str],
    *,
    said: str = "picture",
) -> int:
    """Draw what the first argument names into the folder of the second, and print the files.

    Args:
        usage: Command line to print unless there are two arguments.
        draw: Function of the first argument and the folder that returns the files it wrote.
        arguments: Arguments of the command line.
        said: Word to print before each file.

    Returns:
        The exit code: 2 if the input was wrong, else 0.
    """
    if len(arguments) != 2:
        print(f"usage: {usage}")
        return 2
    drawn, folder = arguments
    try:
        for path in draw(drawn, Path(folder)):
            print(f"{said}: {path}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
