"""Batch normalisation's statistics, measured anew before the network is used.

While it is trained, a network normalises by each batch. The running averages that it keeps for
later lag behind weights that change quickly: with them a recognition network that fits well in
training may recognise nothing. So they are replaced by the statistics of a sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# Observations in one pass, which bounds memory.
_CHUNK = 512


@torch.no_grad()
def measure_batch_statistics(
    module: nn.Module, forward: Callable[[Tensor], Any], observations: Tensor
) -> None:
    """Replace running averages by the mean over passes of some observations.

    Leaves the module in evaluation mode.

    Args:
        module: Whose layers are set.
        forward: Runs the module on observations.
        observations: Shape (N, ...).
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    if layers:
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a cumulative mean
        module.train()
        # Of about the same size, since each counts the same.
        for chunk in observations.tensor_split(math.ceil(len(observations) / _CHUNK)):
            forward(chunk)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    module.eval()
