"""Sharded training: workers of Ray Train with DeepSpeed inside, or one process without either."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from modicum.training.settings import TrainingSettings

if TYPE_CHECKING:
    from modicum.training.build import build_engine, loading
    from modicum.training.engine import Engine, PlainEngine, Update
    from modicum.training.group import run_on_workers
    from modicum.training.journal import Journal
    from modicum.training.worker import Worker

_WHERE = {
    "build_engine": "build",
    "loading": "build",
    "Engine": "engine",
    "PlainEngine": "engine",
    "Update": "engine",
    "run_on_workers": "group",
    "Journal": "journal",
    "Worker": "worker",
}

__all__ = [
    "Engine",
    "Journal",
    "PlainEngine",
    "TrainingSettings",
    "Update",
    "Worker",
    "build_engine",
    "loading",
    "run_on_workers",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"modicum.training.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'modicum.training' has no attribute {name!r}")
