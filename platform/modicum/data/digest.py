"""Digests of data, by which a change of the data is noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

_LENGTH = 16


def digest_files(paths: Iterable[Path]) -> str:
    """Digest of the names and contents of files; their folders do not matter.

    A process reads a file again only if the file's size or modification time has changed.
    """
    return _digest((path.name, path) for path in sorted(paths, key=lambda path: path.name))


def digest_folder(folder: Path) -> str:
    """Digest of the relative paths and contents of all files under a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return _digest((path.relative_to(folder).as_posix(), path) for path in paths)


def _digest(named: Iterable[tuple[str, Path]]) -> str:
    total = hashlib.sha256()
    for name, path in named:
        status = path.stat()
        total.update(f"{name}\0".encode())
        total.update(_digest_file(path, status.st_size, status.st_mtime_ns))
    return total.hexdigest()[:_LENGTH]


@lru_cache(maxsize=4096)
def _digest_file(path: Path, size: int, time: int) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def digest_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Digest of the names, types, shapes and contents of arrays."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        total.update(array.tobytes())
    return total.hexdigest()[:_LENGTH]
