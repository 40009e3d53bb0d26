"""Sizes of decoder-only transformers: parameters, and what a token leaves in memory.

Counted from the shape alone, so that nothing is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import modicum as md

Norm = Literal["layer", "root_mean_square"]
Biases = Literal["all", "none", "query_key_value"]

_FP32 = 4  # bytes
# Activation functions that are one operation; others keep what they compute on the way, too.
_ONE_OPERATION = ("gelu", "gelu_pytorch_tanh", "relu", "silu")
_STEPS_OF_OTHERS = 3


@dataclass(frozen=True)
class ModelShape:
    """The shape of a decoder-only transformer.

    Attributes:
        name: For people.
        hidden: Width of the residual stream.
        layers: Number of blocks.
        query_width: Heads times their width.
        key_value_width: Heads of keys times their width: less with grouped queries.
        feed_forward: Width inside the feed-forward network.
        vocabulary: Tokens.
        learned_positions: Rows of a table of positions; 0 with rotary ones.
        tied: Whether the output layer is the table of embeddings.
        gated: Whether the feed-forward network has a gate (SwiGLU): three matrices, not two.
        norm: With a bias and a mean, or without.
        biases: Which linear layers of a block have one.
        fused: Whether queries, keys and values come out of one matrix.
        rotated: Whether queries and keys are rotated, which makes new tensors.
        feed_forward_kept: Tensors of the inner width that the backward pass needs.
    """

    name: str
    hidden: int
    layers: int
    query_width: int
    key_value_width: int
    feed_forward: int
    vocabulary: int
    learned_positions: int = 0
    tied: bool = False
    gated: bool = False
    norm: Norm = "layer"
    biases: Biases = "all"
    fused: bool = True
    rotated: bool = True
    feed_forward_kept: int = 2

    @property
    def parameters(self) -> int:
        """All weights, a tied output layer once."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        embeddings += self.learned_positions * self.hidden
        return embeddings + self.layers * self._of_a_layer + self._of_a_norm

    @property
    def _of_a_norm(self) -> int:
        return self.hidden * (2 if self.norm == "layer" else 1)

    @property
    def _of_a_layer(self) -> int:
        into_attention = self.query_width + 2 * self.key_value_width
        matrices = self.hidden * (into_attention + self.query_width)
        matrices += self.hidden * self.feed_forward * (3 if self.gated else 2)
        biases = {
            "all": into_attention + 2 * self.hidden + self.feed_forward * (1 + self.gated),
            "query_key_value": into_attention,
            "none": 0,
        }[self.biases]
        return matrices + biases + 2 * self._of_a_norm

    def adapter_parameters(self, rank: int) -> int:
        """Weights of LoRA's adapters on the layers that peft chooses for the model.

        Those are the fused matrix of queries, keys and values, or those of queries and of values:
        rank × (inputs + outputs) each (Hu et al. 2022, section 4.1).
        """
        if self.fused:
            outputs = self.query_width + 2 * self.key_value_width
            return self.layers * rank * (self.hidden + outputs)
        outputs = self.query_width + self.key_value_width
        return self.layers * rank * (2 * self.hidden + outputs)

    def kept_per_token(self, bytes_per_number: int, tokens: int) -> int:
        """Bytes of a token that one layer keeps for the backward pass.

        Korthikanti et al. 2022 (section 4.1) count 34 bytes × hidden in 16 bits for GPT-3's layer
        beside the scores of attention. Fused attention keeps no scores, and nothing is dropped
        out here, so 32 are left; other layers differ by the terms below. In every layer PyTorch
        keeps a mask as wide as the row in the precision of the activations.

        Args:
            bytes_per_number: 2 for 16 bits.
            tokens: Of the row that the token stands in.
        """
        b = bytes_per_number
        # Input and output of a norm; without a mean it works in fp32 and keeps what it scales.
        norm = 2 * b if self.norm == "layer" else _FP32 + 2 * b
        # Queries, keys (repeated for every query head), values, the result; if queries and keys
        # are rotated, the values are a view of the fused matrix's whole output, kept beside.
        attention = 6 if self.fused and self.rotated else 4
        return (
            2 * norm * self.hidden
            + b * attention * self.query_width
            + b * self.feed_forward_kept * self.feed_forward
            + b * tokens
        )

    def cached_per_token(self, bytes_per_number: int) -> int:
        """Bytes of a token's keys and values in all layers, kept while completions grow."""
        return 2 * self.layers * self.key_value_width * bytes_per_number


