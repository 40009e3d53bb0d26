"""What a run costs this machine: wall-clock time and the most memory held at once."""

from __future__ import annotations

import threading
import time
from types import TracebackType

import psutil

_INTERVAL = 1.0  # seconds between two looks


class ResourceUsage:
    """Counts time from when it is made, and memory while its context is open.

    Memory is that of this process and all its descendants.

    Ray's workers are descendants where the cluster was started by this process; those of a
    cluster that was there before, and of other machines, are not seen.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._peak = 0
        self._looking = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="modicum-usage", daemon=True)

    def __enter__(self) -> ResourceUsage:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """Wall-clock time since it was made."""
        return time.monotonic() - self._started

    @property
    def peak_memory(self) -> int:
        """The most memory seen so far, in bytes; this is a look of its own, too."""
        self._look()
        return self._peak

    def _watch(self) -> None:
        while not self._closed.is_set():
            self._look()
            self._closed.wait(_INTERVAL)

    def _look(self) -> None:
        with self._looking:
            self._peak = max(self._peak, memory_of_tree(psutil.Process()))


def memory_of_tree(process: psutil.Process) -> int:
    """Memory of a process and all its descendants, in bytes.

    Pages that processes share count once in all, by the proportional set size (PSS), where the
    system tells it; elsewhere the resident set sizes (RSS) are summed.
    """
    total = 0
    for member in [process, *process.children(recursive=True)]:
        # Processes end while they are looked at.
        try:
            total += _memory_of(member)
        except psutil.NoSuchProcess:
            continue
    return total


def _memory_of(process: psutil.Process) -> int:
    try:
        full = process.memory_full_info()
    except psutil.AccessDenied:
        return int(process.memory_info().rss)
    return int(getattr(full, "pss", 0) or full.rss)
