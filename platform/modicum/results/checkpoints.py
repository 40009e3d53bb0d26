"""Saved models by the name of their folder, or of the run that kept them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modicum.errors import InputError
from modicum.experiment.setting_filters import agrees
from modicum.results.results import load_results


def find_checkpoint(location: str, file: str, field: str, needed: str, **settings: Any) -> Path:
    """A folder with a saved model: the one given, or a checkpoint of a run.

    Of a run it is the best checkpoint, else the last, of the first finished trial that has one.

    Args:
        location: Either folder.
        file: What shows a saved model.
        field: Setting to name in an error.
        needed: What a run must have, for the message.
        **settings: Only of trials with these.

    Raises:
        InputError: The location is neither, or the run has no such checkpoint.
    """
    folder = Path(location).expanduser()
    if (folder / file).is_file():
        return folder
    if not (folder / "plan.json").is_file():
        raise InputError(
            f"{field}: {location!r} is neither a saved model ({file}) nor a run (plan.json)"
        )
    results = load_results(folder)
    for trial in results.trials:
        if trial.status == "finished" and agrees(trial.columns, settings):
            saved = results.folder.read_json("trials", trial.id, "trial.json")
            where: str | None = saved["best_checkpoint"] or saved["checkpoint"]
            if where is not None and (folder / where / file).is_file():
                return folder / where
    raise InputError(f"{field}: {location!r} has no {needed}")
