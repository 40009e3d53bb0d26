"""The likelihoods of integrated weak learning, and cross-entropy with soft labels.

Shapes: B mini-batch, K labeling functions, C classes, V outcomes of a vote (C classes, then
abstain if it is an outcome).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def soft_cross_entropy(logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
    """Noise-aware loss −mean Σ_y q(y) log p_θ(y|x) for soft labels q.

    Args:
        logits_BC: Unnormalised log p_θ(y|x).
        targets_BC: Soft labels, rows sum to 1.
    """
    return -(targets_BC * logits_BC.log_softmax(-1)).sum(-1).mean()


def votes_log_likelihood(log_joint_BC: Tensor) -> Tensor:
    """Log Σ_y p_θ(y|x) p(ỹ|y, x): equation 3.4 (and 3.8, A.2), in log space.

    Args:
        log_joint_BC: log p_θ(y|x) + log p(ỹ|y, x).

    Returns:
        One log-likelihood per row, shape (B,).
    """
    return torch.logsumexp(log_joint_BC, dim=-1)


def marginal_strong_log_likelihood(
    log_classes_BC: Tensor, log_joint_BC: Tensor, labels_B: Tensor
) -> Tensor:
    """L_S as printed, equation 3.5: mean of log p_θ(y|x) + log Σ_y' p_θ(y'|x) p(ỹ|y', x).

    The known label enters the first term only: the second still sums over all classes.

    Args:
        log_classes_BC: log p_θ(y|x) of rows with strong labels.
        log_joint_BC: log p_θ(y|x) + log p(ỹ|y, x) of the same rows.
        labels_B: Strong labels.
    """
    return (_at(log_classes_BC, labels_B) + votes_log_likelihood(log_joint_BC)).mean()


def complete_strong_log_likelihood(log_joint_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Mean of log p_θ(y|x) + log p(ỹ|y, x) at the known y: the likelihood of complete data.

    What the votes say of y has no gradient here, so with all labels known the end model learns from
    them alone, and the label model learns from both.

    Args:
        log_joint_BC: log p_θ(y|x) + log p(ỹ|y, x) of rows with strong labels.
        labels_B: Strong labels.
    """
    return _at(log_joint_BC, labels_B).mean()


def _at(values_BC: Tensor, labels_B: Tensor) -> Tensor:
    return values_BC.gather(-1, labels_B.unsqueeze(-1)).squeeze(-1)


def tempered_prior(
    log_classes_BC: Tensor, end_model_weight: float, log_balance_C: Tensor
) -> Tensor:
    """What is known of y before the votes, w log p_θ(y|x) + (1 − w) log π(y), without gradient.

    Args:
        log_classes_BC: log p_θ(y|x).
        end_model_weight: w.
        log_balance_C: log π(y).

    Returns:
        Shape (B, C); not normalised.
    """
    return end_model_weight * log_classes_BC.detach() + (1 - end_model_weight) * log_balance_C


def tempered_posterior(
    log_classes_BC: Tensor, evidence_BC: Tensor, end_model_weight: float, log_balance_C: Tensor
) -> Tensor:
    """q(y) ∝ p_θ(y|x)^w π(y)^{1 − w} Π_k p(ỹ_k|y, x)^{w_k}, without gradient.

    With all powers 1 it is the posterior p(y|x, ỹ); with w = 0 it is what a two-stage method makes
    of the votes alone. Powers below 1 are the remedy of Miller and Dunson (2019, "Robust Bayesian
    Inference via Coarsening") where a likelihood is known to be wrong: labeling functions are not
    independent given y, so their product is too sure of itself.

    Args:
        log_classes_BC: log p_θ(y|x).
        evidence_BC: Σ_k w_k log p(ỹ_k|y, x).
        end_model_weight: w.
        log_balance_C: log π(y).
    """
    prior_BC = tempered_prior(log_classes_BC, end_model_weight, log_balance_C)
    return (prior_BC + evidence_BC.detach()).softmax(-1)


def weak_lower_bound(posterior_BC: Tensor, log_joint_BC: Tensor) -> Tensor:
    """Mean of Σ_y q(y) (log p_θ(y|x) p(ỹ|y, x) − log q(y)) with q held fixed.

    A lower bound of L_W (equation 3.6) for every q. Where q is the posterior it equals L_W, and by
    Fisher's identity so does its gradient.

    Args:
        posterior_BC: q, rows sum to 1.
        log_joint_BC: log p_θ(y|x) + log p(ỹ|y, x).
    """
    entropy_B = torch.special.entr(posterior_BC).sum(-1)
    return ((posterior_BC * log_joint_BC).sum(-1) + entropy_B).mean()


def balance_divergence(log_classes_BC: Tensor, balance_C: Tensor) -> Tensor:
    """KL(π ‖ mean of p_θ(y|x) over the batch): how far predictions are from a class balance π.

    Args:
        log_classes_BC: log p_θ(y|x).
        balance_C: π, sums to 1.
    """
    log_mean_C = torch.logsumexp(log_classes_BC, 0) - math.log(len(log_classes_BC))
    return (torch.special.xlogy(balance_C, balance_C) - balance_C * log_mean_C).sum()


def shared_log_votes(
    outcomes_BK: Tensor, weights_BK: Tensor, log_transitions_VKC: Tensor
) -> Tensor:
    """Σ_k w_k log φ_k(ỹ_k|y) with one transition matrix per labeling function (equation 3.4).

    Args:
        outcomes_BK: The outcome of every vote, int64.
        weights_BK: Powers of the votes: 1 for votes in the product, 0 for those left out.
        log_transitions_VKC: log φ_k(ỹ_k = v | y = c), a distribution over v.

    Returns:
        Shape (B, C).
    """
    matrices_LC = log_transitions_VKC.flatten(0, 1)  # row v·K + k
    functions = outcomes_BK.shape[1]
    places_BK = outcomes_BK * functions + torch.arange(functions)
    # The votes as indicators turn the sum into one matrix product, forwards and backwards.
    indicators_BL = matrices_LC.new_zeros(len(outcomes_BK), len(matrices_LC))
    indicators_BL.scatter_(1, places_BK, weights_BK.to(matrices_LC.dtype))
    return indicators_BL @ matrices_LC


def pointwise_log_votes(
    outcomes_BK: Tensor, weights_BK: Tensor, log_transitions_BVKC: Tensor
) -> Tensor:
    """Σ_k w_k log p(ỹ_k|y, φ_k = f_η(x)[k]) with transition matrices of each point's own (3.8).

    Args:
        outcomes_BK: The outcome of every vote, int64.
        weights_BK: Powers of the votes: 1 for votes in the product, 0 for those left out.
        log_transitions_BVKC: The logarithms of each row's transitions.

    Returns:
        Shape (B, C).
    """
    batch, _, functions, classes = log_transitions_BVKC.shape
    index_B1KC = outcomes_BK[:, None, :, None].expand(batch, 1, functions, classes)
    chosen_BKC = log_transitions_BVKC.gather(1, index_B1KC).squeeze(1)
    return (chosen_BKC * weights_BK.unsqueeze(-1)).sum(1)
