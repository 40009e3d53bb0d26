"""Causal language models, loaded without dropout so that they can be trained, and their export."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from modicum.errors import InputError, require_choice
from modicum.library_logging import quiet_transformers
from modicum.models.hugging_face import find_model, load_pretrained

if TYPE_CHECKING:
    from torch import Tensor


Precision = Literal["fp32", "bf16", "fp16"]

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Name of each precision in torch."""
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
        dtype=DTYPES[precision],
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

    A model on the hub is not looked up. The arguments are those of `load_language_model`.

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


def export_language_model(
    language_model: LanguageModel, weights: Mapping[str, Tensor] | None, folder: Path
) -> None:
    """Write configuration, tokenizer and weights so that `from_pretrained` loads the model.

    Of a model with adapters, only the adapters are written, in peft's format:
    `peft.AutoPeftModelForCausalLM` or `transformers.AutoModelForCausalLM` loads them on top of the
    model that they were trained for.

    Args:
        language_model: Model as it was loaded. It is not changed, and its own weights may be
            sharded where `weights` has them.
        weights: Trained weights by their names in `language_model.model.named_parameters()`,
            written in the model's precision; None writes the model's own weights.
        folder: New or empty folder.

    Raises:
        ValueError: A weight is unknown, has another shape, or is sharded and not in `weights`; or
            the folder holds files, which would be mistaken for the model's.
    """
    _require_empty(folder)
    model = language_model.model
    with quiet_transformers():
        model.save_pretrained(folder, state_dict=_state_dict(model, weights or {}))
    language_model.tokenizer.save_pretrained(folder)


def merge_adapters(adapters: Path, folder: Path) -> None:
    """Merge adapters into the model that they were trained for, and write the whole model.

    Args:
        adapters: Folder that `export_language_model` wrote. The model it refers to must exist.
        folder: New or empty folder.

    Raises:
        ValueError: The folder holds files.
    """
    import peft
    import transformers

    _require_empty(folder)
    base = peft.PeftConfig.from_pretrained(str(adapters)).base_model_name_or_path
    with quiet_transformers():
        # AutoPeftModel would cut embeddings to the tokenizer's length.
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(base)
        merged = peft.PeftModel.from_pretrained(model, adapters).merge_and_unload()
        merged.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(adapters).save_pretrained(folder)


def _require_empty(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} must be new or empty")


def _state_dict(model: Any, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights and persistent buffers by name; tied weights under their first name only."""
    parameters = dict(model.named_parameters())
    unknown = sorted(set(weights) - set(parameters))
    if unknown:
        raise ValueError(f"the model has no weight {unknown[0]!r}")
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)} - set(parameters)
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    for name, weight in weights.items():
        state[name] = weight.detach().to(device="cpu", dtype=parameters[name].dtype)
    adapted = hasattr(model, "peft_config")
    for name, parameter in parameters.items():
        # DeepSpeed leaves an empty tensor where it has sharded a weight.
        shape = tuple(getattr(parameter, "ds_shape", parameter.shape))
        if tuple(state[name].shape) != shape and (parameter.requires_grad or not adapted):
            raise ValueError(f"{name}: expected the shape {shape}, got {tuple(state[name].shape)}")
    return state
