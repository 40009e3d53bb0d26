"""Training the end model alone on soft labels: the second stage of two-stage methods.

A two-stage method first makes soft labels from the votes (majority vote, Snorkel), then trains the
end model on them. Strong labels join as one more labeling function (-V) or replace the denoised
label (-S), appendix A.1.

Shapes: N rows, B mini-batch, D features, K labeling functions, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from modicum_algorithms.weak.config import TwoStageConfig
from modicum_algorithms.weak.data.supervision import Supervision
from modicum_algorithms.weak.methods.objective import Objective
from modicum_algorithms.weak.models.end_model import soft_cross_entropy


def soft_labels(
    supervision: Supervision, denoise: Callable[[np.ndarray], np.ndarray], how: str
) -> np.ndarray:
    """Soft labels of a label model, combined with the strong labels.

    Args:
        supervision: Votes and strong labels.
        denoise: From votes, (N, K) or (N, K + 1), to soft labels (N, C).
        how: `vote` adds a labeling function that knows the strong labels, `replace` puts the
            strong label in the place of the denoised one.

    Returns:
        Shape (N, C), float32.
    """
    if how == "vote":
        return denoise(supervision.with_strong_votes)
    return supervision.with_strong_labels(denoise(supervision.votes_NK))


def informed_rows(supervision: Supervision, uncovered: str) -> np.ndarray:
    """Row numbers that a two-stage method trains on.

    Args:
        supervision: Votes and strong labels.
        uncovered: `drop` leaves out rows with neither a vote nor a label, `uniform` keeps them.
    """
    if uncovered == "uniform":
        return np.arange(len(supervision))
    return np.flatnonzero(supervision.covered | (supervision.labels_N >= 0))


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

    groups = [{"params": list(model.parameters()), "lr": rate}]
    return Objective([rows], loss, groups, denoised=lambda: soft_NC)


def two_stage_objective(
    model: nn.Module,
    supervision: Supervision,
    config: TwoStageConfig,
    denoise: Callable[[np.ndarray], np.ndarray],
) -> Objective:
    """Cross-entropy to the soft labels of a label model.

    Args:
        model: End model, from features to logits.
        supervision: Features, votes and strong labels.
        config: Use of strong labels and of uncovered rows, and the learning rate.
        denoise: Label model, from votes to soft labels; see `soft_labels`.
    """
    return soft_label_objective(
        model,
        supervision.features_ND,
        soft_labels(supervision, denoise, config.strong_labels),
        informed_rows(supervision, config.uncovered),
        config.learning_rate,
    )
