"""Folders of running trials in the temporary folder of their machine."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import psutil

# The start of a process, read twice, may differ by the rounding of the machine's own start.
_SAME_START = 5.0


@contextlib.contextmanager
def scratch_folder(trial_id: str) -> Iterator[Path]:
    """An empty folder, removed at the end as far as that is possible.

    The first one of a process also removes those whose processes were killed. A folder's name has
    the machine, the process id and the time at which the process started.
    """
    parent = tempfile.gettempdir()
    remove_orphans(parent)
    me = psutil.Process()
    owner = f"{_mark()}{me.pid}-{me.create_time():.0f}"
    folder = Path(tempfile.mkdtemp(prefix=f"{owner}-{trial_id}-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@cache
def remove_orphans(parent: str) -> None:
    """Remove the scratch folders of this machine's processes that have ended."""
    named = re.compile(re.escape(_mark()) + r"(\d+)-(\d+)-")
    for folder in Path(parent).glob("modicum-*"):
        owner = named.match(folder.name)
        if owner and not _runs(int(owner[1]), float(owner[2])):
            shutil.rmtree(folder, ignore_errors=True)


def empty_copied(checkpoint: Path, scratch: Path) -> None:
    """Delete the files of a checkpoint that has been copied, if it lies in a scratch folder.

    The folder itself stays: an experiment may write its next checkpoint there.
    """
    if checkpoint == scratch or not checkpoint.resolve().is_relative_to(scratch.resolve()):
        return
    for entry in checkpoint.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _mark() -> str:
    """Start of the names of this machine's folders: containers may share a temporary folder."""
    return f"modicum-{socket.gethostname()}-"


def _runs(pid: int, started: float) -> bool:
    """Tell whether the process that started then still runs; its id may be another's by now."""
    try:
        return bool(abs(psutil.Process(pid).create_time() - started) < _SAME_START)
    except psutil.NoSuchProcess:
        return False
