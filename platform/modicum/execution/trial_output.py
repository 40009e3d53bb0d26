"""Capture of all that a trial and its subprocesses print, at the file descriptors."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TextIO

_OUT, _ERR = 1, 2
_C = ctypes.CDLL(None)


class TrialOutput:
    """The log of one trial: its logger's lines, and all that is written to the descriptors 1 and 2.

    Args:
        file: The log file, which is appended to; None for a temporary file, emptied by `take`.

    Attributes:
        logger: The logger for the trial's own lines.
    """

    def __init__(self, file: Path | None) -> None:
        self._kept = file is not None
        try:
            self._file = _open(file or _temporary())
        except OSError:
            # Where a trial cannot write the run folder, the driver may, and else it says so.
            self._kept = False
            self._file = _open(_temporary())
        if not self._kept:
            os.unlink(self._file.name)
        handler = logging.StreamHandler(self._file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self.logger = logging.Logger("modicum.trial")
        self.logger.addHandler(handler)

    def close(self) -> None:
        """Close the file; lines that a full disk did not take are lost."""
        with contextlib.suppress(OSError):
            self._file.close()

    @contextlib.contextmanager
    def capture(self) -> Iterator[None]:
        """Send to the log what this process and the processes that it starts print in a block."""
        before = sys.stdout, sys.stderr
        _flush(*before)
        saved = [(os.dup(descriptor), descriptor) for descriptor in (_OUT, _ERR)]
        for _, descriptor in saved:
            os.dup2(self._file.fileno(), descriptor)
        try:
            with (
                contextlib.redirect_stdout(_stream(_OUT)),
                contextlib.redirect_stderr(_stream(_ERR)),
            ):
                try:
                    yield
                finally:
                    _flush(_stream(_OUT), _stream(_ERR), *before)
        finally:
            for copy, descriptor in saved:
                os.dup2(copy, descriptor)
                os.close(copy)

    def take(self) -> bytes:
        """Output since the last call; nothing where it lies in the log file already."""
        if self._kept:
            return b""
        descriptor = self._file.fileno()
        content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        os.truncate(descriptor, 0)
        return content


def undiverted_stderr() -> TextIO:
    """The program's standard error, which no trial's capture takes along."""
    try:
        diverted = sys.stderr.fileno() == _ERR
    except (AttributeError, OSError):
        diverted = False
    return os.fdopen(os.dup(_ERR), "w", buffering=1) if diverted else sys.stderr


def _open(file: Path) -> TextIO:
    return file.open("a+", buffering=1, encoding="utf-8", errors="backslashreplace")


def _temporary() -> Path:
    descriptor, name = tempfile.mkstemp(prefix="modicum-log-")
    os.close(descriptor)
    return Path(name)


@cache
def _stream(descriptor: int) -> TextIO:
    """A stream to a descriptor, the same for all trials.

    A logging handler that one trial made with it writes to the log of whichever trial runs.
    """
    return open(
        descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )


def _flush(*streams: TextIO | None) -> None:
    for stream in streams:
        if stream is not None:
            stream.flush()
    _C.fflush(None)
