"""Causal language models, ready to be trained: loaded, without dropout, with adapters if wanted."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from modicum.errors import InputError, require_choice
from modicum.models.hugging_face import find_model, load_model
from modicum.training.settings import Precision, TrainingSettings

_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with its tokenizer.

    Attributes:
        model: In evaluation mode and without dropout; of transformers, or of peft with adapters.
            Adapters' dropout and activation checkpointing act after `model.train()` alone.
        tokenizer: Has a padding token, which may be the end-of-text token.
        context: Tokens at most; None if there is no limit.
        identity: Changes with the weights and their precision.
    """

    model: Any
    tokenizer: Any
    context: int | None
    identity: str


def load_language_model(
    name: str,
    *,
    revision: str | None = None,
    gguf_file: str | None = None,
    precision: Precision = "fp32",
    activation_checkpointing: bool = False,
    device: Any = None,
    field: str = "model",
) -> LanguageModel:
    """Load a causal language model to train it.

    Inside transformers' `HfDeepSpeedConfig` with ZeRO-3, weights are sharded as they are loaded.

    Args:
        name: Name on the hub, a folder that `save_pretrained` wrote, or a GGUF file.
        revision: Branch, tag or commit on the hub.
        gguf_file: GGUF file to take from the folder or the hub; not needed where a folder has one.
        precision: Of the weights.
        activation_checkpointing: Compute activations again in the backward pass.
        device: Torch device; a GPU if there is one.
        field: Setting to name in an error about the model.

    Raises:
        InputError: There is no such model, it lacks weights or a padding token, or the device
            cannot compute in this precision.
    """
    require_choice("precision", precision, Precision)
    loaded = load_model(
        "AutoModelForCausalLM",
        name,
        revision=revision,
        gguf_file=gguf_file,
        device=None if device is None else str(device),
        dtype=_DTYPES[precision],
        field=field,
    )
    if precision == "fp16" and loaded.device.type == "cpu":
        raise InputError("precision: fp16 needs a GPU; allowed here: fp32, bf16")
    _let_pad(loaded.model, loaded.tokenizer, name, field)
    _without_dropout(loaded.model)
    if activation_checkpointing:
        loaded.model.activation_checkpointing_enable({"use_reentrant": False})
    return LanguageModel(loaded.model, loaded.tokenizer, loaded.context, loaded.identity)


def check_language_model(
    name: str, *, revision: str | None = None, gguf_file: str | None = None, field: str = "model"
) -> None:
    """Find mistakes that cost nothing to find. A model on the hub is not looked up.

    Args:
        name: Name on the hub, a folder that `save_pretrained` wrote, or a GGUF file.
        revision: Branch, tag or commit on the hub.
        gguf_file: GGUF file to take from the folder or the hub.
        field: Setting to name in an error.

    Raises:
        InputError: There is no such folder or file, or a folder lacks the model's settings, its
            weights or its tokenizer.
    """
    found = find_model(name, revision=revision, gguf_file=gguf_file, field=field)
    if found.folder is None or found.gguf_file is not None:
        return
    if not (found.folder / "config.json").is_file():
        raise InputError(f"{field}: {name!r} has no config.json, which save_pretrained writes")
    try:
        json.loads((found.folder / "config.json").read_text())
    except ValueError as error:
        raise InputError(
            f"{field}: {name!r} has a config.json that is not JSON ({error})"
        ) from error
    if not any((found.folder / file).is_file() for file in _TOKENIZER_FILES):
        raise InputError(f"{field}: {name!r} has no tokenizer; save it into the same folder")
    if not any(file.suffix in {".safetensors", ".bin"} for file in found.folder.iterdir()):
        raise InputError(f"{field}: {name!r} has no weights (.safetensors or .bin)")


def add_adapters(
    language_model: LanguageModel, settings: TrainingSettings, seed: int
) -> LanguageModel:
    """The model with LoRA's adapters, which alone are trained; the same model for rank 0.

    Adapters change nothing at first. They have the precision of the weights.

    Args:
        language_model: Its layers are replaced in place.
        settings: Rank, scale, dropout and layers.
        seed: Of the adapters' first weights, the same on every worker.

    Raises:
        InputError: peft is not installed, or `lora_targets` names a layer that the model lacks.
    """
    if settings.lora_rank == 0:
        return language_model
    try:
        import peft
        import torch
    except ModuleNotFoundError as error:
        raise InputError(f"lora_rank: needs the package {error.name!r} (extra 'llm')") from error
    model = language_model.model
    config: Any = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=settings.lora_dropout,
        target_modules=_targets(model, settings.lora_targets),
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft warns that it sees by itself which layers keep their weights transposed.
        warnings.filterwarnings("ignore", message="fan_in_fan_out")
        torch.manual_seed(seed)
        try:
            adapted = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
        except ValueError as error:
            raise _no_such_layer(model, settings.lora_targets) from error
    return replace(language_model, model=adapted.eval())


def _targets(model: Any, targets: str) -> str | list[str] | None:
    """Layers as peft wants them; it would pass over a name among others that matches nothing."""
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


def _let_pad(model: Any, tokenizer: Any, name: str, field: str) -> None:
    """Give the tokenizer and the model a padding token that the model has an embedding of."""
    size = model.get_input_embeddings().num_embeddings
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= size:
        if tokenizer.eos_token_id is None:
            raise InputError(
                f"{field}: the tokenizer of {name!r} has no padding token and no end-of-text "
                "token; set its pad_token or eos_token and save it"
            )
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id


def _without_dropout(model: Any) -> None:
    """Switch dropout off, in the layers and in the settings that they and a saved model have."""
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        else:
            _zero_dropout(module)
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        _zero_dropout(config)


def _zero_dropout(settings: Any) -> None:
    """Set numbers whose names end as `dropout`, `attn_pdrop` and `layerdrop` do."""
    for name, value in vars(settings).items():
        if isinstance(value, float) and name.endswith(("dropout", "pdrop", "layerdrop")):
            setattr(settings, name, 0.0)
