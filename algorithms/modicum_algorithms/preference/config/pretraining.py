"""Recipes for pretraining a small GPT-2."""

from __future__ import annotations

from dataclasses import dataclass

import modicum as md


@dataclass(frozen=True)
class Recipe:
    """Settings of the pretraining of a GPT-2.

    The embeddings and vectors are trained with AdamW, the matrices of the blocks with Muon. Both
    learning rates rise linearly during the warm-up and then decay by a cosine.

    Attributes:
        vocabulary: Maximum size of the byte-level BPE vocabulary.
        context: Context length of the model in tokens, and the length of a training row.
        width: Width of the hidden states.
        layers: Number of blocks.
        heads: Attention heads of each block.
        passes: Passes over the texts; each text is cut to one row.
        batch_size: Rows of an update.
        learning_rate: Peak learning rate of AdamW.
        matrix_learning_rate: Peak learning rate of Muon.
        weight_decay: Weight decay of the matrices.
        warmup: Share of the updates that the warm-up takes.
        held_out: Share of the texts that is held out for validation.
        seed: Seed of the initial weights and the order of the texts.

    Raises:
        InputError: The width is not a multiple of the heads.
    """

    vocabulary: int = 4096
    context: int = 128
    width: int = 224
    layers: int = 4
    heads: int = 4
    passes: int = 1
    batch_size: int = 16
    learning_rate: float = 3e-3
    matrix_learning_rate: float = 0.02
    weight_decay: float = 0.05
    warmup: float = 0.05
    held_out: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise md.InputError(f"heads: must divide the width of {self.width}, got {self.heads}")


# Both are part of the identity of trials that start from the models (`base_model.py`).
IMDB_RECIPE = Recipe()
PACKAGED_RECIPE = Recipe(
    vocabulary=1024,
    width=96,
    layers=2,
    heads=4,
    passes=3,
    batch_size=8,
    learning_rate=1e-2,
    matrix_learning_rate=0.05,
)
