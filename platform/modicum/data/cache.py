"""Arrays that are computed once per machine and shared by every process on it."""

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
    folder = cache_folder() / key
    if not (folder / "names.json").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not (folder / "names.json").exists():
                _store(folder, compute())
    names = json.loads((folder / "names.json").read_text())
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}


def _store(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write beside the final place and rename: a killed process leaves no half a cache."""
    aside = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for name, array in arrays.items():
        np.save(aside / f"{name}.npy", array)
    (aside / "names.json").write_text(json.dumps(list(arrays)))
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
