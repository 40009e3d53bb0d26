"""Sharded training: workers of Ray Train with DeepSpeed inside, or one process without either."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modicum.experiment.journal import Journal
from modicum.lazy import lazy_exports
from modicum.models.language_models import Precision
from modicum.training.settings import TrainingSettings

if TYPE_CHECKING:
    from modicum.models.language_models import (
        DTYPES,
        LanguageModel,
        check_language_model,
        export_language_model,
        load_language_model,
        merge_adapters,
    )
    from modicum.training.deepspeed_setup import BUCKET
    from modicum.training.engine import Engine, Update
    from modicum.training.model_setup import add_adapters, build_engine, loading
    from modicum.training.plain_engine import PlainEngine
    from modicum.training.ray_data_pipeline import run_pipeline
    from modicum.training.worker import Worker
    from modicum.training.worker_group import journal_of, require_room, run_on_workers

__all__ = [
    "BUCKET",
    "DTYPES",
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
        "BUCKET": "deepspeed_setup",
        "DTYPES": ".models.language_models",
        "Engine": "engine",
        "LanguageModel": ".models.language_models",
        "PlainEngine": "plain_engine",
        "Update": "engine",
        "Worker": "worker",
        "add_adapters": "model_setup",
        "build_engine": "model_setup",
        "check_language_model": ".models.language_models",
        "export_language_model": ".models.language_models",
        "journal_of": "worker_group",
        "load_language_model": ".models.language_models",
        "loading": "model_setup",
        "merge_adapters": ".models.language_models",
        "require_room": "worker_group",
        "run_on_workers": "worker_group",
        "run_pipeline": "ray_data_pipeline",
    },
)
