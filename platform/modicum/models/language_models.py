"""Causal language models, loaded without dropout so that they can be trained."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from modicum.errors import InputError, require_choice
from modicum.models.hugging_face import find_model, load_pretrained

Precision = Literal["fp32", "bf16", "fp16"]

_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with its tokenizer.

    Attributes:
        model: Model of transformers, or of peft if it has adapters, in evaluation mode and without
            dropout. Adapter dropout and activation checkpointing only act after `model.train()`.
        tokenizer: Tokenizer with a padding token, which may be the end-of-text token.
        context: Maximum number of tokens; None if there is no limit.
        identity: Text that changes with the weights and their precision.
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

    Inside transformers' `HfDeepSpeedConfig` with ZeRO 3, weights are sharded as they are loaded.

    Args:
        name: Name on the hub, a folder that `save_pretrained` wrote, or a GGUF file.
        revision: Branch, tag or commit on the hub.
        gguf_file: GGUF file in the folder or on the hub; not needed if a folder has only one.
        precision: Precision of the weights.
        activation_checkpointing: Recompute activations in the backward pass.
        device: Torch device; None for a GPU if there is one, else the CPU.
        field: Setting to name in an error about the model.

    Raises:
        InputError: There is no such model, it lacks weights or a padding token, or the device
            does not support the precision.
    """
    require_choice("precision", precision, Precision)
    loaded = load_pretrained(
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
    _set_padding_token(loaded.model, loaded.tokenizer, name, field)
    _disable_dropout(loaded.model)
    if activation_checkpointing:
        loaded.model.activation_checkpointing_enable({"use_reentrant": False})
    return LanguageModel(loaded.model, loaded.tokenizer, loaded.context, loaded.identity)


def check_language_model(
    name: str, *, revision: str | None = None, gguf_file: str | None = None, field: str = "model"
) -> None:
    """Check a model's name, and the files of a local folder, without loading the model.

    A model on the hub is not looked up.

    Args:
        name: Name on the hub, a folder that `save_pretrained` wrote, or a GGUF file.
        revision: Branch, tag or commit on the hub.
        gguf_file: GGUF file in the folder or on the hub.
        field: Setting to name in an error.

    Raises:
        InputError: There is no such folder or file, or the folder lacks the model's configuration,
            weights or tokenizer.
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


def _set_padding_token(model: Any, tokenizer: Any, name: str, field: str) -> None:
    """Give the tokenizer and the model a padding token for which the model has an embedding."""
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


def _disable_dropout(model: Any) -> None:
    """Set dropout to 0 in the layers, and in the configurations, which a saved model keeps."""
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        else:
            _zero_dropout(module)
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        _zero_dropout(config)


def _zero_dropout(owner: Any) -> None:
    """Set an object's float attributes named `...dropout`, `...pdrop` or `...layerdrop` to 0."""
    for name, value in vars(owner).items():
        if isinstance(value, float) and name.endswith(("dropout", "pdrop", "layerdrop")):
            setattr(owner, name, 0.0)
