"""Direct preference optimisation (thesis section 6.2): pure functions of log-probabilities.

B: pairs; the last dimension, of size 2, holds the preferred completion y_w and the other one y_l.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def implicit_rewards(
    log_probabilities: Tensor, reference_log_probabilities: Tensor, beta: float
) -> Tensor:
    """Implicit rewards r̂(x, y) = β log(p_θ(y|x) / p_θ0(y|x)), of any shape.

    The thesis's equation 6.5 lacks the logarithm, which 6.4 and the derivation of 6.10 need.

    Args:
        log_probabilities: log p_θ(y|x), summed over the completion's tokens.
        reference_log_probabilities: log p_θ0(y|x), of the same shape.
        beta: β, the strength of the pull towards θ0.
    """
    return beta * (log_probabilities - reference_log_probabilities)  # (6.5)


def preference_log_odds(rewards_B2: Tensor) -> Tensor:
    """Log-odds that the first completion is preferred, under the Bradley–Terry model, shape (B,).

    p(y_w ≻ y_l | x) = σ(r̂(x, y_w) − r̂(x, y_l)).

    Args:
        rewards_B2: Implicit rewards of both completions.
    """
    return rewards_B2[..., 0] - rewards_B2[..., 1]


def dpo_loss(
    log_probabilities_B2: Tensor,
    reference_log_probabilities_B2: Tensor,
    *,
    beta: float,
    label_smoothing: float,
) -> Tensor:
    """DPO loss of each pair, shape (B,) (equation 6.4).

    L = −(1 − ε) log σ(z) − ε log σ(−z),
    z = β log p_θ(y_w|x)/p_θ0(y_w|x) − β log p_θ(y_l|x)/p_θ0(y_l|x)

    Its gradient for ε = 0 is equation 6.10: −β σ(−z) (∇ log p_θ(y_w|x) − ∇ log p_θ(y_l|x)). With
    ε > 0, each label is assumed to be flipped with probability ε (Mitchell, 2023: conservative
    DPO).

    Args:
        log_probabilities_B2: log p_θ of the preferred completion and of the other one.
        reference_log_probabilities_B2: log p_θ0 of the same completions.
        beta: β, the strength of the pull towards θ0.
        label_smoothing: ε, from 0 to below 1/2.
    """
    rewards_B2 = implicit_rewards(log_probabilities_B2, reference_log_probabilities_B2, beta)
    z_B = preference_log_odds(rewards_B2)
    return -(1 - label_smoothing) * logsigmoid(z_B) - label_smoothing * logsigmoid(-z_B)  # (6.4)


def rationale_loss(log_probabilities_B: Tensor, tokens_B: Tensor) -> Tensor:
    """Mean negative log-likelihood of the tokens of the oracle's rationale, shape (B,).

    The additional term that section 6.6 proposes; zero for a pair without a rationale.

    Args:
        log_probabilities_B: Log-probabilities of the rationales, summed over their tokens.
        tokens_B: Numbers of tokens of the rationales.
    """
    return -log_probabilities_B / torch.clamp(tokens_B, min=1)
