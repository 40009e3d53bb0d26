"""The model in a compressed file."""

from __future__ import annotations

import json

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

import modicum as md
from modicum_algorithms.vae.model_spec import ModelSpec
from modicum_algorithms.vae.networks import VAE, build_vae


def pack_model(model: VAE) -> tuple[bytes, bytes]:
    """A model as specification (JSON) and weights (safetensors)."""
    spec = json.dumps(model.spec.description(), separators=(",", ":")).encode()
    return spec, save({name: value.contiguous() for name, value in model.state_dict().items()})


def unpack_model(spec_json: bytes, weights: bytes) -> VAE:
    """A packed model, ready for evaluation.

    Args:
        spec_json: The specification.
        weights: The weights.

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
