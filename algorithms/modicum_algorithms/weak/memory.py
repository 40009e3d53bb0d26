"""The memory of one training step, to refuse what cannot fit before it starts."""

from __future__ import annotations

import os
from itertools import pairwise

_FLOAT = 4


def step_bytes(
    *,
    rows: int,
    features: int,
    classes: int,
    labeling_functions: int,
    hidden_units: int,
    hidden_layers: int,
    pointwise: bool,
) -> int:
    """Bytes that a step of training holds at once, in float32.

    Of every network the weights, their gradient, two moments of Adam and the copy of the best
    ones; of every layer's output, its value and its gradient. Where transitions depend on the
    point (iWLD, equation 3.8) there is a second network, and its rows × (C + 1) × K × C outputs
    and their logarithms after normalisation, each with its gradient, nearly always decide.

    Args:
        rows: Rows in a step, of all pools together.
        features: Features D.
        classes: Classes C.
        labeling_functions: Labeling functions K.
        hidden_units: Units of a hidden layer.
        hidden_layers: Number of hidden layers.
        pointwise: Whether a network makes transition matrices for each point.
    """
    outputs = [classes]
    if pointwise:
        outputs.append((classes + 1) * labeling_functions * classes)
    numbers = 0
    for width in outputs:
        sizes = [features, *[hidden_units] * hidden_layers, width]
        weights = sum((before + 1) * after for before, after in pairwise(sizes))
        numbers += 5 * weights + 2 * rows * (sum(sizes[1:]) + width)
    return _FLOAT * numbers


def available_bytes() -> int:
    """Memory of this machine that is free to use."""
    try:
        import psutil
    except ImportError:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(psutil.virtual_memory().available)
