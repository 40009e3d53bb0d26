"""Sizes of a language model, counted on PyTorch's fake tensors, which have shapes but no data.

Nothing is loaded and no GPU is needed: the model is built from its configuration, and the tensors
that a backward pass needs are counted, with the attention kernel that PyTorch takes on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM

import modicum as md
from modicum_algorithms.preference.config import RECIPES, PreferenceConfig
from modicum_algorithms.preference.pretraining import gpt2_config
from modicum_algorithms.preference.scoring import CompletionScorer, Example


@dataclass(frozen=True)
class Lengths:
    """Lengths of a prompt and of a completion, in tokens."""

    prompt: int
    completion: int

    @property
    def row(self) -> int:
        """Length of a pair's row: the prompt once, and both completions."""
        return self.prompt + 2 * self.completion


@dataclass(frozen=True)
class ModelSize:
    """Sizes of a language model in one precision.

    Attributes:
        parameters: Number of weights.
        trained: Number of trained weights: all, or those of the adapters.
        width: Bytes of a weight.
        vocabulary: Size of the vocabulary.
        kept: Bytes that the backward pass keeps of one micro-batch, logits included. With
            activation checkpointing: the inputs of all layers, one layer in full, and the logits.
        cached: Bytes of the keys and values of one token in all layers.
    """

    parameters: int
    trained: int
    width: int
    vocabulary: int
    kept: int
    cached: int


def model_size(config: PreferenceConfig, lengths: Lengths) -> ModelSize:
    """Sizes of the model of a configuration, with its precision, adapters and micro-batches.

    Raises:
        InputError: The model has no readable configuration, or it cannot be counted.
    """
    described, training = _described(config.language_model), config.training
    dtype = getattr(torch, md.training.DTYPES[training.precision])
    rows = training.micro_batch_size
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(described, dtype=dtype)
        language = md.training.LanguageModel(model, None, None, config.language_model)
        model = md.training.add_adapters(language, training, 0).model.eval()
    with FakeTensorMode(allow_non_fake_inputs=True):
        _without_data(model)
        try:
            kept = _kept(model, rows, lengths)
            with torch.no_grad():
                cache = model(input_ids=torch.ones(1, 1, dtype=torch.long)).past_key_values
            cached = sum(t.nbytes for layer in cache.layers for t in (layer.keys, layer.values))
        except Exception as error:  # Whatever the code of a model raises without data.
            raise md.InputError(
                f"language_model: the memory of a {described.model_type} cannot be counted "
                f"({md.reason_of(error)})"
            ) from error
    if training.activation_checkpointing:
        layers = described.num_hidden_layers
        inputs = rows * lengths.row * described.hidden_size * dtype.itemsize
        logits = rows * 2 * lengths.completion * described.vocab_size * torch.float32.itemsize
        kept = layers * inputs + (kept - logits) // layers + logits
    return ModelSize(
        parameters=sum(p.numel() for p in model.parameters()),
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        width=dtype.itemsize,
        vocabulary=described.vocab_size,
        kept=kept,
        cached=cached,
    )


def _described(name: str) -> Any:
    if name in RECIPES:
        return gpt2_config(RECIPES[name], RECIPES[name].vocabulary, end=0)
    try:
        return AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise md.InputError(
            f"language_model: the configuration of {name!r} cannot be read ({md.reason_of(error)})"
        ) from error


def _without_data(model: Any) -> None:
    """Move a model from the meta device to a CPU of fake tensors; peft cannot work on these."""
    moved: dict[int, Any] = {}  # By the old tensor, as embeddings may be tied.
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, old in tensors.items():
                if old is not None:
                    new = torch.empty_like(old, device="cpu")
                    if isinstance(old, torch.nn.Parameter):
                        new = torch.nn.Parameter(new, old.requires_grad)
                    tensors[name] = moved.setdefault(id(old), new)


def _kept(model: Any, rows: int, lengths: Lengths) -> int:
    """Bytes of the distinct tensors, weights apart, that autograd keeps of a micro-batch."""
    prompt, completion = (1,) * lengths.prompt, (1,) * lengths.completion
    weights = {_storage(p) for p in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if _storage(tensor) not in weights:
            kept[_storage(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        scores = CompletionScorer(model)([Example(prompt, completion, completion)] * rows)
    assert scores.requires_grad  # Its graph keeps the storages alive until here.
    return sum(kept.values())


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
