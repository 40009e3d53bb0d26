"""The choice of an engine by the settings."""

from __future__ import annotations

from torch import nn

from modicum.errors import InputError
from modicum.training.deepspeed_engine import DeepSpeedEngine
from modicum.training.engine import Engine
from modicum.training.plain_engine import PlainEngine
from modicum.training.settings import TrainingSettings
from modicum.training.worker import Worker


def build_engine(module: nn.Module, settings: TrainingSettings, worker: Worker) -> Engine:
    """Build the engine for a module that was loaded inside `loading`.

    Args:
        module: Module in its precision; its trainable parameters are trained.
        settings: Settings of training. With 0 workers the engine is a `PlainEngine`.
        worker: The calling worker; all workers of a group call.

    Raises:
        InputError: fp16 without GPUs or without workers.
    """
    if settings.workers:
        return DeepSpeedEngine(module, settings, worker)
    if settings.precision == "fp16":
        raise InputError(
            "training.precision: fp16 needs GPUs and training.workers; fp32 and bf16 do not, "
            "got 'fp16'"
        )
    return PlainEngine(module.to(worker.device), settings)
