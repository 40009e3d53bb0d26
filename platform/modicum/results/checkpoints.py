"""Saved models, found by the folder of the model or of the run that kept it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modicum.errors import InputError
from modicum.experiment.setting_filters import agrees
from modicum.results.store import load_records
from modicum.run_folder.trial_record import load_trial


def find_checkpoint(location: str, file: str, field: str, needed: str, **settings: Any) -> Path:
    """Find the folder of a saved model: the given folder, or a checkpoint of the given run.

    In a run, the first finished trial that has a checkpoint counts: its best checkpoint, or its
    last one if none is the best.

    Args:
        location: Folder of a model or of a run.
        file: Name of a file that every saved model has.
        field: Setting that an error names.
        needed: Description of the missing model, for an error.
        **settings: Settings that the trial must have.

    Raises:
        InputError: The location is neither folder, or the run has no such checkpoint.
    """
    folder = Path(location).expanduser()
    if (folder / file).is_file():
        return folder
    if not (folder / "plan.json").is_file():
        raise InputError(
            f"{field}: {location!r} is neither a saved model ({file}) nor a run (plan.json)"
        )
    records = load_records(folder)
    for trial in records.trials:
        if trial.status == "finished" and agrees(trial.columns, settings):
            saved = load_trial(records.folder, trial.id, with_log=False)
            where = saved.best_checkpoint or saved.checkpoint
            if where is not None and (folder / where / file).is_file():
                return folder / where
    raise InputError(f"{field}: {location!r} has no {needed}")
