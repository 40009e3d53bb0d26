"""The terms of the objective, equation 5.4, as pure functions.

Shapes: N pairs of a predicted and an observed next state, S solipsistic state size, D
dimensions or states of a solipsistic state.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Of the Gaussian spread noise, with which the divergence is the squared distance (section 5.4.2).
SPREAD_VARIANCE = 0.5


def spread_divergence(means_ND: Tensor, other_means_ND: Tensor) -> Tensor:
    """Spread KL divergence between delta distributions (section 5.4.2).

    Both are blurred by Gaussian noise of variance 0.5, so it is KL(N(a, I/2) || N(b, I/2)) =
    ||a − b||².

    Args:
        means_ND: a, where the distributions lie.
        other_means_ND: b.

    Returns:
        Shape (N,).
    """
    return (means_ND - other_means_ND).square().sum(-1) / (2 * SPREAD_VARIANCE)


def categorical_divergence(log_p_ND: Tensor, log_q_ND: Tensor) -> Tensor:
    """KL(p || q) of categorical distributions in nats, shape (N,).

    Args:
        log_p_ND: Log-probabilities of D states.
        log_q_ND: The same.
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
    """Hinge that keeps a prediction away from observations it does not predict.

    The third term of equation 5.4: the mean of max(0, m − KL), or 0 where there is nothing to
    compare with.

    Args:
        divergences: Between predictions and states recognised elsewhere, any shape.
        margin: m; a divergence beyond it costs nothing.
    """
    return functional.relu(margin - divergences).sum() / max(1, divergences.numel())


def off_diagonal(values_NN: Tensor) -> Tensor:
    """All but each prediction's own observation (equation C.3); shape (N (N − 1),)."""
    return values_NN[~torch.eye(len(values_NN), dtype=torch.bool, device=values_NN.device)]


def contrastive_bottleneck(divergences_NN: Tensor) -> Tensor:
    """Information-bottleneck regulariser of equation 5.12, to be minimised.

    It is −[log p(s_t | x_t) − log Σ_i p(s_t | x_i)], where the sum is over the batch, t included.
    With densities p(s | x_i) ∝ exp(−KL(s || x_i)) the first term is the divergence between the
    prediction and its own observation, which for Gaussian spread noise is their squared distance.

    Args:
        divergences_NN: Between each prediction (rows) and each observation (columns), own
            observations on the diagonal.
    """
    return (divergences_NN.diagonal() + torch.logsumexp(-divergences_NN, dim=1)).mean()


def bernoulli_reward_loss(logits: Tensor, rewards: Tensor) -> Tensor:
    """−log p(r | s) for rewards in [0, 1], in nats, the second term of equation 5.4; same shape.

    Args:
        logits: Log-odds of a reward of 1.
        rewards: From 0 to 1.
    """
    return functional.binary_cross_entropy_with_logits(logits, rewards, reduction="none")


def gaussian_reward_loss(means: Tensor, rewards: Tensor) -> Tensor:
    """−log p(r | s) in nats, up to a constant, for a Gaussian of variance 1; same shape.

    Args:
        means: Predicted rewards.
        rewards: Received ones.
    """
    return (means - rewards).square() / 2
