"""Integrated weak learning: end model and label model trained as one (iWL and iWLD).

Shapes: N rows, D features, B mini-batch, K labeling functions, C classes, V outcomes of a vote.
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
from modicum_algorithms.weak.supervision import ABSTAIN, Supervision
from modicum_algorithms.weak.two_stage import with_strong_labels

_NUMBERS_AT_ONCE = 2**24  # of transitions, in passes over the training split


@dataclass(frozen=True)
class IntegratedSettings:
    """Settings of the joint objective; see `WeakLearningConfig` for what they mean."""

    depends_on_x: bool = False
    abstain: str = "emission"
    lambda_strong: float = 1.0
    lambda_weak: float = 1.0
    transition_smoothing: float = 1.0
    transition_learning_rate: float = 1e-3
    label_network_learning_rate: float = 1e-3
    learning_rate: float = 1e-3
    hidden: Sequence[int] = (100, 100)


def integrated_objective(
    model: nn.Module,
    supervision: Supervision,
    settings: IntegratedSettings,
    generator: torch.Generator,
) -> Objective:
    """The objective of equation 3.7 over the strong set S and the weak set W.

    W holds the rows without a strong label; with `missing` only those that have a vote.

    Args:
        model: End model, from features to logits.
        supervision: Features, votes and strong labels.
        settings: How.
        generator: Initialises the label network of iWLD.
    """
    features_ND, strong = supervision.features_ND, supervision.strong
    initial_VKC = majority_vote_transitions(
        supervision.votes_NK, supervision.classes, settings.abstain, settings.transition_smoothing
    )
    label_model: SharedTransitions | PointwiseTransitions
    if settings.depends_on_x:
        label_model = PointwiseTransitions(
            features_ND.shape[1], initial_VKC, settings.hidden, generator
        )
        label_model_rate = settings.label_network_learning_rate
    else:
        label_model = SharedTransitions(initial_VKC)
        label_model_rate = settings.transition_learning_rate
    votes = Votes.of(supervision.votes_NK, supervision.classes, settings.abstain)
    targets_N = torch.tensor(supervision.labels_N)
    usable = np.ones(len(supervision), dtype=bool)
    if settings.abstain == "missing":
        usable = supervision.covered.copy()
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
        {"params": list(model.parameters()), "lr": settings.learning_rate},
        {"params": list(label_model.parameters()), "lr": label_model_rate},
    ]
    return Objective(
        [strong, np.flatnonzero(usable)],
        loss,
        groups,
        denoised=lambda: _denoised(model, label_model, supervision, votes),
        transitions=lambda: _transitions(label_model, supervision, settings.abstain),
        label_model=label_model,
    )


def _rows_at_once(label_model: SharedTransitions | PointwiseTransitions) -> int:
    """Rows of a pass over the training split, few where each has large matrices of its own."""
    if isinstance(label_model, SharedTransitions):
        return 2**16
    return max(1, _NUMBERS_AT_ONCE // label_model.shape_VKC.numel())


@torch.inference_mode()
def _denoised(
    model: nn.Module,
    label_model: SharedTransitions | PointwiseTransitions,
    supervision: Supervision,
    votes: Votes,
) -> np.ndarray:
    """p(y | x, votes) ∝ p_θ(y|x) Π_k p(ỹ_k|y), and the strong label where there is one."""
    soft = []
    for rows_B in torch.arange(len(supervision)).split(_rows_at_once(label_model)):
        features_BD = supervision.features_ND[rows_B]
        log_votes_BC = label_model(features_BD, votes.rows(rows_B))
        soft.append((model(features_BD).log_softmax(-1) + log_votes_BC).softmax(-1))
    return with_strong_labels(supervision, torch.cat(soft).numpy())


@torch.inference_mode()
def _transitions(
    label_model: SharedTransitions | PointwiseTransitions, supervision: Supervision, abstain: str
) -> np.ndarray:
    """p(ỹ_k = v | y = c), (C + 1, K, C); those of iWLD averaged over the training rows.

    Where abstains are missing, a function votes as often as it did, whatever the class.
    """
    if isinstance(label_model, SharedTransitions):
        mean_VKC = label_model.log_transitions().exp().numpy()
    else:
        total_VKC = torch.zeros(label_model.shape_VKC)
        for features_BD in supervision.features_ND.split(_rows_at_once(label_model)):
            total_VKC += label_model.log_transitions(features_BD).exp().sum(0)
        mean_VKC = (total_VKC / len(supervision)).numpy()
    if abstain == "emission":
        return mean_VKC
    coverage_K1 = (supervision.votes_NK != ABSTAIN).mean(0)[:, None]
    abstain_1KC = np.broadcast_to(1 - coverage_K1, mean_VKC.shape[1:])[None]
    return np.concatenate([mean_VKC * coverage_K1, abstain_1KC])
