"""Modicum: how far can a model get on a small budget of data?

The names here are the whole interface: experiments, families of algorithms included, use the
platform through `import modicum as md` alone. Heavy parts are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from modicum.atomic_files import whole_file, whole_folder
from modicum.cli.drawing_command import drawing_command
from modicum.errors import (
    InputError,
    StorageError,
    from_validation,
    reason_of,
    require_choice,
    unknown_name,
    validated,
)
from modicum.experiment.config import Config, setting
from modicum.experiment.experiment import Experiment
from modicum.experiment.metric import Metric, Record
from modicum.experiment.resources import Bundle, Resources
from modicum.experiment.trial import Trial
from modicum.lazy import lazy_exports
from modicum.library_logging import quiet_loggers, quiet_transformers
from modicum.planning.space import grid
from modicum.seeding import derive_seed, seeded

if TYPE_CHECKING:
    from modicum import data, oracles, training
    from modicum.models.saved import SavedModel, load_model, loading_model, save_model
    from modicum.results.figures import COLOURS
    from modicum.results.formatting import rendered
    from modicum.results.store import find_checkpoint
    from modicum.study import Study
    from modicum.study_results import Results, compare_runs, load_results
    from modicum.yaml_io import parse_settings

__all__ = [
    "COLOURS",
    "Bundle",
    "Config",
    "Experiment",
    "InputError",
    "Metric",
    "Record",
    "Resources",
    "Results",
    "SavedModel",
    "StorageError",
    "Study",
    "Trial",
    "compare_runs",
    "data",
    "derive_seed",
    "drawing_command",
    "find_checkpoint",
    "from_validation",
    "grid",
    "lazy_exports",
    "load_model",
    "load_results",
    "loading_model",
    "oracles",
    "parse_settings",
    "quiet_loggers",
    "quiet_transformers",
    "reason_of",
    "rendered",
    "require_choice",
    "save_model",
    "seeded",
    "setting",
    "training",
    "unknown_name",
    "validated",
    "whole_file",
    "whole_folder",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "COLOURS": "results.figures",
        "Results": "study_results",
        "SavedModel": "models.saved",
        "Study": "study",
        "compare_runs": "study_results",
        "data": "data",
        "find_checkpoint": "results.store",
        "load_model": "models.saved",
        "load_results": "study_results",
        "loading_model": "models.saved",
        "oracles": "oracles",
        "parse_settings": "yaml_io",
        "rendered": "results.formatting",
        "save_model": "models.saved",
        "training": "training",
    },
)
