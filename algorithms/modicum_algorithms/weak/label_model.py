"""Label models: transition matrices, shared by all points (iWL) or made from x (iWLD).

Shapes: N rows, B mini-batch, D features, K labeling functions, C classes, V outcomes of a vote.
Outcomes come first in a matrix, φ[v, k, c] = p(ỹ_k = v | y = c): normalising over a leading
dimension is many times faster than over a short last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from modicum_algorithms.weak.end_model import mlp
from modicum_algorithms.weak.losses import pointwise_log_votes, shared_log_votes
from modicum_algorithms.weak.majority_vote import majority_vote


@dataclass(frozen=True)
class Votes:
    """Votes as outcomes of a label model.

    Attributes:
        outcomes_NK: Outcome of every vote, int64, below `size`.
        counted_NK: 1 for votes in the product over labeling functions, 0 for those left out.
        size: Number of outcomes V.
    """

    outcomes_NK: Tensor
    counted_NK: Tensor
    size: int

    @classmethod
    def of(cls, votes_NK: np.ndarray, classes: int, abstain: str) -> Votes:
        """Votes (-1 is an abstain) as outcomes.

        Args:
            votes_NK: The votes.
            classes: Number of classes.
            abstain: `emission` makes abstain the last of C + 1 outcomes (section 3.2.1);
                `missing` leaves abstains out of the product.
        """
        voted_NK = votes_NK >= 0
        if abstain == "emission":
            outcomes, counted = np.where(voted_NK, votes_NK, classes), np.ones_like(voted_NK)
        else:
            outcomes, counted = np.where(voted_NK, votes_NK, 0), voted_NK
        return cls(
            torch.from_numpy(outcomes.astype(np.int64)),
            torch.from_numpy(counted.astype(np.float32)),
            classes + 1 if abstain == "emission" else classes,
        )

    def rows(self, rows_B: Tensor) -> Votes:
        """Some of the rows."""
        return Votes(self.outcomes_NK[rows_B], self.counted_NK[rows_B], self.size)


def majority_vote_transitions(
    votes_NK: np.ndarray, classes: int, abstain: str, smoothing: float
) -> Tensor:
    """Transition matrices counted against the majority vote, to start from (section 3.4.1).

    φ_k(v|c) ∝ smoothing + Σ_n q_n(c) 1[ỹ_k = v], with q the majority vote of covered rows.

    Args:
        votes_NK: Votes, -1 is an abstain.
        classes: Number of classes.
        abstain: As in `Votes.of`.
        smoothing: Added to every count.

    Returns:
        Log-probabilities, shape (V, K, C).
    """
    covered_NK = votes_NK[(votes_NK >= 0).any(1)]
    soft_NC = majority_vote(covered_NK, classes)
    outcomes = range(classes) if abstain == "missing" else [*range(classes), -1]
    counts_VKC = np.stack([(covered_NK == v).T.astype(np.float32) @ soft_NC for v in outcomes])
    counts_VKC += smoothing
    return torch.from_numpy(np.log(counts_VKC / counts_VKC.sum(0)))


class SharedTransitions(nn.Module):
    """p_φk(ỹ_k|y): one matrix per labeling function, whatever the point (figure 3.1a)."""

    def __init__(self, initial_VKC: Tensor) -> None:
        super().__init__()
        self.logits_VKC = nn.Parameter(initial_VKC.clone())

    def forward(self, features_BD: Tensor, votes: Votes) -> Tensor:
        """Σ_k log p(ỹ_k|y), shape (B, C)."""
        return shared_log_votes(votes.outcomes_NK, votes.counted_NK, self.log_transitions())

    def log_transitions(self) -> Tensor:
        """Log-probabilities, shape (V, K, C)."""
        return self.logits_VKC.log_softmax(0)


class PointwiseTransitions(nn.Module):
    """p(ỹ_k|y, φ_k = f_η(x)[k]): a network makes each point's matrices (figure 3.1b, 3.8)."""

    def __init__(
        self, inputs: int, initial_VKC: Tensor, hidden: Sequence[int], generator: torch.Generator
    ) -> None:
        super().__init__()
        self.shape_VKC = initial_VKC.shape
        self.network = mlp(inputs, initial_VKC.numel(), hidden, generator)
        last = list(self.network.modules())[-1]
        assert isinstance(last, nn.Linear)
        # Start from the majority vote's matrices at every point.
        with torch.no_grad():
            last.weight.zero_()
            last.bias.copy_(initial_VKC.flatten())

    def forward(self, features_BD: Tensor, votes: Votes) -> Tensor:
        """Σ_k log p(ỹ_k|y, x), shape (B, C)."""
        log_transitions_BVKC = self.log_transitions(features_BD)
        return pointwise_log_votes(votes.outcomes_NK, votes.counted_NK, log_transitions_BVKC)

    def log_transitions(self, features_BD: Tensor) -> Tensor:
        """Log-probabilities for each row, shape (B, V, K, C)."""
        outcomes = self.shape_VKC[0]
        logits_BVL = self.network(features_BD).unflatten(-1, (outcomes, -1))
        return logits_BVL.log_softmax(1).unflatten(-1, self.shape_VKC[1:])
