"""The end model p_θ(y|x), common to all methods: a feed-forward network on the features.

Section 3.4.1: two hidden layers of 100 ReLU units, then a softmax.

Shapes: N rows, D features, B mini-batch, C classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn


def mlp(inputs: int, outputs: int, hidden: Sequence[int], generator: torch.Generator) -> nn.Module:
    """A feed-forward network with ReLU units.

    Weights and biases are uniform within ±1/√(inputs of the layer), torch's default.
    """
    sizes = [inputs, *hidden, outputs]
    layers: list[nn.Module] = []
    for width, following in itertools.pairwise(sizes):
        layer = nn.utils.skip_init(nn.Linear, width, following)
        bound = width**-0.5
        with torch.no_grad():
            layer.weight.uniform_(-bound, bound, generator=generator)
            layer.bias.uniform_(-bound, bound, generator=generator)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def predict(model: nn.Module, features_ND: Tensor) -> np.ndarray:
    """Class probabilities p_θ(y|x), (N, C), float32."""
    with torch.inference_mode():
        return model(features_ND).softmax(-1).numpy()


def soft_cross_entropy(logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
    """Noise-aware loss −mean Σ_y q(y) log p_θ(y|x) for soft labels q.

    Args:
        logits_BC: Unnormalised log p_θ(y|x).
        targets_BC: Soft labels, rows sum to 1.
    """
    return -(targets_BC * logits_BC.log_softmax(-1)).sum(-1).mean()
