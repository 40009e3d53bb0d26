"""Planning with the Markov model by exact dynamic programming (section 5.3.1).

Shapes: T time steps, S solipsistic states, A actions.
"""

from __future__ import annotations

import torch
from torch import Tensor


def state_values(transitions_ASS: Tensor, rewards_S: Tensor, horizon: int) -> Tensor:
    """Value of each state for every number of remaining steps (equation 5.8).

    Args:
        transitions_ASS: Probabilities p(s' | s, a), indexed by action, state, next state.
        rewards_S: Expected reward R(s) of each state.
        horizon: Steps of the plan, T.

    Returns:
        Shape (T, S). Row k holds the values with k steps to take; the thesis's V(s_t) is row T − t,
        and the last row is V(s_1).
    """
    values = [rewards_S]  # V(s_T) = R(s_T)
    for _ in range(horizon - 1):
        values.append(rewards_S + (transitions_ASS @ values[-1]).max(dim=0).values)
    return torch.stack(values)


def action_values(beliefs: Tensor, transitions_ASS: Tensor, next_values_S: Tensor) -> Tensor:
    """Value of each first action of a plan (equations 5.9 and 5.10).

    Args:
        beliefs: Recognition p(s_t | x_t), shape (..., S).
        transitions_ASS: Probabilities p(s' | s, a).
        next_values_S: Values V(s_{t+1}), a row of `state_values`.

    Returns:
        Shape (..., A).
    """
    return beliefs @ (transitions_ASS @ next_values_S).T
