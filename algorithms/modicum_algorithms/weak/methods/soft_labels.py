"""Training the end model alone: on the strong labels, or on soft labels made from the votes.

Strong labels alone are maximum likelihood (equation 3.1), the baseline without votes. A two-stage
method first makes soft labels from the votes (majority vote here, Snorkel in `snorkel`), then
trains the end model on them. Strong labels join as one more labeling function (-V) or replace the
denoised label (-S), appendix A.1.

Shapes: N rows, B mini-batch, D features, K labeling functions, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from modicum_algorithms.weak.config import EndModelConfig, TwoStageConfig
from modicum_algorithms.weak.data.supervision import Supervision
from modicum_algorithms.weak.labeling import majority_vote
from modicum_algorithms.weak.models.end_model import predict, soft_cross_entropy
from modicum_algorithms.weak.training import Objective


def labels_only_objective(
    model: nn.Module,
    supervision: Supervision,
    config: EndModelConfig,
    generator: torch.Generator,
) -> Objective:
    """Cross-entropy to the strong labels; votes are ignored.

    The denoised labels are the known ones, and elsewhere the end model's predictions.
    """
    nothing_NC = np.zeros((len(supervision), supervision.classes), dtype=np.float32)
    soft_NC = supervision.with_strong_labels(nothing_NC)
    features_ND = supervision.features_ND
    objective = _soft_label_objective(
        model, features_ND, soft_NC, supervision.strong, config.learning_rate
    )
    return replace(
        objective,
        denoised=lambda: supervision.with_strong_labels(predict(model, features_ND)),
    )


def majority_vote_objective(
    model: nn.Module,
    supervision: Supervision,
    config: TwoStageConfig,
    generator: torch.Generator,
) -> Objective:
    """Cross-entropy to the normalised vote counts."""
    denoise = partial(majority_vote, classes=supervision.classes)
    return two_stage_objective(model, supervision, config, denoise)


def two_stage_objective(
    model: nn.Module,
    supervision: Supervision,
    config: TwoStageConfig,
    denoise: Callable[[np.ndarray], np.ndarray],
) -> Objective:
    """Cross-entropy to the soft labels of a label model, which `denoise` makes from votes."""
    return _soft_label_objective(
        model,
        supervision.features_ND,
        soft_labels(supervision, denoise, config.strong_labels),
        informed_rows(supervision, config.uncovered),
        config.learning_rate,
    )


def soft_labels(
    supervision: Supervision, denoise: Callable[[np.ndarray], np.ndarray], how: str
) -> np.ndarray:
    """Soft labels of a label model, combined with the strong labels, (N, C), float32.

    Args:
        supervision: Votes and strong labels.
        denoise: From votes, (N, K) or (N, K + 1), to soft labels (N, C).
        how: Setting `strong_labels`.
    """
    if how == "vote":
        return denoise(supervision.with_strong_votes)
    return supervision.with_strong_labels(denoise(supervision.votes_NK))


def informed_rows(supervision: Supervision, uncovered: str) -> np.ndarray:
    """Row numbers that a two-stage method trains on, by the setting `uncovered`."""
    if uncovered == "uniform":
        return np.arange(len(supervision))
    return np.flatnonzero(supervision.covered | (supervision.labels_N >= 0))


def _soft_label_objective(
    model: nn.Module, features_ND: Tensor, soft_NC: np.ndarray, rows: np.ndarray, rate: float
) -> Objective:
    """Cross-entropy to soft labels over some rows of the training split."""
    targets_NC = torch.from_numpy(soft_NC)

    def loss(batches: Sequence[Tensor | None]) -> Tensor:
        (rows_B,) = batches
        assert rows_B is not None
        return soft_cross_entropy(model(features_ND[rows_B]), targets_NC[rows_B])

    groups = [{"params": list(model.parameters()), "lr": rate}]
    return Objective([rows], loss, groups, denoised=lambda: soft_NC)
