"""The policy p_w(a | s) for many weight vectors at once (section 5.3.2, appendix C.2.2).

Shapes: J policies (perturbations), N states, S solipsistic state size, P weights of a policy,
A numbers of an action's encoding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from modicum_algorithms.solipsistic.networks.spaces import ActionShape


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
