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
    majority_vote_transitions,
    one_hot_votes,
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
    initial_KCV = majority_vote_transitions(votes_NK, classes, settings.abstain, settings.smoothing)
    label_model: nn.Module
    if settings.depends_on_x:
        label_model = PointwiseTransitions(
            features_ND.shape[1], initial_KCV, settings.hidden, generator
        )
    else:
        label_model = SharedTransitions(initial_KCV)
    one_hot_NKV = one_hot_votes(votes_NK, classes, settings.abstain)
    targets_N = torch.from_numpy(np.asarray(labels_N))
    usable = np.ones(len(votes_NK), dtype=bool)
    if settings.abstain == "missing":
        usable = covered(votes_NK)
    usable[strong] = False

    def log_probabilities(rows_B: Tensor) -> tuple[Tensor, Tensor]:
        features_BD = features_ND[rows_B]
        return (
            model(features_BD).log_softmax(-1),
            label_model(features_BD, one_hot_NKV[rows_B]),
        )

    def loss(batches: Sequence[Tensor | None]) -> Tensor:
        strong_B, weak_B = batches
        total = torch.zeros(())
        if strong_B is not None:  # λ_S L_S, equation 3.5
            log_likelihood = strong_log_likelihood(
                *log_probabilities(strong_B), targets_N[strong_B]
            )
            total = total - settings.lambda_strong * log_likelihood
        if weak_B is not None:  # λ_W L_W, equation 3.6
            total = total - settings.lambda_weak * weak_log_likelihood(*log_probabilities(weak_B))
        return total  # the negative of equation 3.7

    groups: list[dict[str, object]] = [
        {"params": list(model.parameters()), "lr": settings.end_model_rate},
        {"params": list(label_model.parameters()), "lr": settings.label_model_rate},
    ]
    return Objective([strong, np.flatnonzero(usable)], loss, groups), label_model
