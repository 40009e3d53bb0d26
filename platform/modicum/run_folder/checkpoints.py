"""Checkpoints of trials in the run folder: `checkpoints/<trial>-<attempt>/checkpoint_<number>`."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from modicum.storage import StorageFolder

CHECKPOINTS = "checkpoints"
# Beside what the experiment saved: the checkpoint's trial, and the number of records before it.
_NOTE = "modicum_checkpoint.json"


def write_note(checkpoint: Path, trial_id: str, records: int) -> None:
    """Write into a checkpoint which trial saved it, after how many records."""
    (checkpoint / _NOTE).write_text(json.dumps({"trial": trial_id, "records": records}))


def records_before(checkpoint: Path) -> int:
    """Number of records that the trial had yielded when it saved the checkpoint."""
    return int(json.loads((checkpoint / _NOTE).read_text())["records"])


def is_complete(folder: StorageFolder, where: str) -> bool:
    """Tell whether a checkpoint has its note, which an interrupted deletion may have removed."""
    return folder.exists(*where.split("/"), _NOTE)


def prune(folder: StorageFolder, trial_id: str, keep: Collection[str | None]) -> None:
    """Delete a trial's checkpoints, except for those whose paths in the run folder are given."""
    for attempt in folder.folders(CHECKPOINTS):
        if not attempt.startswith(f"{trial_id}-"):
            continue
        names = folder.folders(CHECKPOINTS, attempt)
        dropped = [name for name in names if f"{CHECKPOINTS}/{attempt}/{name}" not in keep]
        if len(dropped) == len(names):
            folder.remove_folder(CHECKPOINTS, attempt)
            continue
        for name in dropped:
            folder.remove_folder(CHECKPOINTS, attempt, name)
