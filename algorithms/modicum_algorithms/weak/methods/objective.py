"""The interface between methods and the training loop.

Shapes: N rows, K labeling functions, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from modicum_algorithms.weak.models.joint_model import JointPosterior


@dataclass(frozen=True)
class Objective:
    """A method's loss, and its account of the votes once it is trained.

    Attributes:
        pools: Row numbers of the training split, one array for each set that a step draws a
            mini-batch from. Nothing is drawn from an empty pool.
        loss: From one mini-batch of row numbers per pool (None for an empty pool) to a scalar.
        groups: Parameter groups with learning rates, as Adam takes them.
        denoised: The method's soft labels of all training rows, (N, C); uniform where it has no
            information.
        transitions: The method's p(ỹ_k = v | y = c), (C + 1, K, C), with abstain as the last
            outcome; None for a method without such estimates.
        label_network: The network that is trained beside the end model, and saved with it.
        joint_posterior: Posterior of the joint model for any rows; None for a method without a
            joint model.
        refresh: Called before each evaluation on the validation split.
    """

    pools: Sequence[np.ndarray]
    loss: Callable[[Sequence[Tensor | None]], Tensor]
    groups: list[dict[str, Any]]
    denoised: Callable[[], np.ndarray]
    transitions: Callable[[], np.ndarray] | None = None
    label_network: nn.Module | None = None
    joint_posterior: JointPosterior | None = None
    refresh: Callable[[], None] = lambda: None
