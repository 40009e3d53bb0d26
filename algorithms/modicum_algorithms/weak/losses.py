"""The likelihoods of integrated weak learning, and cross-entropy with soft labels.

Shapes: B mini-batch, K labeling functions, C classes, V outcomes of a vote (C classes, then
abstain if it is an outcome).
"""

from __future__ import annotations

import torch
from torch import Tensor


def soft_cross_entropy(logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
    """Noise-aware loss −mean Σ_y q(y) log p_θ(y|x) for soft labels q.

    Args:
        logits_BC: Unnormalised log p_θ(y|x).
        targets_BC: Soft labels, rows sum to 1.
    """
    return -(targets_BC * logits_BC.log_softmax(-1)).sum(-1).mean()


def votes_log_likelihood(log_classes_BC: Tensor, log_votes_BC: Tensor) -> Tensor:
    """Log Σ_y p_θ(y|x) Π_k p(ỹ_k|y): equation 3.4 (and 3.8), in log space.

    Args:
        log_classes_BC: log p_θ(y|x).
        log_votes_BC: Σ_k log p(ỹ_k|y), from `shared_log_votes` or `pointwise_log_votes`.

    Returns:
        One log-likelihood per row, shape (B,).
    """
    return torch.logsumexp(log_classes_BC + log_votes_BC, dim=-1)


def strong_log_likelihood(log_classes_BC: Tensor, log_votes_BC: Tensor, labels_B: Tensor) -> Tensor:
    """L_S, equation 3.5: mean of log p_θ(y|x) + log Σ_y p_θ(y|x) Π_k p(ỹ_k|y).

    Args:
        log_classes_BC: log p_θ(y|x) of rows with strong labels.
        log_votes_BC: Σ_k log p(ỹ_k|y) of the same rows.
        labels_B: Strong labels.
    """
    log_strong_B = log_classes_BC.gather(-1, labels_B.unsqueeze(-1)).squeeze(-1)
    return (log_strong_B + votes_log_likelihood(log_classes_BC, log_votes_BC)).mean()


def weak_log_likelihood(log_classes_BC: Tensor, log_votes_BC: Tensor) -> Tensor:
    """L_W, equation 3.6: mean of log Σ_y p_θ(y|x) Π_k p(ỹ_k|y)."""
    return votes_log_likelihood(log_classes_BC, log_votes_BC).mean()


def shared_log_votes(one_hot_BKV: Tensor, log_transitions_KCV: Tensor) -> Tensor:
    """Σ_k log φ_k(ỹ_k|y) with one transition matrix per labeling function (equation 3.4).

    One matrix product over all labeling functions and outcomes at once.

    Args:
        one_hot_BKV: One-hot votes; all zero where a vote is left out of the product.
        log_transitions_KCV: log φ_k(ỹ_k = v | y = c); each row over v sums to one in
            probability.

    Returns:
        Shape (B, C).
    """
    return one_hot_BKV.flatten(1) @ log_transitions_KCV.transpose(1, 2).flatten(0, 1)


def pointwise_log_votes(one_hot_BKV: Tensor, log_transitions_BKCV: Tensor) -> Tensor:
    """Σ_k log p(ỹ_k|y, φ_k = f_η(x)[k]) with transition matrices of each point's own (3.8).

    Args:
        one_hot_BKV: One-hot votes; all zero where a vote is left out of the product.
        log_transitions_BKCV: log-transitions for each row.

    Returns:
        Shape (B, C).
    """
    return torch.einsum("bkv,bkcv->bc", one_hot_BKV, log_transitions_BKCV)
