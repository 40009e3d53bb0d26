"""A trial in the run folder: its files in `trials/<id>/`, and its checkpoints.

The files are `trial.json` and `records.jsonl`; a trial that recorded outcomes of test rows has
`outcomes.npz` as well. Checkpoints lie in `checkpoints/<trial>-<attempt>/checkpoint_<number>`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from modicum.errors import InputError, reason_of
from modicum.planning.trial_plan import TrialPlan
from modicum.run_folder.outcomes import write_outcomes
from modicum.storage import StorageFolder

TRIALS = "trials"
CHECKPOINTS = "checkpoints"
# Beside what the experiment saved: the checkpoint's trial, and the number of records before it.
_NOTE = "modicum_checkpoint.json"
_FILE, _RECORDS = "trial.json", "records.jsonl"

TrialStatus = Literal["pending", "running", "finished", "failed", "stopped"]
StoppedBy = Literal["scheduler", "request"]

# Columns of results beside the metrics, and beside the settings (`config/...`).
COLUMNS = ("trial_id", "seed", "status", "record", "budget", "seconds")

_SURROGATE = re.compile("[\ud800-\udfff]")

# A table holds no larger whole number.
_LARGEST = 2**63 - 1

_PLANNED = ("id", "experiment", "version", "config", "columns", "seed", "digests")


class TrialRecord(BaseModel):
    """The contents of `trial.json`, with the trial's records from the file beside it.

    Attributes:
        id, experiment, version, config, columns, seed, digests: The trial's plan; see `TrialPlan`.
        status: `stopped` means ended early, not finished.
        attempt: Number of the trial's last start, from 0; -1 before the first one.
        commit: Version of the code that ran the trial.
        host: Machine that ran it.
        started: Time of the last start, in seconds since 1970.
        ended: Time of the end.
        error: One line about the failure.
        stopped_by: The study's `scheduler`, or somebody's `request`.
        checkpoint: Path of the last checkpoint in the run folder.
        best_checkpoint: Path of the best checkpoint by the experiment's selection metric.
        best_score: Score of the best checkpoint; larger is better.
        rows: The trial's records: `budget`, `seconds` and the metrics.
        outcomes: Outcome of each test row, by metric, as the trial's process recorded them last;
            those of an earlier process are only in the run folder.
    """

    # A newer program may write more.
    model_config = ConfigDict(extra="ignore")

    id: str
    experiment: str
    version: str
    config: dict[str, Any]
    columns: dict[str, Any]
    seed: int
    digests: dict[str, str]
    status: TrialStatus = "pending"
    attempt: int = -1
    commit: str | None = None
    host: str | None = None
    started: float | None = None
    ended: float | None = None
    error: str | None = None
    stopped_by: StoppedBy | None = None
    checkpoint: str | None = None
    best_checkpoint: str | None = None
    best_score: int | float | None = None
    rows: list[dict[str, Any]] = Field(default_factory=list, exclude=True)
    outcomes: dict[str, Any] = Field(default_factory=dict, exclude=True)
    # Number of the rows that lie in the trial's file already.
    _saved: int = PrivateAttr(default=0)

    @classmethod
    def pending(cls, plan: TrialPlan) -> TrialRecord:
        """A trial that has not started."""
        return cls.model_validate(plan.as_json())

    def with_plan(self, planned: TrialRecord) -> TrialRecord:
        """The trial with the planned settings, which may differ from its own in paths and names."""
        return self.model_copy(update={name: getattr(planned, name) for name in _PLANNED})

    @property
    def seconds(self) -> float | None:
        """Wall-clock time from the last start to the end; None while the trial runs."""
        if self.started is None or self.ended is None:
            return None
        return self.ended - self.started

    def put(self, index: int, row: dict[str, Any]) -> None:
        """Take a record in place of those from an index on."""
        if index < self._saved:
            self._saved = 0
        self.rows[index:] = [row]

    def value(self, metric: str) -> Any:
        """The metric's value in the last record that has it, or None."""
        return next((row[metric] for row in reversed(self.rows) if metric in row), None)


def is_recorded(folder: StorageFolder, trial_id: str) -> bool:
    """Tell whether the run folder has a `trial.json` of the trial."""
    return folder.exists(TRIALS, trial_id, _FILE)


def load_trial(folder: StorageFolder, trial_id: str) -> TrialRecord:
    """Read a trial from the run folder.

    Raises:
        InputError: The trial's files are damaged, or a finished trial lacks records.
    """
    try:
        content = folder.read_json(TRIALS, trial_id, _FILE)
        record = TrialRecord.model_validate(content | {"rows": []})
        text = folder.read_text(TRIALS, trial_id, _RECORDS)
        if record.status == "running":
            # The last line may be half written, now or by a driver that was killed.
            text = text[: text.rfind("\n") + 1]
        lines = text.splitlines()
        record.rows = [_row(line) for line in lines]
        # Older programs do not write the number; a trial has one record at least.
        written = content.get("records", max(1, len(lines)))
        if record.status == "finished" and len(lines) != written:
            raise ValueError(f"{_RECORDS} has {len(lines)} of {written} records")
    except FileNotFoundError:
        reason = "a file is missing"
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = reason_of(error, TrialRecord)
    else:
        return record
    place = folder.display(TRIALS, trial_id)
    raise InputError(f"{place}: broken records or state ({reason})")


