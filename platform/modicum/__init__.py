"""Modicum: how far can a model get on a small budget of data?

The names here are the whole interface: experiments, families of algorithms included, use the
platform through `import modicum as md` alone. Heavy parts are imported when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from modicum.drawing import drawing_command
from modicum.errors import InputError, StorageError, reason_of, require_choice
from modicum.experiment import (
    Bundle,
    Config,
    Experiment,
    Metric,
    Record,
    Resources,
    setting,
)
from modicum.outputs import whole_file, whole_folder
from modicum.quiet import quiet_loggers, quiet_transformers
from modicum.space import grid
from modicum.trial import Trial, derive_seed

if TYPE_CHECKING:
    from modicum import data, oracles, training
    from modicum.results import Results, load_results
    from modicum.results.checkpoints import find_checkpoint
    from modicum.results.runs import compare_runs
    from modicum.results.tables import rendered
    from modicum.study import Study

__all__ = [
    "Bundle",
    "Config",
    "Experiment",
    "InputError",
    "Metric",
    "Record",
    "Resources",
    "Results",
    "StorageError",
    "Study",
    "Trial",
    "compare_runs",
    "data",
    "derive_seed",
    "drawing_command",
    "find_checkpoint",
    "grid",
    "load_results",
    "oracles",
    "quiet_loggers",
    "quiet_transformers",
    "reason_of",
    "rendered",
    "require_choice",
    "setting",
    "training",
    "whole_file",
    "whole_folder",
]

_LATER = {
    "Study": "modicum.study",
    "Results": "modicum.results",
    "compare_runs": "modicum.results.runs",
    "find_checkpoint": "modicum.results.checkpoints",
    "load_results": "modicum.results",
    "rendered": "modicum.results.tables",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    if name in {"data", "oracles", "training"}:
        return importlib.import_module(f"modicum.{name}")
    raise AttributeError(f"module 'modicum' has no attribute {name!r}")
