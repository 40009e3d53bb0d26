"""Trained language models, written as Hugging Face folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modicum.library_logging import quiet_transformers
from modicum.models.language_models import LanguageModel

if TYPE_CHECKING:
    from torch import Tensor


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
