"""Files and folders that appear under their name only once they are whole."""

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
    """A file open for writing, renamed to `path` at the end; removed if anything is raised.

    Args:
        path: Where the file shall be.
        field: Setting or option to name in an error.
        overwrite: Whether a file that is there is replaced.

    Raises:
        InputError: The file exists and shall not be overwritten, or cannot be written.
    """
    if path.is_dir():
        raise InputError(f"{field}: {str(path)!r} is a folder, a file is to be written")
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
    """A folder for writing, renamed to `path` at the end; removed if anything is raised.

    Args:
        path: Where the folder shall be.
        field: Setting or option to name in an error.

    Raises:
        InputError: There is something under its name, other than an empty folder, or it cannot be
            written.
    """
    # A rename replaces an empty folder, but not a link to one.
    path = path.resolve()
    if path.exists() and not path.is_dir():
        raise InputError(f"{field}: {str(path)!r} is a file, a folder is to be written")
    with _written(path, field) as temporary:
        if path.is_dir() and any(path.iterdir()):
            raise InputError(f"{field}: the folder {str(path)!r} is not empty")
        try:
            temporary.mkdir()
            yield temporary
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _written(path: Path, field: str) -> Iterator[Path]:
    """A temporary name beside `path`; folders made for it are removed if anything is raised."""
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
