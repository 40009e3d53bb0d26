"""Integrated weak learning: end model and label model trained as one (iWL and iWLD).

Shapes: N rows, D features, B mini-batch, C classes, V outcomes of a vote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from modicum_algorithms.weak.end_model import Objective
from modicum_algorithms.weak.label_model import (
    PointwiseTransitions,
    SharedTransitions,
    Votes,
    majority_vote_transitions,
)
from modicum_algorithms.weak.losses import strong_log_likelihood, weak_log_likelihood
from modicum_algorithms.weak.majority_vote import covered


@dataclass(frozen=True)
class IntegratedSettings:
    """Settings of the joint objective; see `WeakLearningConfig` for what they mean."""

    depends_on_x: bool
    abstain: str
    lambda_strong: float
    lambda_weak: float
    smoothing: float
    end_model_rate: float
    label_model_rate: float
    hidden: Sequence[int]


def integrated_objective(
    model: nn.Module,
    features_ND: Tensor,
    votes_NK: np.ndarray,
    labels_N: np.ndarray,
    strong: np.ndarray,
    classes: int,
    settings: IntegratedSettings,
    generator: torch.Generator,
) -> tuple[Objective, nn.Module]:
    """The objective of equation 3.7 over the strong set S and the weak set W.

    W holds the rows without a strong label; with `missing` only those that have a vote.

    Args:
        model: End model, from features to logits.
        features_ND: Features of the training split.
        votes_NK: Votes, -1 is an abstain.
        labels_N: Labels, read at the strong rows only.
        strong: Row numbers of S.
        classes: Number of classes.
        settings: How.
        generator: Initialises the label network of iWLD.

    Returns:
        The objective and the label model.
    """
    initial_VKC = majority_vote_transitions(votes_NK, classes, settings.abstain, settings.smoothing)
    label_model: nn.Module
    if settings.depends_on_x:
        label_model = PointwiseTransitions(
            features_ND.shape[1], initial_VKC, settings.hidden, generator
        )
    else:
        label_model = SharedTransitions(initial_VKC)
    votes = Votes.of(votes_NK, classes, settings.abstain)
    targets_N = torch.tensor(labels_N)
    usable = np.ones(len(votes_NK), dtype=bool)
    if settings.abstain == "missing":
        usable = covered(votes_NK)
    usable[strong] = False

    def loss(batches: Sequence[Tensor | None]) -> Tensor:
        strong_B, weak_B = batches
        # Both sets go through the networks together, then part.
        rows_B = torch.cat([rows for rows in batches if rows is not None])
        size = 0 if strong_B is None else len(strong_B)
        features_BD = features_ND[rows_B]
        log_classes_BC = model(features_BD).log_softmax(-1)
        log_votes_BC = label_model(features_BD, votes.rows(rows_B))
        total = torch.zeros(())
        if strong_B is not None:  # λ_S L_S, equation 3.5
            total = total - settings.lambda_strong * strong_log_likelihood(
                log_classes_BC[:size], log_votes_BC[:size], targets_N[strong_B]
            )
        if weak_B is not None:  # λ_W L_W, equation 3.6
            total = total - settings.lambda_weak * weak_log_likelihood(
                log_classes_BC[size:], log_votes_BC[size:]
            )
        return total  # the negative of equation 3.7

    groups: list[dict[str, object]] = [
        {"params": list(model.parameters()), "lr": settings.end_model_rate},
        {"params": list(label_model.parameters()), "lr": settings.label_model_rate},
    ]
    return Objective([strong, np.flatnonzero(usable)], loss, groups), label_model
