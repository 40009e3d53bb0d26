"""Terms of the objective (equation 5.4) as pure functions.

Shapes: N pairs of a predicted and an observed next state, S solipsistic state size, D
dimensions or states of a solipsistic state.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Variance of the Gaussian spread noise that makes the divergence the squared distance (5.4.2).
SPREAD_VARIANCE = 0.5


def spread_divergence(means_ND: Tensor, other_means_ND: Tensor) -> Tensor:
    """Spread KL divergence between delta distributions (section 5.4.2).

    Gaussian noise of variance 0.5 blurs both distributions, and the divergence is
    KL(N(a, I/2) || N(b, I/2)) = ||a − b||².

    Args:
        means_ND: Positions a of the first distributions.
        other_means_ND: Positions b of the second distributions.

    Returns:
        Shape (N,).
    """
    return (means_ND - other_means_ND).square().sum(-1) / (2 * SPREAD_VARIANCE)


def categorical_divergence(log_p_ND: Tensor, log_q_ND: Tensor) -> Tensor:
    """KL(p || q) of categorical distributions in nats, shape (N,).

    Args:
        log_p_ND: Log-probabilities p of D states.
        log_q_ND: Log-probabilities q of D states.
    """
    return (log_p_ND.exp() * (log_p_ND - log_q_ND)).sum(-1)


def pairwise_spread_divergence(means_ND: Tensor, other_means_MD: Tensor) -> Tensor:
    """`spread_divergence` of every pair; shape (N, M)."""
    # Without a matrix product, whose cancellation costs digits where two states are close.
    distances_NM = torch.cdist(
        means_ND, other_means_MD, compute_mode="donot_use_mm_for_euclid_dist"
    )
    return distances_NM.square() / (2 * SPREAD_VARIANCE)


def pairwise_categorical_divergence(log_p_ND: Tensor, log_q_MD: Tensor) -> Tensor:
    """`categorical_divergence` of every pair; shape (N, M)."""
    p_ND = log_p_ND.exp()
    return (p_ND * log_p_ND).sum(-1, keepdim=True) - p_ND @ log_q_MD.T


def contrast(divergences: Tensor, margin: float) -> Tensor:
    """Hinge that keeps a prediction away from observations that it does not predict.

    The third term of equation 5.4: the mean of max(0, m − KL), or 0 without any divergences.

    Args:
        divergences: Divergences between predictions and states recognised elsewhere, any shape.
        margin: Margin m; divergences above it cost nothing.
    """
    return functional.relu(margin - divergences).sum() / max(1, divergences.numel())


def off_diagonal(values_NN: Tensor) -> Tensor:
    """All values outside the diagonal, as equation C.3 takes them; shape (N (N − 1),)."""
    return values_NN[~torch.eye(len(values_NN), dtype=torch.bool, device=values_NN.device)]


def contrastive_bottleneck(divergences_NN: Tensor) -> Tensor:
    """Information-bottleneck regulariser of equation 5.12, to be minimised.

    The regulariser is −[log p(s_t | x_t) − log Σ_i p(s_t | x_i)], where the sum is over the batch,
    t included. With densities p(s | x_i) ∝ exp(−KL(s || x_i)), the first term is the divergence
    between the prediction and its own observation: for Gaussian spread noise, the squared distance.

    Args:
        divergences_NN: Divergences between each prediction (row) and each observation (column);
            the diagonal pairs predictions with their own observations.
    """
    return (divergences_NN.diagonal() + torch.logsumexp(-divergences_NN, dim=1)).mean()


def bernoulli_reward_loss(logits: Tensor, rewards: Tensor) -> Tensor:
    """Negative log-likelihood −log p(r | s) of rewards in [0, 1], in nats (equation 5.4, term 2).

    Args:
        logits: Log-odds of a reward of 1.
        rewards: Rewards from 0 to 1, same shape.

    Returns:
        The loss of each reward, same shape.
    """
    return functional.binary_cross_entropy_with_logits(logits, rewards, reduction="none")


def gaussian_reward_loss(means: Tensor, rewards: Tensor) -> Tensor:
    """Negative log-likelihood −log p(r | s) of a Gaussian of variance 1, in nats, up to a constant.

    Args:
        means: Predicted rewards.
        rewards: Received rewards, same shape.

    Returns:
        The loss of each reward, same shape.
    """
    return (means - rewards).square() / 2
