"""Objectives that train the end model alone, on soft or on strong labels.

A two-stage method first makes soft labels from the votes (majority vote, Snorkel), then trains
the end model on them. Strong labels join as one more labeling function (-V) or replace the
denoised label (-S), appendix A.1.

Shapes: N rows, B mini-batch, D features, K labeling functions, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modicum_algorithms.weak.end_model import Objective, predict
from modicum_algorithms.weak.losses import soft_cross_entropy
from modicum_algorithms.weak.supervision import Supervision


def soft_labels(
    supervision: Supervision, denoise: Callable[[np.ndarray], np.ndarray], how: str
) -> np.ndarray:
    """Soft labels of a method, with strong labels taken into account.

    Args:
        supervision: Votes and strong labels.
        denoise: From votes, (N, K) or with one more column, to soft labels (N, C).
        how: `vote` adds a labeling function that knows the strong labels, `replace` puts the
            strong label in the place of the denoised one.

    Returns:
        Shape (N, C), float32.
    """
    if how == "vote":
        return denoise(supervision.with_strong_votes)
    return with_strong_labels(supervision, denoise(supervision.votes_NK))


def with_strong_labels(supervision: Supervision, soft_NC: np.ndarray) -> np.ndarray:
    """A copy of soft labels in which a known label stands for certain."""
    soft_NC, strong = soft_NC.copy(), supervision.strong
    soft_NC[strong] = np.eye(supervision.classes, dtype=soft_NC.dtype)[supervision.labels_N[strong]]
    return soft_NC


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

    groups: list[dict[str, object]] = [{"params": list(model.parameters()), "lr": rate}]
    return Objective([rows], loss, groups, denoised=lambda: soft_NC)


def two_stage_objective(
    model: nn.Module,
    supervision: Supervision,
    denoise: Callable[[np.ndarray], np.ndarray],
    settings: Mapping[str, Any],
) -> Objective:
    """Cross-entropy to what a label model makes of the votes.

    Args:
        model: End model, from features to logits.
        supervision: Features, votes and strong labels.
        denoise: As in `soft_labels`.
        settings: `strong_labels` and `uncovered`, as in `soft_labels` and `informed_rows`, and
            `learning_rate`.
    """
    return soft_label_objective(
        model,
        supervision.features_ND,
        soft_labels(supervision, denoise, settings["strong_labels"]),
        informed_rows(supervision, settings["uncovered"]),
        settings["learning_rate"],
    )


def labels_only_objective(model: nn.Module, supervision: Supervision, rate: float) -> Objective:
    """Cross-entropy to the strong labels, votes unread.

    Its denoised labels are the known ones, and elsewhere what the end model predicts.
    """
    nothing_NC = np.zeros((len(supervision), supervision.classes), dtype=np.float32)
    soft_NC = with_strong_labels(supervision, nothing_NC)
    features_ND = supervision.features_ND
    objective = soft_label_objective(model, features_ND, soft_NC, supervision.strong, rate)
    return replace(
        objective,
        denoised=lambda: with_strong_labels(supervision, predict(model, features_ND)),
    )
