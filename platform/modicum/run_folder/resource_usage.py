"""Cost of a run on this machine: wall-clock time and peak memory."""

from __future__ import annotations

import threading
import time
from types import TracebackType

import psutil

_INTERVAL = 1.0  # seconds between two measurements


class ResourceUsage:
    """Measures time since its construction, and memory while its context is open.

    Memory is that of this process and all its descendants. Ray's workers are descendants if this
    process started the cluster; workers of another cluster or on other machines are not counted.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._peak = 0
        self._measuring = threading.Lock()
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
        """Wall-clock time since the construction."""
        return time.monotonic() - self._started

    @property
    def peak_memory(self) -> int:
        """Largest memory measured so far, in bytes; reading it measures once more."""
        self._measure()
        return self._peak

    def _watch(self) -> None:
        while not self._closed.is_set():
            self._measure()
            self._closed.wait(_INTERVAL)

    def _measure(self) -> None:
        with self._measuring:
            self._peak = max(self._peak, memory_of_tree(psutil.Process()))


def memory_of_tree(process: psutil.Process) -> int:
    """Memory of a process and all its descendants, in bytes.

    The sum of proportional set sizes (PSS), in which shared pages count once; of resident set
    sizes (RSS) on systems without PSS.
    """
    total = 0
    for member in [process, *process.children(recursive=True)]:
        # A process may end meanwhile.
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
