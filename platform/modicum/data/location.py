"""Locations of data and caches."""

from __future__ import annotations

import os
from pathlib import Path

from modicum.errors import InputError

DATA_VARIABLE = "MODICUM_DATA"
CACHE_VARIABLE = "MODICUM_CACHE"


def data_folder() -> Path | None:
    """The folder that `MODICUM_DATA` names; None if the variable is unset.

    Raises:
        InputError: The variable names no folder.
    """
    named = os.environ.get(DATA_VARIABLE)
    if not named:
        return None
    folder = Path(named).expanduser().absolute()
    if not folder.is_dir():
        raise InputError(f"{DATA_VARIABLE}: {named!r} is not a folder")
    return folder


def find_data(name: str, under: str = "", field: str = "dataset", *, file: bool = False) -> Path:
    """Find the folder or file of a data set, by its path or by a name under `MODICUM_DATA`.

    Args:
        name: `./folder`, an absolute path, or a name.
        under: Subfolder of `MODICUM_DATA` that holds the named data sets.
        field: Setting to name in an error.
        file: Look for a file instead of a folder.

    Raises:
        InputError: There is no such folder or file.
    """
    what, exists = ("file", Path.is_file) if file else ("folder", Path.is_dir)
    path = Path(name).expanduser()
    if path.is_absolute() or name.startswith("."):
        if not exists(path):
            raise InputError(f"{field}: no {what} at {name!r}")
        return path.absolute()
    root = data_folder()
    if root is None:
        raise InputError(
            f"{field}: {name!r} is a name under {DATA_VARIABLE}, which is unset; "
            "set the variable, or give a path that starts with '/' or './'"
        )
    place = root / under / name
    if not exists(place):
        available = sorted(p.name for p in (root / under).glob("*") if exists(p))
        raise InputError(
            f"{field}: no {name!r} under {root / under} (there: {', '.join(available) or 'none'})"
        )
    return place


def cache_folder() -> Path:
    """The cache's folder: `MODICUM_CACHE`, or `~/.cache/modicum`."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).expanduser().absolute() if named else Path.home() / ".cache" / "modicum"
