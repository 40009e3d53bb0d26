"""What is computed once per machine and shared by every process on it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from filelock import FileLock

from modicum.data.location import cache_folder


def cached_arrays(
    key: str, compute: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Named arrays from the cache, computed and stored there if they are missing.

    They come back memory-mapped and read-only, so processes on one machine share a single
    copy in memory. Processes that ask for the same key at once wait for one of them.

    Args:
        key: Digest of everything that the arrays depend on.
        compute: Makes the arrays.
    """
    folder = cached_folder(key, "names.json", lambda aside: _store(aside, compute()))
    names = json.loads((folder / "names.json").read_text())
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}


def cached_folder(key: str, member: str, write: Callable[[Path], None]) -> Path:
    """A folder of the cache, written if it is missing.

    Processes that ask for the same key at once wait for one of them.

    Args:
        key: Digest of everything that its files depend on.
        member: A file that the folder has once it is written.
        write: Writes the files into the folder that it is given, which does not exist yet.
    """
    folder = cache_folder() / key
    if not (folder / member).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not (folder / member).exists():
                # Beside the final place, and renamed: a killed process leaves no half a cache.
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
    (folder / "names.json").write_text(json.dumps(list(arrays)))
