"""Commands that draw pictures of something: `python -m PACKAGE.pictures WHAT FOLDER`."""

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
    """Draw what two arguments name, and print where each file is.

    Args:
        usage: The command line, printed where there are not two arguments.
        draw: Takes what is drawn and the folder to draw into, and returns the files.
        arguments: Of the command line.
        said: What stands before each file.

    Returns:
        The exit code: 2 where the input was wrong.
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
