"""Provenance of results: code version, packages, hardware, command, time and memory."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import subprocess
import sys
import threading
import time
import warnings
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, ConfigDict, Field

from modicum.errors import InputError, reason_of
from modicum.storage import StorageFolder

FILE = "provenance.json"

# File with the commit, in a package that was copied out of its repository.
PACKED_COMMIT = "modicum_commit.txt"

_INTERVAL = 1.0  # seconds between two measurements of memory

_PACKAGES = (
    "modicum",
    "ray",
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "transformers",
    "gymnasium",
    "deepspeed",
    "constriction",
)


def code_version(of: type) -> str | None:
    """The commit of the repository that holds a class, as `commit_of`, or its package's version."""
    module = sys.modules.get(of.__module__)
    source = getattr(module, "__file__", None)
    folder = Path(source).parent if source else Path.cwd()
    commit = commit_of(folder)
    if commit is not None:
        return commit
    top = of.__module__.split(".")[0]
    names = metadata.packages_distributions().get(top, [])
    return f"{names[0]} {metadata.version(names[0])}" if names else None


@cache
def commit_of(folder: Path) -> str | None:
    """The commit of the repository that a folder is in or was copied from; else None.

    Uncommitted changes show as `+` and a hash of the difference.
    """
    head = _git(folder, "rev-parse", "HEAD")
    if head is None:
        copied = (place / PACKED_COMMIT for place in (folder, *folder.parents))
        return next((path.read_text() for path in copied if path.is_file()), None)
    # An untracked folder inside some other repository is not that repository's code.
    if not (_git(folder, "ls-files", "--", ".") or "").strip():
        return None
    difference = _git(folder, "diff", "HEAD") or ""
    dirty = hashlib.sha256(difference.encode()).hexdigest()[:8] if difference.strip() else ""
    return head.strip()[:12] + (f"+{dirty}" if dirty else "")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def gather(command: str | None) -> dict[str, Any]:
    """Code version, packages, hardware and command of this process, as plain data."""
    return {
        "command": command or shlex.join(sys.argv),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit_of(Path(__file__).parent),
        "python": platform.python_version(),
        "packages": {name: v for name in _PACKAGES if (v := _version(name)) is not None},
        "hardware": {
            "machine": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "system": platform.platform(),
        },
    }


def write(folder: StorageFolder, command: str | None) -> None:
    """Write `provenance.json`; that of earlier runs in the folder is kept under `earlier`."""
    current = gather(command)
    try:
        before = read(folder)
    except InputError as error:
        place = folder.display(folder.set_aside(FILE))
        warnings.warn(f"{error}; it was moved to {place}", stacklevel=2)
        before = {}
    if before:
        current["earlier"] = [*before.pop("earlier", []), before]
    folder.write_json(current, FILE)


class _Run(BaseModel):
    """Facts of a run that reports use, where they are given."""

    model_config = ConfigDict(strict=True)

    command: str | None = None
    started: str | None = None
    commit: str | None = None
    python: str | None = None
    packages: dict[str, str] = Field(default_factory=dict)
    hardware: dict[str, Any] = Field(default_factory=dict)
    seconds: float = 0
    peak_memory_gib: float = 0


class _Provenance(_Run):
    earlier: list[_Run] = Field(default_factory=list)


def read(folder: StorageFolder) -> dict[str, Any]:
    """Read `provenance.json`; empty without the file.

    Raises:
        InputError: The file is damaged.
    """
    if not folder.exists(FILE):
        return {}
    try:
        content: dict[str, Any] = folder.read_json(FILE)
        _Provenance.model_validate(content)
    except (ValueError, RecursionError) as error:
        reason = reason_of(error, _Provenance)
    else:
        return content
    raise InputError(f"{folder.display(FILE)}: broken provenance ({reason})")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()


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

    def __exit__(self, *_: object) -> None:
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


def write_usage(folder: StorageFolder, usage: ResourceUsage) -> None:
    """Add the cost of the current run so far to `provenance.json`.

    `seconds` is wall-clock time, `peak_memory_gib` the largest memory of this process and its
    descendants at one moment.
    """
    current = read(folder)
    current["seconds"] = round(usage.seconds, 3)
    current["peak_memory_gib"] = round(usage.peak_memory / 2**30, 3)
    folder.write_json(current, FILE)


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
