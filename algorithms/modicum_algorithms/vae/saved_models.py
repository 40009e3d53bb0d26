"""A trained VAE as a folder, and as bytes within a compressed file.

model.json            the specification under the key `spec`, and what a study adds
model.safetensors     weights of encoder and decoder
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

import modicum as md
from modicum_algorithms.vae.model_spec import ModelSpec
from modicum_algorithms.vae.networks import VAE, build_vae


def save_vae(model: VAE, folder: Path, **more: Any) -> None:
    """Write a model to a new folder.

    Args:
        model: A trained model.
        folder: The folder to write, which must not exist.
        **more: Further content of `model.json`.

    Raises:
        FileExistsError: The folder exists.
    """
    folder.mkdir(parents=True)
    md.save_model(folder, {"spec": model.spec.description(), **more}, {"model": model.state_dict()})


def load_vae(folder: str | Path, field: str = "model") -> VAE:
    """A saved model, ready for evaluation.

    Args:
        folder: A folder written by `save_vae`.
        field: Setting or option to name in an error.

    Raises:
        InputError: The folder holds no saved model of this family.
    """
    with md.loading_model(folder, "VAE", field):
        saved = md.load_model(folder)
        model = build_vae(ModelSpec.model_validate(saved.description["spec"]), seed=0)
        model.load_state_dict(dict(saved.weights["model"]))
    return model.eval()


def model_hash(model: VAE) -> bytes:
    """SHA-256 of a model's specification and of each bit of its weights."""
    total = hashlib.sha256()
    total.update(json.dumps(model.spec.description(), sort_keys=True).encode())
    for name, value in sorted(model.state_dict().items()):
        array = value.detach().cpu().contiguous().numpy()
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        total.update(f"\0{name}\0{little.dtype.str}\0{array.shape}\0".encode())
        total.update(little.tobytes())
    return total.digest()


def find_model(location: str, field: str = "model") -> Path:
    """The folder of a saved model: the given one, or that of a run's first finished trial.

    Args:
        location: Folder of a saved model, or of a run.
        field: Setting or option to name in an error.

    Raises:
        InputError: The location is neither, or the run has no finished trial with a checkpoint.
    """
    return md.find_checkpoint(location, "model.json", field, "finished trial with a saved model")


def pack_model(model: VAE) -> tuple[bytes, bytes]:
    """A model as specification (JSON) and weights (safetensors)."""
    spec = json.dumps(model.spec.description(), separators=(",", ":")).encode()
    return spec, save({name: value.contiguous() for name, value in model.state_dict().items()})


def unpack_model(spec_json: bytes, weights: bytes) -> VAE:
    """A packed model, ready for evaluation.

    Raises:
        ValueError: The two cannot be read, or do not fit together.
    """
    try:
        spec = md.validated(ModelSpec, json.loads(spec_json))
        tensors = load(weights)
        _check_sizes(spec, {name: value.shape for name, value in tensors.items()})
        model = build_vae(spec, seed=0)
        model.load_state_dict(tensors)
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(str(error)) from error
    return model.eval()


def _check_sizes(spec: ModelSpec, shapes: dict[str, torch.Size]) -> None:
    """Compare sizes before memory is allocated for a model of the sizes that the file claims."""
    if max(spec.hidden_layers, spec.residual_blocks) <= len(shapes):
        with torch.device("meta"):
            expected = build_vae(spec, seed=0).state_dict()
        if {name: value.shape for name, value in expected.items()} == shapes:
            return
    raise ValueError("weights and specification do not fit together")
