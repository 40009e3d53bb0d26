"""Measuring the statistics of batch normalisation before a network is used.

In training, a network normalises by the statistics of each batch. The running averages that it
keeps for evaluation lag behind quickly changing weights: with them, a recognition network that fits
well in training may recognise nothing. Statistics of a sample replace them here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# Most observations in one pass, to bound memory.
_CHUNK = 512


@torch.no_grad()
def measure_batch_statistics(
    module: nn.Module, forward: Callable[[Tensor], Any], observations: Tensor
) -> None:
    """Replace running averages by means over a sample, and switch to evaluation mode.

    Args:
        module: Module with the layers of batch normalisation.
        forward: Function that runs the module on observations.
        observations: Shape (N, ...).
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    if layers:
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a cumulative mean
        module.train()
        # Of about the same size, since all chunks weigh the same.
        for chunk in observations.tensor_split(math.ceil(len(observations) / _CHUNK)):
            forward(chunk)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    module.eval()
