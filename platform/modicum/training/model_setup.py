"""Preparing a model for training: loading it sharded, adding LoRA adapters, building its engine."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import nn

from modicum.errors import InputError
from modicum.models.language_models import LanguageModel
from modicum.seeding import seeded
from modicum.training.deepspeed_engine import DeepSpeedEngine
from modicum.training.deepspeed_setup import (
    deepspeed_config,
    effective_zero_stage,
    init_deepspeed,
    quiet_deepspeed,
)
from modicum.training.engine import Engine
from modicum.training.plain_engine import PlainEngine
from modicum.training.settings import TrainingSettings
from modicum.training.worker import Worker


@contextmanager
def loading(settings: TrainingSettings, worker: Worker) -> Iterator[None]:
    """Context in which `from_pretrained` loads only this worker's part of the weights (ZeRO 3).

    In the other ZeRO stages, and without workers, it does nothing.

    Raises:
        InputError: fp16 without GPUs.
    """
    if settings.workers == 0 or effective_zero_stage(settings) < 3:
        yield
        return
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    init_deepspeed(settings, worker)
    # Transformers only holds a weak reference to it.
    config = HfDeepSpeedConfig(deepspeed_config(settings, worker, []))  # type: ignore[no-untyped-call]
    try:
        with quiet_deepspeed():
            yield
    finally:
        del config
        unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]


def add_adapters(
    language_model: LanguageModel, settings: TrainingSettings, seed: int
) -> LanguageModel:
    """Add LoRA adapters, after which only the adapters are trained; rank 0 adds none.

    Adapters do not change the output at first. They have the precision of the weights.

    Args:
        language_model: Model whose layers are replaced in place.
        settings: Rank, scale, dropout and target layers of the adapters.
        seed: Seed of the adapters' initialisation, the same on every worker.

    Raises:
        InputError: peft is not installed, or `lora_targets` names a layer that the model lacks.
    """
    if settings.lora_rank == 0:
        return language_model
    try:
        import peft
    except ModuleNotFoundError as error:
        raise InputError(f"lora_rank: needs the package {error.name!r} (extra 'llm')") from error
    model = language_model.model
    config: Any = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=settings.lora_dropout,
        target_modules=_target_modules(model, settings.lora_targets),
    )
    with seeded(seed), warnings.catch_warnings():
        # peft warns that it detects transposed weights, which is no fault.
        warnings.filterwarnings("ignore", message="fan_in_fan_out")
        try:
            adapted = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
        except ValueError as error:
            raise _no_such_layer(model, settings.lora_targets) from error
    return replace(language_model, model=adapted.eval())


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


def _target_modules(model: Any, targets: str) -> str | list[str] | None:
    """Value for peft's `target_modules`; peft itself ignores a name that matches no layer."""
    if targets == "auto":
        return None
    if targets == "all-linear":
        return targets
    names = [name.strip() for name in targets.split(",")]
    layers = list(_linear_layers(model))
    for name in names:
        if not any(f".{layer}".endswith(f".{name}") for layer in layers) or not name:
            raise _no_such_layer(model, name)
    return names


def _no_such_layer(model: Any, targets: str) -> InputError:
    names = dict.fromkeys(name.rpartition(".")[2] for name in _linear_layers(model))
    return InputError(
        f"lora_targets: {targets!r} finds no layer of this model "
        f"(allowed: all-linear, or some of {', '.join(names)})"
    )


def _linear_layers(model: Any) -> Iterator[str]:
    from transformers.pytorch_utils import Conv1D

    return (n for n, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D))
