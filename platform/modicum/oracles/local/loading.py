"""Models of the transformers library: loaded, complete, and with an identity."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modicum.errors import InputError

_NO_LIMIT = 10**9  # tokenizers that know no limit have a number above this


@dataclass(frozen=True)
class LoadedModel:
    """A model with its tokenizer.

    Attributes:
        model: In evaluation mode, on the device.
        tokenizer: Of the same checkpoint.
        device: Torch device.
        context: Tokens at most; None if there is no limit.
        identity: Changes with the weights: digest of a folder's files, or name and commit.
    """

    model: Any
    tokenizer: Any
    device: Any
    context: int | None
    identity: str


def load_model(
    kind: str,
    name: str,
    *,
    revision: str | None = None,
    device: str | None = None,
    dtype: str = "auto",
) -> LoadedModel:
    """Load a checkpoint.

    Args:
        kind: Class of transformers, such as `AutoModelForCausalLM`.
        name: Name on the hub, or a folder that `save_pretrained` wrote.
        revision: Branch, tag or commit on the hub.
        device: Torch device; a GPU if there is one.
        dtype: Of the weights; `auto` is the checkpoint's own.

    Raises:
        InputError: transformers is not installed, the checkpoint cannot be loaded, or it lacks
            weights that `kind` needs, such as a head, which would be drawn at random.
    """
    try:
        import torch
        import transformers
    except ModuleNotFoundError as error:
        raise InputError(
            f"model: {name!r} needs the package {error.name!r} (extra 'oracles')"
        ) from error
    _require_dtype(dtype, torch)
    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(name, revision=revision)
        model, about = getattr(transformers, kind).from_pretrained(
            name, revision=revision, dtype=dtype, output_loading_info=True
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"model: {name!r} cannot be loaded ({reason})") from error
    missing = sorted(about["missing_keys"])
    if missing:
        raise InputError(
            f"model: {name!r} has no weights for {missing[0]!r}, which {kind} needs; it was "
            "trained for something else"
        )
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return LoadedModel(
        model=model.to(place).eval(),
        tokenizer=tokenizer,
        device=place,
        context=_context(model, tokenizer),
        identity=_identity(name, revision, model, dtype),
    )


def _require_dtype(dtype: str, torch: Any) -> None:
    if dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise InputError(
            f"dtype: must be 'auto' or a type of torch such as 'float32', got {dtype!r}"
        )


def _context(model: Any, tokenizer: Any) -> int | None:
    """Tokens that the model takes at most, by its tokenizer, settings and positions."""
    limits = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None)]
    for name, module in model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and padding is not None:
            # RoBERTa and its kin count positions from the padding's number onwards.
            limits.append(module.num_embeddings - padding - 1)
    return min((n for n in limits if n is not None and 0 < n < _NO_LIMIT), default=None)


def _identity(name: str, revision: str | None, model: Any, dtype: str) -> str:
    from modicum.data.digest import digest_folder

    folder = Path(name)
    if folder.is_dir():
        return f"folder:{digest_folder(folder)}:{dtype}"
    commit = getattr(model.config, "_commit_hash", None) or revision
    return f"hub:{name}@{commit}:{dtype}"
