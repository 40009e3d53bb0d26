"""Atomic writes of files and folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from modicum.errors import InputError


@contextmanager
def whole_file(path: Path, field: str, overwrite: bool) -> Iterator[IO[bytes]]:
    """Open a temporary file that is renamed to `path` at the end of the block.

    It is removed if the block raises.

    Args:
        path: Path of the file.
        field: Setting or option to name in an error.
        overwrite: Whether to replace an existing file.

    Raises:
        InputError: The file exists and `overwrite` is False, or it cannot be written.
    """
    if path.is_dir():
        raise InputError(f"{field}: {str(path)!r} is a folder; give the path of a file")
    if path.exists() and not overwrite:
        raise InputError(f"{field}: {str(path)!r} exists; --overwrite replaces it")
    with _written(path, field) as temporary:
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, field: str) -> Iterator[Path]:
    """Create a temporary folder that is renamed to `path` at the end of the block.

    It is removed if the block raises.

    Raises:
        InputError: The path exists and is not an empty folder, or it cannot be written.
    """
    # A rename replaces an empty folder, but no link to one.
    path = path.resolve()
    if path.exists() and not path.is_dir():
        raise InputError(f"{field}: {str(path)!r} is a file; give the path of a folder")
    with _written(path, field) as temporary:
        if path.is_dir() and any(path.iterdir()):
            raise InputError(f"{field}: the folder {str(path)!r} is not empty; give a new one")
        try:
            temporary.mkdir()
            yield temporary
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _written(path: Path, field: str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; remove parent folders created for it on an error."""
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield path.with_name(f".{path.name}.{os.getpid()}.tmp")
    except BaseException as error:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise InputError(
                f"{field}: {str(path)!r} cannot be written ({error.strerror or error})"
            ) from error
        raise
