"""LoRA adapters on a language model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from modicum.errors import InputError
from modicum.models.language_models import LanguageModel
from modicum.seeding import seeded
from modicum.training.settings import TrainingSettings


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
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return (n for n, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D))
