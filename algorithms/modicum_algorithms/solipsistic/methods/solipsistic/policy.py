"""Planning in a model: by dynamic programming, or by a search for the weights of a policy.

Shapes: T time steps, S solipsistic states or their size, A actions or numbers of an action's
encoding, J policies (perturbations), N states or starts, P weights of a policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from modicum_algorithms.solipsistic.config import ImaginedReturn
from modicum_algorithms.solipsistic.networks import ActionShape
from modicum_algorithms.solipsistic.rllib_settings import SolipsisticAlgorithmOptions


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


@dataclass(frozen=True)
class PolicyNetwork:
    """Feed-forward network with two hidden layers and its weights in one vector.

    Attributes:
        state_size: Size of a solipsistic state, S.
        action: Form of the actions.
        hidden_units: Units in each hidden layer.
    """

    state_size: int
    action: ActionShape
    hidden_units: int

    @property
    def outputs(self) -> int:
        """Number of outputs: one logit for two actions, else one per action or continuous mean."""
        return 1 if self.action.choices == 2 else self.action.size

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of each layer."""
        units = self.hidden_units
        return ((self.state_size, units), (units, units), (units, self.outputs))

    @property
    def size(self) -> int:
        """Number of weights, P."""
        return sum(inputs * outputs + outputs for inputs, outputs in self.shapes)

    def initial_weights(self, generator: Generator) -> Tensor:
        """Random weights, uniform within 1/√inputs like torch's linear layers; shape (P,)."""
        parts = []
        for inputs, outputs in self.shapes:
            bound = 1 / math.sqrt(inputs)
            uniform = torch.rand(inputs * outputs + outputs, generator=generator)
            parts.append((2 * uniform - 1) * bound)
        return torch.cat(parts)

    def outputs_of(self, weights_JP: Tensor, states_JNS: Tensor) -> Tensor:
        """Logits or means of J policies in N states for each policy; shape (J, N, outputs)."""
        hidden = states_JNS
        start = 0
        for layer, (inputs, outputs) in enumerate(self.shapes):
            end = start + inputs * outputs
            matrix = weights_JP[:, start:end].reshape(-1, inputs, outputs)
            bias = weights_JP[:, None, end : end + outputs]
            start = end + outputs
            hidden = torch.baddbmm(bias, hidden, matrix)
            if layer + 1 < len(self.shapes):
                hidden = torch.relu(hidden)
        return hidden if self.action.choices is not None else torch.tanh(hidden)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Probability of each discrete action; shape (..., A)."""
        if self.action.choices == 2:
            second = torch.sigmoid(outputs)
            return torch.cat([1 - second, second], dim=-1)
        return torch.softmax(outputs, dim=-1)

    def sample(self, outputs: Tensor, generator: Generator) -> Tensor:
        """Encodings of actions drawn from the policy; shape (..., A).

        Continuous actions are the means: in planning, the perturbed weights explore.
        """
        if self.action.choices is None:
            return outputs
        probabilities = self.probabilities(outputs)
        uniform = torch.rand(
            (*probabilities.shape[:-1], 1), generator=generator, device=outputs.device
        )
        # The first action whose cumulative probability passes the draw; rounding may leave none.
        passed = (probabilities.cumsum(-1) <= uniform).sum(-1)
        return self.action.encode(passed.clamp(max=self.action.size - 1))


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
        generator: Generator of the actions, on the device of the states.

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


def fitness_shaping(objectives_J: Tensor) -> Tensor:
    """Utilities from the ranks of the objectives alone (reference [154] of the thesis).

    The k-th best of J perturbations gets max(0, log(J/2 + 1) − log k). The utilities are scaled to
    a sum of 1 and reduced by 1/J, so that they sum to 0. Equal objectives share the mean of their
    utilities, so that a constant objective moves nothing.

    Args:
        objectives_J: Objectives of J perturbations; larger is better.

    Returns:
        The utilities, shape (J,).
    """
    number = len(objectives_J)
    places = torch.arange(1, number + 1, dtype=torch.float32, device=objectives_J.device)
    utilities = torch.relu(math.log(number / 2 + 1) - torch.log(places))
    utilities = utilities / utilities.sum() - 1 / number
    distinct, group_J = torch.unique(objectives_J, return_inverse=True)
    order = objectives_J.argsort(descending=True, stable=True)
    sums = torch.zeros(len(distinct), device=utilities.device)
    counts = torch.zeros_like(sums)
    sums.index_add_(0, group_J[order], utilities)
    counts.index_add_(0, group_J[order], torch.ones_like(utilities))
    return (sums / counts)[group_J]


def perturbations(
    number: int, size: int, generator: Generator, *, antithetic: bool, device: torch.device | str
) -> Tensor:
    """Standard normal noise, shape (J, P), with `antithetic` in pairs of opposite sign."""
    if not antithetic:
        return torch.randn(number, size, generator=generator, device=device)
    half = torch.randn((number + 1) // 2, size, generator=generator, device=device)
    return torch.cat([half, -half])[:number]


def gradient(noise_JP: Tensor, utilities_J: Tensor, standard_deviation: float) -> Tensor:
    """Estimate of ∂U/∂μ (equation C.2), where U is minus the expected objective.

    With w = μ + σ ε, the score ∂ log p(w | μ, σ)/∂μ is ε / σ.

    Args:
        noise_JP: Standard normal noise ε.
        utilities_J: E(w) / J of each perturbation, or its shaped fitness instead.
        standard_deviation: Standard deviation σ of the perturbations.

    Returns:
        The gradient, shape (P,).
    """
    return -(utilities_J @ noise_JP) / standard_deviation


def maximise(
    objective: Callable[[Tensor], Tensor],
    mean_P: Tensor,
    options: SolipsisticAlgorithmOptions,
    generator: Generator,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Follow equation C.2 with fitness shaping and Adam (algorithm 1, lines 19 to 35).

    Args:
        objective: Function from parameters, shape (J, P), to their E(w), shape (J,).
        mean_P: Initial μ.
        options: Settings of the policy search: `policy_iterations`, `perturbations`,
            `perturbation_scale`, `policy_learning_rate` and `antithetic`.
        generator: Generator of the perturbations, on the device of μ.

    Yields:
        μ after each iteration, shape (P,), and the objectives seen in the iteration, shape (J,).
    """
    scale = options.perturbation_scale
    mean_P = mean_P.clone()
    adam = torch.optim.Adam([mean_P], lr=options.policy_learning_rate)
    for _ in range(options.policy_iterations):
        noise_JP = perturbations(
            options.perturbations,
            len(mean_P),
            generator,
            antithetic=options.antithetic,
            device=mean_P.device,
        )
        objectives_J = objective(mean_P + scale * noise_JP)  # line 25
        mean_P.grad = gradient(noise_JP, fitness_shaping(objectives_J), scale)  # line 34
        adam.step()
        yield mean_P.clone(), objectives_J
