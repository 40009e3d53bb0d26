"""The memory of one training step, to refuse what cannot fit before it starts."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import psutil

import modicum as md

if TYPE_CHECKING:
    from modicum_algorithms.weak.experiment import WeakMethodConfig

_FLOAT = 4
# Weights, their gradient, two moments of Adam, the best ones, and those about to take their place.
_COPIES = 6


def step_bytes(
    config: WeakMethodConfig,
    *,
    rows: int,
    features: int,
    classes: int,
    labeling_functions: int,
) -> int:
    """Bytes that a step of training holds at once, in float32.

    Of everything trained six copies; of every layer's output, its value and its gradient. In iWLD
    (equation 3.8) the second network's outputs are transition matrices of each row, rows ×
    (C + 1) × K × C × H of them, and with their logarithms after normalisation they nearly always
    decide. Measured peaks were 0.86 to 1.24 times this.

    Args:
        config: Sizes of networks and of the label model.
        rows: Rows in a step, of all pools together.
        features: Features D.
        classes: Classes C.
        labeling_functions: Labeling functions K.
    """
    hidden = [config.hidden_units] * config.hidden_layers
    numbers = _of_network([features, *hidden, classes], rows)
    if config.method in ("iwl", "iwld"):
        outcomes = classes + (config.abstain == "emission")
        functions = labeling_functions + config.coverage_vote + config.self_supervision
        matrices = outcomes * functions * classes * config.latent_states
        if config.method == "iwld":
            hidden = [config.label_network_hidden_units] * config.label_network_hidden_layers
            states = config.latent_states if config.latent_states > 1 else 0
            numbers += _of_network([features, *hidden, matrices + states], rows)
        else:
            # Votes as indicators, once as votes and once as evidence; what they say of each class
            # and state, and that with p(h).
            by_state = 3 * classes * config.latent_states
            numbers += (_COPIES + 2) * matrices + 2 * rows * (outcomes * functions + by_state)
    return _FLOAT * numbers


def _of_network(sizes: list[int], rows: int) -> int:
    """Numbers of a network; its last outputs count twice, as they are normalised."""
    weights = sum((before + 1) * after for before, after in pairwise(sizes))
    return _COPIES * weights + 2 * rows * (sum(sizes[1:]) + sizes[-1])


def require_memory(
    config: WeakMethodConfig,
    *,
    rows: int,
    features: int,
    classes: int,
    labeling_functions: int,
) -> None:
    """Refuse a step of training that does not fit into this machine's free memory.

    Args:
        config: Settings of the method.
        rows: Rows of the training split.
        features: Features D.
        classes: Classes C.
        labeling_functions: Labeling functions K.

    Raises:
        InputError: It does not fit; says how much it needs.
    """
    needed = step_bytes(
        config,
        rows=min(2 * config.batch_size, rows),  # a step draws from the strong and the weak rows
        features=features,
        classes=classes,
        labeling_functions=labeling_functions,
    )
    available = available_bytes()
    if needed > available:
        raise md.InputError(
            f"batch_size: one step of {config.method} at {config.batch_size} rows with "
            f"{labeling_functions} labeling functions and {config.hidden_units} hidden units needs "
            f"about {needed / 2**30:.1f} GiB, this machine has {available / 2**30:.1f} GiB free; "
            "take a smaller batch or network"
        )


def available_bytes() -> int:
    """Memory of this machine that is free to use."""
    return int(psutil.virtual_memory().available)
