"""A trained model as a folder: its description as JSON, its weights as safetensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from modicum.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


# Errors from damaged files, and from building a model of a wrong description or wrong weights.
_LOADING_ERRORS = (
    OSError,
    SafetensorError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
)


@dataclass(frozen=True)
class SavedModel:
    """The contents of a model's folder.

    Attributes:
        description: The model's configuration, as plain data.
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
        folder: The model's folder, created if it does not exist.
        description: The model's configuration, as data for JSON. NumPy scalars become Python's.
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
    """Read the folder that `save_model` wrote, with the same name.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: The JSON file is damaged.
        SafetensorError: A file of weights is damaged.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    description = json.loads((folder / f"{name}.json").read_text())
    weights = {file.stem: load_file(file) for file in sorted(folder.glob("*.safetensors"))}
    return SavedModel(description, weights)


@contextmanager
def loading_model(folder: str | Path, kind: str, field: str) -> Iterator[None]:
    """Turn an error in the block, which loads a kind of model (`VAE`), into an `InputError`.

    Raises:
        InputError: The folder could not be read, or no model could be built from it.
    """
    try:
        yield
    except InputError:
        raise
    except _LOADING_ERRORS as error:
        raise InputError(f"{field}: {str(folder)!r} holds no saved {kind}") from error


def _plain(value: Any) -> Any:
    """Convert a NumPy scalar to the Python scalar."""
    import numpy as np

    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
