"""A cache on disk, shared by all processes of a machine."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from filelock import FileLock

from modicum.data.location import cache_folder

# The list of a key's arrays, written last.
_NAMES = "names.json"


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
    """True if the cache has the arrays of `cached_arrays` under a key.

    Args:
        key: Digest of everything that the arrays depend on.
    """
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