def write_trial(folder: StorageFolder, record: TrialRecord) -> None:
    """Write a trial's files: records before status, so that a finished trial has all of them.

    New records are appended, where the filesystem can and none was replaced. Once a trial has
    ended, its records and checkpoints are on the disk before its status says so.
    """
    ended = record.status not in {"pending", "running"}
    first = record._saved if folder.local is not None else 0
    lines = "".join(json.dumps(row) + "\n" for row in record.rows[first:]).encode()
    write = folder.append_bytes if first else folder.write_bytes
    write(lines, TRIALS, record.id, _RECORDS, durable=ended)
    record._saved = len(record.rows)
    if record.outcomes:
        write_outcomes(folder, (TRIALS, record.id), record.outcomes, durable=ended)
    if ended:
        for checkpoint in {record.checkpoint, record.best_checkpoint} - {None}:
            folder.sync(str(checkpoint))
    content = record.model_dump() | {"records": len(record.rows)}
    folder.write_json(content, TRIALS, record.id, _FILE, durable=ended)


def set_aside_trial(folder: StorageFolder, trial_id: str) -> str:
    """Move a damaged trial's files and checkpoints to `damaged/<id>-<n>`; return that path."""
    place = folder.set_aside(TRIALS, trial_id)
    for attempt in _attempts(folder, trial_id):
        folder.move(f"{CHECKPOINTS}/{attempt}", f"{place}/{CHECKPOINTS}/{attempt}")
    return place


def trial_stamps(folder: StorageFolder) -> dict[str, dict[str, tuple[int, int]]]:
    """Time (ns) and size (bytes) of `trial.json` and `records.jsonl` of each recorded trial."""
    from pyarrow import fs

    selector = fs.FileSelector(folder.path(TRIALS), allow_not_found=True, recursive=True)
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for info in folder.filesystem.get_file_info(selector):
        if info.base_name in {_FILE, _RECORDS}:
            trial_id = info.path.rsplit("/", 2)[-2]
            found.setdefault(trial_id, {})[info.base_name] = (info.mtime_ns, info.size)
    return {trial_id: files for trial_id, files in found.items() if _FILE in files}


def _row(line: str) -> dict[str, Any]:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise TypeError("a record has to be a mapping")
    for name in ("budget", "seconds"):
        if not isinstance(row.get(name), int | float):
            raise TypeError(f"a record has to have a number as {name!r}")
    for name, value in row.items():
        check_value(name, value)
    return row


def check_value(name: str, value: object) -> None:
    """Check that results can hold a metric's value, when it is recorded and when it is read.

    Raises:
        ValueError: They cannot; names the metric and what is allowed.
    """
    if not (value is None or isinstance(value, int | float | str)):
        raise ValueError(f"metric {name!r} must be a number or text, got {type(value)}")
    if is_too_large(value):
        raise ValueError(
            f"metric {name!r} must lie between -(2**63 - 1) and 2**63 - 1 as a whole number; "
            "a larger one may be a float"
        )
    if not _is_unicode(name) or (isinstance(value, str) and not _is_unicode(value)):
        raise ValueError(f"metric {name!r} must be text that UTF-8 can encode, got {value!r}")


def is_too_large(value: object) -> bool:
    """Tell whether a value is a whole number that a table cannot hold."""
    return isinstance(value, int) and abs(value) > _LARGEST


def _is_unicode(text: str) -> bool:
    """Tell whether UTF-8 can encode a text: surrogates stand for bytes that were no text."""
    return _SURROGATE.search(text) is None


def write_note(checkpoint: Path, trial_id: str, records: int) -> None:
    """Write into a checkpoint which trial saved it, after how many records."""
    (checkpoint / _NOTE).write_text(json.dumps({"trial": trial_id, "records": records}))


def records_before(checkpoint: Path) -> int:
    """Number of records that the trial had yielded when it saved the checkpoint."""
    return _noted((checkpoint / _NOTE).read_bytes())


def kept_records_before(folder: StorageFolder, where: str) -> int | None:
    """Number of records before a checkpoint in the run folder; None without a readable note.

    An interrupted deletion may have removed the note, or a power failure emptied it.
    """
    try:
        return _noted(folder.read_bytes(where, _NOTE))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _noted(content: bytes) -> int:
    return int(json.loads(content)["records"])


def prune_checkpoints(folder: StorageFolder, trial_id: str, keep: Collection[str | None]) -> None:
    """Delete a trial's checkpoints, except for those whose paths in the run folder are given."""
    for attempt in _attempts(folder, trial_id):
        names = folder.folders(CHECKPOINTS, attempt)
        dropped = [name for name in names if f"{CHECKPOINTS}/{attempt}/{name}" not in keep]
        if len(dropped) == len(names):
            folder.remove_folder(CHECKPOINTS, attempt)
            continue
        for name in dropped:
            folder.remove_folder(CHECKPOINTS, attempt, name)


def _attempts(folder: StorageFolder, trial_id: str) -> list[str]:
    """Names of the folders with a trial's checkpoints, one for each start that saved any."""
    return [name for name in folder.folders(CHECKPOINTS) if name.startswith(f"{trial_id}-")]
