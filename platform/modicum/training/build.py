"""The engine that the settings ask for."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from modicum.errors import InputError
from modicum.training.engine import Engine, PlainEngine
from modicum.training.settings import TrainingSettings
from modicum.training.worker import Worker

if TYPE_CHECKING:
    from torch import nn


def build_engine(module: nn.Module, settings: TrainingSettings, worker: Worker) -> Engine:
    """An engine for a module that was loaded under `loading`.

    Args:
        module: In its precision; its trainable parameters are what is trained.
        settings: Of training.
        worker: The one that calls; all of a group do.

    Raises:
        InputError: A precision that the worker's device has not.
    """
    if settings.workers == 0:
        if settings.precision == "fp16":
            raise InputError(
                "training.precision: fp16 needs GPUs and training.workers; fp32 and bf16 do not, "
                "got 'fp16'"
            )
        return PlainEngine(module.to(worker.device), settings)
    from modicum.training.sharded import DeepSpeedEngine

    return DeepSpeedEngine(module, settings, worker)


def loading(settings: TrainingSettings, worker: Worker) -> AbstractContextManager[None]:
    """Context for `from_pretrained`: with ZeRO 3 each worker keeps its part of the weights."""
    if settings.workers == 0:
        return nullcontext()
    from modicum.training import sharded

    return sharded.loading(settings, worker)
