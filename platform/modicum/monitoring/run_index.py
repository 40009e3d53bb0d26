"""The runs in a folder, for an index: state, best value, time, tags and notes of each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from modicum.errors import InputError
from modicum.results.comparisons import compare_records
from modicum.results.formatting import show_settings
from modicum.results.layout import ReportLayout, report_layout
from modicum.results.ranking import find_best
from modicum.results.records import StudyRecords
from modicum.results.store import RESULTS, load_records
from modicum.run_folder.driver_status import STATUS, read_status
from modicum.run_folder.note_file import NOTE, read_note
from modicum.run_folder.plan_file import PLAN
from modicum.storage import StorageFolder

# A run that changes is read again after so many times as long as reading it took.
_PAUSE = 20
_LEAST_PAUSE = 5.0

Card = dict[str, Any]


class RunIndex:
    """Runs that lie directly in a folder.

    Args:
        location: Path or URI of the folder.
    """

    def __init__(self, location: str) -> None:
        self.folder = StorageFolder(location)
        self._cards: dict[str, Card] = {}
        self._stamps: dict[str, tuple[Any, ...]] = {}
        # Times from which a changed run may be read again.
        self._due: dict[str, float] = {}

    def names(self) -> list[str]:
        """Names of the folders that hold a run."""
        return [name for name in self.folder.folders() if self.folder.exists(name, PLAN)]

    def location(self, name: str) -> str:
        """Path or URI of a run.

        Raises:
            InputError: The folder holds no such run.
        """
        if name not in self.names():
            raise InputError(f"run: must be one of those in {self.folder.uri}, got {name!r}")
        return self.folder.display(name)

    def cards(self) -> list[Card]:
        """Entries of the index, as plain data; only runs that have changed are read."""
        names = self.names()
        for name in names:
            stamp = self._stamp(name)
            if stamp == self._stamps.get(name) or time.monotonic() < self._due.get(name, 0.0):
                continue
            started = time.monotonic()
            self._cards[name] = _card(self.folder.display(name), name)
            self._stamps[name] = stamp
            now = time.monotonic()
            self._due[name] = now + max(_LEAST_PAUSE, _PAUSE * (now - started))
        return [self._cards[name] for name in names]

    def compare(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Compare runs with the first of them: titled tables of text, as plain data.

        Raises:
            InputError: Fewer than two runs, or no such run.
        """
        runs = [load_records(self.location(name)) for name in names]
        if len(runs) < 2:
            raise InputError("compare: choose two runs or more")
        return [vars(block) for block in compare_records(report_layout(runs[0]), runs[1:]).blocks()]

    def _stamp(self, name: str) -> tuple[Any, ...]:
        paths = [self.folder.path(name, file) for file in (PLAN, STATUS, RESULTS, NOTE)]
        found = self.folder.filesystem.get_file_info(paths)
        return tuple((info.mtime_ns, info.size) for info in found)


def _card(location: str, name: str) -> Card:
    folder = StorageFolder(location)
    status, note = read_status(folder), read_note(folder)
    card: Card = {
        "name": name,
        "status": status and status.model_dump(mode="json"),
        "tags": note.tags,
        "note": note.text,
    }
    try:
        records = load_records(location)
        return card | _about(records, report_layout(records))
    except InputError as error:
        return card | {"study": name, "experiment": "", "counts": {}, "trouble": str(error)}


def _about(records: StudyRecords, layout: ReportLayout) -> Card:
    started = [trial.started for trial in records.trials if trial.started is not None]
    return {
        "study": str(records.spec.get("name", "")),
        "experiment": str(records.experiment["name"]),
        "counts": {status: n for status, n in records.status_counts().items() if n},
        "total": len(records.trials),
        "first_started": min(started, default=None),
        "started": max(started, default=None),
        "trouble": next(iter(records.damaged.values()), None),
        **_best(records, layout),
    }


def _best(records: StudyRecords, layout: ReportLayout) -> Card:
    try:
        found = find_best(records, layout.objective())
    except InputError:
        return {"metric": None, "best": None, "best_settings": ""}
    return {
        "metric": found.metric,
        "best": found.summary.mean,
        "best_settings": show_settings(found.varied),
    }
