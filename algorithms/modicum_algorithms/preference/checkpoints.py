"""Checkpoints within a trial, and the folder with a trial's outcome."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import modicum as md
from modicum_algorithms.preference.policy import Policy
from modicum_algorithms.preference.scoring import trained_weights

Row = dict[str, float]

# The folder of the exported model in a trial's outcome.
MODEL = "model"

# Name of the weights in the journal, and of the note beside them.
_WEIGHTS = "weights"
_NOTE = "round.json"
_OUTCOME = "left"


def save_round(policy: Policy, i: int, rows: Sequence[Row], *, done: bool) -> None:
    """Keep weights and optimiser of round i in the journal, in place of what it had before.

    The rows of the round's updates so far are kept with them, and whether its fine-tuning is done.
    """

    def write(folder: Path) -> None:
        policy.engine.save(folder)
        if policy.worker.first:
            note = {"round": i, "done": done, "rows": list(rows)}
            (folder / _NOTE).write_text(json.dumps(note))

    policy.worker.keep_state(_WEIGHTS, write)


def load_round(policy: Policy, i: int, *, done: bool) -> list[Row] | None:
    """Load weights and optimiser from the end of round i (`done`), or from its middle.

    Returns:
        The rows that were saved with them; None if the journal has other weights or none.
    """
    with policy.worker.kept_state(_WEIGHTS) as folder:
        if folder is None:
            return None
        note = json.loads((folder / _NOTE).read_text())
        if (note["round"], note["done"]) != (i, done):
            return None
        policy.engine.load(folder)
        return list(note["rows"])


def keep_outcome(policy: Policy, files: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Keep the exported model and JSON-lines files of rows in the journal; returns their folder."""
    weights = trained_weights(policy.engine)
    worker = policy.worker
    if worker.first:
        folder = worker.scratch / _OUTCOME
        folder.mkdir()
        md.training.export_language_model(policy.language, weights, folder / MODEL)
        for file, rows in files.items():
            lines = (json.dumps(row) + "\n" for row in rows)
            (folder / file).write_text("".join(lines), encoding="utf-8")
        worker.journal.keep_folder(_OUTCOME, folder)
        shutil.rmtree(folder)
    return _OUTCOME