# Biderman et al. 2023 (Pythia), table 1; Touvron et al. 2023 (Llama 2) and its released configs.
PRESETS = {
    "1b": ModelShape("Pythia-1B", 2048, 16, 2048, 2048, 8192, 50304),
    "7b": ModelShape(
        *("Llama-2-7B", 4096, 32, 4096, 4096, 11008, 32000),
        gated=True,
        norm="root_mean_square",
        biases="none",
        fused=False,
        feed_forward_kept=4,
    ),
    "70b": ModelShape(
        *("Llama-2-70B", 8192, 80, 8192, 1024, 28672, 32000),
        gated=True,
        norm="root_mean_square",
        biases="none",
        fused=False,
        feed_forward_kept=4,
    ),
}
_WITHOUT_FUSION = ("llama", "mistral", "qwen2")
_KNOWN = ("gpt2", "gpt_neox", *_WITHOUT_FUSION)


def model_shape(name: str) -> ModelShape:
    """The shape of a preset, of a model folder, or of a model on the Hugging Face hub.

    Raises:
        md.InputError: The name is none of these, or the architecture is not known here.
    """
    if name in PRESETS:
        return PRESETS[name]
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        presets = ", ".join(PRESETS)
        kind = "its config.json cannot be read" if Path(name).exists() else "no such model"
        raise md.InputError(
            f"model: expected {presets}, a model's folder or its name on the Hugging Face hub, "
            f"got {name!r} ({kind})"
        ) from error
    return shape_of(config, name)


def shape_of(config: Any, name: str) -> ModelShape:
    """The shape that a configuration of the transformers library describes.

    Raises:
        md.InputError: The architecture is not known here.
    """
    kind = config.model_type
    if kind not in _KNOWN:
        raise md.InputError(
            f"model: known architectures are {', '.join(_KNOWN)}, and {name!r} is a {kind}"
        )
    heads = config.num_attention_heads
    head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
    shared = {
        "name": name,
        "hidden": config.hidden_size,
        "layers": config.num_hidden_layers,
        "query_width": heads * head_width,
        "key_value_width": heads * head_width,
        "vocabulary": config.vocab_size,
        "tied": config.tie_word_embeddings,
    }
    if kind == "gpt2":
        return ModelShape(
            **shared,
            feed_forward=config.n_inner or 4 * config.hidden_size,
            learned_positions=config.n_positions,
            rotated=False,
            feed_forward_kept=_kept(config.activation_function, gated=False),
        )
    if kind == "gpt_neox":
        return ModelShape(
            **shared,
            feed_forward=config.intermediate_size,
            feed_forward_kept=_kept(config.hidden_act, gated=False),
        )
    return ModelShape(
        **{**shared, "key_value_width": config.num_key_value_heads * head_width},
        feed_forward=config.intermediate_size,
        gated=True,
        norm="root_mean_square",
        biases="query_key_value" if kind == "qwen2" else "none",
        fused=False,
        feed_forward_kept=_kept(config.hidden_act, gated=True),
    )


def _kept(activation: str, *, gated: bool) -> int:
    """Its input and output; with a gate, what is multiplied and the product, too."""
    steps = 0 if activation in _ONE_OPERATION else _STEPS_OF_OTHERS
    return (4 if gated else 2) + steps
