"""Memory of one training step, so that a step that cannot fit is refused before it starts."""

from __future__ import annotations

from itertools import pairwise

import psutil

import modicum as md
from modicum_algorithms.weak.config import EndModelConfig, IntegratedConfig

_FLOAT = 4
# Weights, gradients, Adam's two moments, the best weights, and the copy about to replace them.
_COPIES = 6


def step_bytes(
    config: EndModelConfig,
    method: str,
    *,
    rows: int,
    features: int,
    classes: int,
    labeling_functions: int,
) -> int:
    """Peak memory of a training step in bytes, in float32.

    Counts six copies of the weights, and the value and gradient of every layer's output. In iWLD
    (equation 3.8) the label network puts out transition matrices for each row, rows × (C + 1) × K
    × C × H numbers; together with their normalised logarithms they nearly always dominate.
    Measured peaks were 0.86 to 1.24 times this. Rows are those of a step, all pools together.
    """
    numbers = _of_network([features, *config.hidden, classes], rows)
    if method in ("iwl", "iwld"):
        assert isinstance(config, IntegratedConfig)
        outcomes = classes + (config.abstain == "emission")
        functions = labeling_functions + config.coverage_vote + config.self_supervision
        matrices = outcomes * functions * classes * config.latent_states
        if method == "iwld":
            states = config.latent_states if config.latent_states > 1 else 0
            sizes = [features, *config.label_network_hidden, matrices + states]
            numbers += _of_network(sizes, rows)
        else:
            # Indicators of the votes, once as votes and once as evidence; their sums for each
            # class and state, and the sums with p(h).
            by_state = 3 * classes * config.latent_states
            numbers += (_COPIES + 2) * matrices + 2 * rows * (outcomes * functions + by_state)
    return _FLOAT * numbers


def _of_network(sizes: list[int], rows: int) -> int:
    """Count of numbers in a network; its last outputs count twice, as they are normalised."""
    weights = sum((before + 1) * after for before, after in pairwise(sizes))
    return _COPIES * weights + 2 * rows * (sum(sizes[1:]) + sizes[-1])


def require_memory(
    config: EndModelConfig, method: str, *, rows: int, labeling_functions: int, **sizes: int
) -> None:
    """Refuse a training step that does not fit into this machine's free memory.

    The arguments are those of `step_bytes`, with the rows of the training split.

    Raises:
        InputError: It does not fit; the message says how much memory it needs.
    """
    in_step = min(2 * config.batch_size, rows)  # a step draws from the strong and the weak rows
    needed = step_bytes(
        config, method, rows=in_step, labeling_functions=labeling_functions, **sizes
    )
    available = psutil.virtual_memory().available
    if needed > available:
        raise md.InputError(
            f"batch_size: one step of {method} at {config.batch_size} rows with "
            f"{labeling_functions} labeling functions and {config.hidden_units} hidden units needs "
            f"about {needed / 2**30:.1f} GiB, this machine has {available / 2**30:.1f} GiB free; "
            "take a smaller batch or network"
        )
