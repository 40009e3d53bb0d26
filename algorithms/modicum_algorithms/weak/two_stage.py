"""Objectives that train the end model alone, on soft or on strong labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from modicum_algorithms.weak.end_model import Objective
from modicum_algorithms.weak.losses import soft_cross_entropy


def soft_label_objective(
    model: nn.Module, features_ND: Tensor, soft_NC: np.ndarray, rows: np.ndarray, rate: float
) -> Objective:
    """Cross-entropy to soft labels over some rows of the training split.

    Args:
        model: End model, from features to logits.
        features_ND: Features of the training split.
        soft_NC: Soft labels; one-hot for strong ones.
        rows: Row numbers to train on.
        rate: Adam's learning rate.
    """
    targets_NC = torch.from_numpy(soft_NC)

    def loss(batches: Sequence[Tensor | None]) -> Tensor:
        (rows_B,) = batches
        assert rows_B is not None
        return soft_cross_entropy(model(features_ND[rows_B]), targets_NC[rows_B])

    return Objective([rows], loss, [{"params": list(model.parameters()), "lr": rate}])
