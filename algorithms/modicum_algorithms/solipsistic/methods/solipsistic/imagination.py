"""Roll-outs of all perturbed policies at once inside the model (algorithm 1, lines 21 to 33).

Shapes: J policies (perturbations), N starts, S solipsistic state size, P weights of a policy,
A numbers of an action's encoding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from modicum_algorithms.solipsistic.methods.solipsistic.policy import PolicyNetwork
from modicum_algorithms.solipsistic.names import ImaginedReturn


def imagined_returns(
    policy: PolicyNetwork,
    weights_JP: Tensor,
    starts_NS: Tensor,
    *,
    transition: Callable[[Tensor, Tensor], Tensor],
    reward: Callable[[Tensor], Tensor],
    horizon: int,
    kind: ImaginedReturn,
    generator: Generator,
) -> Tensor:
    """Return of each policy from each start (equation 5.11).

    Args:
        policy: Network of the policies.
        weights_JP: Weights of a policy in each row.
        starts_NS: Recognised states, the same for every policy.
        transition: Function from states (B, S) and encoded actions (B, A) to the next states
            (B, S). The state holds all of the model's memory, like the GRU of appendix C.2.2.
        reward: Function from states (B, S) to expected rewards R(s), shape (B,).
        horizon: Steps, T_policy.
        kind: `sum` adds up the rewards (thesis). `survival` takes a reward for the probability of
            staying alive at a step, and adds up the probabilities of being alive until each step.
        generator: Random generator of the actions, on the device of the states.

    Returns:
        Shape (J, N).
    """
    number, starts = len(weights_JP), len(starts_NS)
    states = starts_NS.repeat(number, 1)
    total = torch.zeros(number * starts, device=states.device)
    alive = torch.ones_like(total)
    for step in range(horizon):
        rewards = reward(states)  # line 29
        if kind == "survival":
            alive = alive * rewards
            rewards = alive
        total = total + rewards  # line 32
        if step + 1 == horizon:
            break
        outputs = policy.outputs_of(weights_JP, states.view(number, starts, -1))
        actions = policy.sample(outputs, generator)  # line 27
        states = transition(states, actions.reshape(number * starts, -1))  # line 30
    return total.view(number, starts)
