"""Sharded training: workers of Ray Train with DeepSpeed inside, or one process without either."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modicum.experiment.journal import Journal
from modicum.lazy import lazy_exports
from modicum.models.language_models import Precision
from modicum.training.settings import TrainingSettings

if TYPE_CHECKING:
    from modicum.models.language_model_export import export_language_model, merge_adapters
    from modicum.models.language_models import (
        LanguageModel,
        check_language_model,
        load_language_model,
    )
    from modicum.training.adapters import add_adapters
    from modicum.training.build import build_engine, loading
    from modicum.training.engine import Engine, PlainEngine, Update
    from modicum.training.group import journal_of, run_on_workers
    from modicum.training.pipeline import require_room, run_pipeline
    from modicum.training.worker import Worker

__all__ = [
    "Engine",
    "Journal",
    "LanguageModel",
    "PlainEngine",
    "Precision",
    "TrainingSettings",
    "Update",
    "Worker",
    "add_adapters",
    "build_engine",
    "check_language_model",
    "export_language_model",
    "journal_of",
    "load_language_model",
    "loading",
    "merge_adapters",
    "require_room",
    "run_on_workers",
    "run_pipeline",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "build_engine": "build",
        "loading": "build",
        "Engine": "engine",
        "PlainEngine": "engine",
        "Update": "engine",
        "export_language_model": ".models.language_model_export",
        "merge_adapters": ".models.language_model_export",
        "journal_of": "group",
        "run_on_workers": "group",
        "LanguageModel": ".models.language_models",
        "add_adapters": "adapters",
        "check_language_model": ".models.language_models",
        "load_language_model": ".models.language_models",
        "require_room": "pipeline",
        "run_pipeline": "pipeline",
        "Worker": "worker",
    },
)
