"""A trained model as a folder: its description as JSON, its weights as safetensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modicum.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SavedModel:
    """The contents of a model's folder.

    Attributes:
        description: What the model is built from, plain data.
        weights: Tensors by name, for each part of the model.
    """

    description: Mapping[str, Any]
    weights: Mapping[str, Mapping[str, Tensor]]


def save_model(
    folder: Path,
    description: Mapping[str, Any],
    weights: Mapping[str, Mapping[str, Tensor]],
    *,
    name: str = "model",
) -> None:
    """Write `<name>.json`, and a file `<part>.safetensors` for each part of the weights.

    Args:
        folder: Made where it does not exist.
        description: What JSON can hold; scalars of NumPy count as Python's.
        weights: Tensors by name, for each part of the model.
        name: Stem of the JSON file.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    for part, tensors in weights.items():
        contiguous = {key: value.detach().contiguous() for key, value in tensors.items()}
        save_file(contiguous, folder / f"{part}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps(description, indent=1, default=_plain))


def load_model(folder: str | Path, *, name: str = "model") -> SavedModel:
    """Read what `save_model` wrote.

    Args:
        folder: The model's folder.
        name: Stem of the JSON file.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: A file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    description = json.loads((folder / f"{name}.json").read_text())
    try:
        weights = {file.stem: load_file(file) for file in sorted(folder.glob("*.safetensors"))}
    except SafetensorError as error:
        raise ValueError(f"{folder}: {error}") from error
    return SavedModel(description, weights)


@contextmanager
def loading_model(folder: str | Path, kind: str, field: str) -> Iterator[None]:
    """Turn whatever is wrong with a model's folder into one sentence for its user.

    Args:
        folder: The folder that is read in the block.
        kind: What the folder should hold, such as `VAE`.
        field: Setting or option to name in the error.

    Raises:
        InputError: Reading the folder, or building the model from it, failed.
    """
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(f"{field}: {str(folder)!r} holds no saved {kind}") from error


def _plain(value: Any) -> Any:
    """A NumPy scalar as Python's own."""
    import numpy as np

    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
