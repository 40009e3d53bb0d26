"""Label models: transition matrices, shared by all points (iWL) or made from x (iWLD).

Shapes: N rows, B mini-batch, D features, K labeling functions, C classes, V outcomes of a vote.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from modicum_algorithms.weak.end_model import mlp
from modicum_algorithms.weak.losses import pointwise_log_votes, shared_log_votes
from modicum_algorithms.weak.majority_vote import majority_vote


def one_hot_votes(votes_NK: np.ndarray, classes: int, abstain: str) -> Tensor:
    """Votes as one-hot outcomes, shape (N, K, V), float32.

    Args:
        votes_NK: Votes, -1 is an abstain.
        classes: Number of classes.
        abstain: `emission` makes abstain the last of V = C + 1 outcomes (section 3.2.1);
            `missing` leaves abstains out of the product, V = C.
    """
    if abstain == "emission":
        outcomes = np.where(votes_NK < 0, classes, votes_NK)
        return nn.functional.one_hot(torch.from_numpy(outcomes), classes + 1).float()
    # Class numbers shifted by one; the column of abstains (0) is dropped.
    return nn.functional.one_hot(torch.from_numpy(votes_NK + 1), classes + 1)[..., 1:].float()


def majority_vote_transitions(
    votes_NK: np.ndarray, classes: int, abstain: str, smoothing: float
) -> Tensor:
    """Transition matrices counted against the majority vote, to start from (section 3.4.1).

    φ_k(v|c) ∝ smoothing + Σ_n q_n(c) 1[ỹ_k = v], with q the majority vote of covered rows.

    Args:
        votes_NK: Votes, -1 is an abstain.
        classes: Number of classes.
        abstain: As in `one_hot_votes`.
        smoothing: Added to every count.

    Returns:
        Log-probabilities, shape (K, C, V).
    """
    has_vote = (votes_NK >= 0).any(1)
    soft_NC = torch.from_numpy(majority_vote(votes_NK[has_vote], classes))
    one_hot_NKV = one_hot_votes(votes_NK[has_vote], classes, abstain)
    counts_KCV = torch.einsum("nc,nkv->kcv", soft_NC, one_hot_NKV) + smoothing
    return (counts_KCV / counts_KCV.sum(-1, keepdim=True)).log()


class SharedTransitions(nn.Module):
    """p_φk(ỹ_k|y): one matrix per labeling function, whatever the point (figure 3.1a)."""

    def __init__(self, initial_KCV: Tensor) -> None:
        super().__init__()
        self.logits_KCV = nn.Parameter(initial_KCV.clone())

    def forward(self, features_BD: Tensor, one_hot_BKV: Tensor) -> Tensor:
        """Σ_k log p(ỹ_k|y), shape (B, C)."""
        return shared_log_votes(one_hot_BKV, self.log_transitions())

    def log_transitions(self) -> Tensor:
        """Log-probabilities, shape (K, C, V)."""
        return self.logits_KCV.log_softmax(-1)


class PointwiseTransitions(nn.Module):
    """p(ỹ_k|y, φ_k = f_η(x)[k]): a network makes each point's matrices (figure 3.1b, 3.8)."""

    def __init__(
        self, inputs: int, initial_KCV: Tensor, hidden: Sequence[int], generator: torch.Generator
    ) -> None:
        super().__init__()
        self.shape_KCV = initial_KCV.shape
        self.network = mlp(inputs, initial_KCV.numel(), hidden, generator)
        last = list(self.network.modules())[-1]
        assert isinstance(last, nn.Linear)
        # Start from the majority vote's matrices at every point.
        with torch.no_grad():
            last.weight.zero_()
            last.bias.copy_(initial_KCV.flatten())

    def forward(self, features_BD: Tensor, one_hot_BKV: Tensor) -> Tensor:
        """Σ_k log p(ỹ_k|y, x), shape (B, C)."""
        return pointwise_log_votes(one_hot_BKV, self.log_transitions(features_BD))

    def log_transitions(self, features_BD: Tensor) -> Tensor:
        """Log-probabilities for each row, shape (B, K, C, V)."""
        return self.network(features_BD).unflatten(-1, self.shape_KCV).log_softmax(-1)
