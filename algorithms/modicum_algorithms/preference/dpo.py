"""Direct preference optimisation (thesis section 6.2): pure functions of log-probabilities.

B: pairs; the last dimension of 2 holds the preferred completion y_w, then the other one y_l.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def implicit_rewards(
    log_probabilities: Tensor, reference_log_probabilities: Tensor, beta: float
) -> Tensor:
    """r̂(x, y) = β log(p_θ(y|x) / p_θ0(y|x)), of any shape.

    The thesis's equation 6.5 lacks the logarithm, which 6.4 and the derivation of 6.10 need.

    Args:
        log_probabilities: log p_θ(y|x): sums over a completion's tokens.
        reference_log_probabilities: log p_θ0(y|x), of the same shape.
        beta: Strength of the pull towards θ0.
    """
    return beta * (log_probabilities - reference_log_probabilities)  # (6.5)


def preference_log_odds(rewards_B2: Tensor) -> Tensor:
    """Log-odds that the first completion is preferred, by Bradley and Terry's model, shape (B,).

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
    label_smoothing: float = 0.0,
) -> Tensor:
    """The loss of each pair, shape (B,) (equation 6.4).

    L = −(1 − ε) log σ(z) − ε log σ(−z),
    z = β log p_θ(y_w|x)/p_θ0(y_w|x) − β log p_θ(y_l|x)/p_θ0(y_l|x)

    Its gradient for ε = 0 is equation 6.10: −β σ(−z) (∇ log p_θ(y_w|x) − ∇ log p_θ(y_l|x)). With
    ε > 0, labels are taken to be flipped with that probability (Mitchell, 2023: conservative DPO).

    Args:
        log_probabilities_B2: log p_θ of the preferred completion and of the other one.
        reference_log_probabilities_B2: The same of θ0.
        beta: Strength of the pull towards θ0.
        label_smoothing: ε, from 0 to below 1/2.
    """
    rewards_B2 = implicit_rewards(log_probabilities_B2, reference_log_probabilities_B2, beta)
    z_B = preference_log_odds(rewards_B2)
    return -(1 - label_smoothing) * logsigmoid(z_B) - label_smoothing * logsigmoid(-z_B)  # (6.4)


def rationale_loss(log_probabilities_B: Tensor, tokens_B: Tensor) -> Tensor:
    """Negative mean log-probability of a token of the oracle's rationale, shape (B,).

    The extra term that section 6.6 proposes; zero where there is no rationale.

    Args:
        log_probabilities_B: Sums over a rationale's tokens.
        tokens_B: How many tokens it has.
    """
    return -log_probabilities_B / torch.clamp(tokens_B, min=1)
