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


def shared_log_votes(
    outcomes_BK: Tensor, counted_BK: Tensor, log_transitions_VKC: Tensor
) -> Tensor:
    """Σ_k log φ_k(ỹ_k|y) with one transition matrix per labeling function (equation 3.4).

    Args:
        outcomes_BK: The outcome of every vote, int64.
        counted_BK: 1 for votes in the product, 0 for those left out.
        log_transitions_VKC: log φ_k(ỹ_k = v | y = c), a distribution over v.

    Returns:
        Shape (B, C).
    """
    matrices_LC = log_transitions_VKC.flatten(0, 1)  # row v·K + k
    functions = outcomes_BK.shape[1]
    places_BK = outcomes_BK * functions + torch.arange(functions)
    # The votes as indicators turn the sum into one matrix product, forwards and backwards.
    indicators_BL = matrices_LC.new_zeros(len(outcomes_BK), len(matrices_LC))
    indicators_BL.scatter_(1, places_BK, counted_BK.to(matrices_LC.dtype))
    return indicators_BL @ matrices_LC


def pointwise_log_votes(
    outcomes_BK: Tensor, counted_BK: Tensor, log_transitions_BVKC: Tensor
) -> Tensor:
    """Σ_k log p(ỹ_k|y, φ_k = f_η(x)[k]) with transition matrices of each point's own (3.8).

    Args:
        outcomes_BK: The outcome of every vote, int64.
        counted_BK: 1 for votes in the product, 0 for those left out.
        log_transitions_BVKC: The logarithms of each row's transitions.

    Returns:
        Shape (B, C).
    """
    batch, _, functions, classes = log_transitions_BVKC.shape
    index_B1KC = outcomes_BK[:, None, :, None].expand(batch, 1, functions, classes)
    chosen_BKC = log_transitions_BVKC.gather(1, index_B1KC).squeeze(1)
    return (chosen_BKC * counted_BK.unsqueeze(-1)).sum(1)
