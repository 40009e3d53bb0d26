"""The folders of data and of the cache on disk, which all processes of a machine share."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from filelock import FileLock

from modicum.errors import InputError

DATA_VARIABLE = "MODICUM_DATA"
CACHE_VARIABLE = "MODICUM_CACHE"
# The list of a key's arrays, written last.
_NAMES = "names.json"


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


def cached_arrays(
    key: str, compute: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Read named arrays from the cache, or compute and store them if they are missing.

    The arrays are memory-mapped and read-only, so the processes of a machine share one copy in
    memory. If several processes ask for the same key, one computes and the others wait.

    Args:
        key: Digest of everything on which the arrays depend.
        compute: Function that computes the arrays.
    """
    folder = cached_folder(key, _NAMES, lambda aside: _store(aside, compute()))
    names = json.loads((folder / _NAMES).read_text())
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}


def is_cached(key: str) -> bool:
    """True if the cache has the arrays of `cached_arrays` under a key."""
    return (cache_folder() / key / _NAMES).exists()


def cached_folder(key: str, member: str, write: Callable[[Path], None]) -> Path:
    """Find a folder in the cache, or write it if it is missing.

    If several processes ask for the same key, one writes and the others wait.

    Args:
        key: Digest of everything on which the folder's files depend.
        member: Name of a file that every complete folder has.
        write: Function that creates the folder it is given, with its files.
    """
    folder = cache_folder() / key
    if not (folder / member).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not (folder / member).exists():
                # An atomic write: a killed process leaves no incomplete folder.
                aside = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
                shutil.rmtree(aside, ignore_errors=True)
                write(aside)
                shutil.rmtree(folder, ignore_errors=True)
                aside.rename(folder)
    return folder


def _store(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / _NAMES).write_text(json.dumps(list(arrays)))
