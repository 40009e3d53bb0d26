"""A trained VAE as a folder.

model.json            what it is built from, and what a study adds
model.safetensors     weights of encoder and decoder
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import modicum as md
from modicum_algorithms.vae.networks import VAE, ModelSpec, build_vae

SPEC_FILE, WEIGHTS_FILE = "model.json", "model.safetensors"


def save_vae(model: VAE, folder: Path, **more: Any) -> None:
    """Write a model to a new folder.

    Args:
        model: Trained.
        folder: Must not exist.
        **more: What else `model.json` shall hold.
    """
    folder.mkdir(parents=True)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE)
    described = {"spec": model.spec.model_dump(mode="json"), **more}
    (folder / SPEC_FILE).write_text(json.dumps(described, indent=1))


def load_vae(folder: str | Path, field: str = "model") -> VAE:
    """A saved model, ready to evaluate.

    Args:
        folder: What `save_vae` wrote.
        field: Setting or option to name in an error.

    Raises:
        InputError: The folder holds no saved model of this family.
    """
    folder = Path(folder)
    try:
        spec = ModelSpec.model_validate(json.loads((folder / SPEC_FILE).read_text())["spec"])
        model = build_vae(spec, seed=0)
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        SafetensorError,
        ValidationError,
    ) as error:
        raise md.InputError(f"{field}: {str(folder)!r} holds no saved VAE") from error
    return model.eval()


def model_hash(model: VAE) -> bytes:
    """SHA-256 of what a model computes: its specification and every weight, bit by bit."""
    total = hashlib.sha256()
    total.update(json.dumps(model.spec.model_dump(mode="json"), sort_keys=True).encode())
    for name, value in sorted(model.state_dict().items()):
        array = value.detach().cpu().contiguous().numpy()
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        total.update(f"\0{name}\0{little.dtype.str}\0{array.shape}\0".encode())
        total.update(little.tobytes())
    return total.digest()


def find_model(location: str, field: str = "model") -> Path:
    """A folder that `load_vae` reads: the one given, or that of a run's first finished trial.

    Args:
        location: Either folder.
        field: Setting or option to name in an error.

    Raises:
        InputError: The location is neither, or the run has no finished trial with a checkpoint.
    """
    return md.find_checkpoint(location, SPEC_FILE, field, "finished trial with a saved model")
