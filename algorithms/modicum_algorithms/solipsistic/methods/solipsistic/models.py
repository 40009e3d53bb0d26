"""The two models of section 5.2: the Markov model with discrete states, and the memory model.

Shapes: B trajectories, T time steps, N observations, S solipsistic states or their size, A
numbers of an action's encoding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

import modicum as md
from modicum_algorithms.solipsistic.config import SolipsisticOptions
from modicum_algorithms.solipsistic.methods.solipsistic import losses
from modicum_algorithms.solipsistic.networks import ActionShape, ObservationShape, Recognition

_REWARD_HIDDEN_UNITS = 32
_TRANSITION_HIDDEN_UNITS = 64
# Factor on the usual initial weights of the linear layer that gives the discrete states' logits.
_INITIAL_SPREAD = 10


class SolipsisticModel(nn.Module, ABC):
    """Recognition p(s | x), transition and reward p(r | s) for one kind of solipsistic state.

    Both kinds of state share the objective, which compares states by `divergence`.
    """

    def __init__(
        self, observation: ObservationShape, action: ActionShape, options: SolipsisticOptions
    ) -> None:
        super().__init__()
        self.options = options
        self.bernoulli = options.reward_distribution == "bernoulli"
        self.recognition = Recognition(observation, options.state_size, options.recognition)

    @abstractmethod
    def recognise(self, observations: Tensor) -> Tensor:
        """Recognised states of N observations, shape (N, S)."""

    @abstractmethod
    def predictions(
        self, recognised_BTS: Tensor, actions_BTA: Tensor, steps: int | None
    ) -> list[Tensor]:
        """Predictions of the states at t = 2 … T.

        Args:
            recognised_BTS: States recognised at t = 1 … T.
            actions_BTA: Encoded actions at t = 1 … T − 1.
            steps: Number of steps to predict ahead from every recognised state; None predicts from
                the first state to the end.

        Returns:
            Tensors of predictions, shapes (B, T', S). Each ends with the prediction of t = T.
        """

    @abstractmethod
    def reward_outputs(self, states: Tensor) -> Tensor:
        """Logits or means of p(r | s), in the shape of `states` without the last axis."""

    @abstractmethod
    def divergence(self, predicted: Tensor, recognised: Tensor) -> Tensor:
        """KL divergence between predicted and recognised states, over the last axis."""

    @abstractmethod
    def pairwise_divergence(self, predicted_NS: Tensor, recognised_MS: Tensor) -> Tensor:
        """`divergence` of every pair, shape (N, M)."""

    def expected_reward(self, states: Tensor) -> Tensor:
        """Expected reward R(s), the mean of p(r | s)."""
        outputs = self.reward_outputs(states)
        return torch.sigmoid(outputs) if self.bernoulli else outputs

    def reward_loss(self, states: Tensor, rewards: Tensor) -> Tensor:
        """Negative log-likelihood −log p(r | s) of each state and reward."""
        loss = losses.bernoulli_reward_loss if self.bernoulli else losses.gaussian_reward_loss
        return loss(self.reward_outputs(states), rewards)


class MemoryModel(SolipsisticModel):
    """Continuous states, p(s | x) = δ(s − g(x)), and recurrent transitions (section 5.3.2).

    The predicted state itself is the memory of the transition (appendix C.2.2). A prediction starts
    from a recognised state, takes one action a step, and sees no observations in between.
    """

    def __init__(
        self, observation: ObservationShape, action: ActionShape, options: SolipsisticOptions
    ) -> None:
        super().__init__(observation, action, options)
        self.transition: nn.GRUCell | ResidualCell
        cell = nn.GRUCell if options.transition == "gru" else ResidualCell
        self.transition = cell(action.size, options.state_size)
        self.reward = nn.Sequential(
            nn.Linear(options.state_size, _REWARD_HIDDEN_UNITS),
            nn.ReLU(),
            nn.Linear(_REWARD_HIDDEN_UNITS, 1),
        )

    def recognise(self, observations: Tensor) -> Tensor:
        """Recognised states g(x), shape (N, S)."""
        states = self.recognition(observations)
        return torch.tanh(states) if self.options.state_bound == "tanh" else states

    def step(self, states_BS: Tensor, actions_BA: Tensor) -> Tensor:
        """Next state f(s, a), shape (B, S)."""
        return self.transition(actions_BA, states_BS)

    def predictions(
        self, recognised_BTS: Tensor, actions_BTA: Tensor, steps: int | None
    ) -> list[Tensor]:
        """Open-loop predictions from the first recognised state, or from all of them at once.

        In predictions from all states, the k-th tensor looks k steps ahead.
        """
        if steps is None:
            return [self._from_first(recognised_BTS[:, 0], actions_BTA)]
        state_size, action_size = recognised_BTS.shape[-1], actions_BTA.shape[-1]
        batch, length = actions_BTA.shape[:2]
        states, found = recognised_BTS, []
        for ahead in range(min(steps, length)):
            # One more step from each state but the last.
            states_NS = states[:, : length - ahead].reshape(-1, state_size)
            actions_NA = actions_BTA[:, ahead:].reshape(-1, action_size)
            states = self.step(states_NS, actions_NA).view(batch, length - ahead, state_size)
            found.append(states)
        return found

    def _from_first(self, state_BS: Tensor, actions_BTA: Tensor) -> Tensor:
        predicted = []
        for actions_BA in actions_BTA.unbind(1):
            state_BS = self.step(state_BS, actions_BA)
            predicted.append(state_BS)
        return torch.stack(predicted, dim=1)

    def reward_outputs(self, states: Tensor) -> Tensor:
        """Logits or means of a small network on the state."""
        return self.reward(states).squeeze(-1)

    def divergence(self, predicted: Tensor, recognised: Tensor) -> Tensor:
        """Spread KL divergence, the squared distance."""
        return losses.spread_divergence(predicted, recognised)

    def pairwise_divergence(self, predicted_NS: Tensor, recognised_MS: Tensor) -> Tensor:
        """Squared distance of every pair."""
        return losses.pairwise_spread_divergence(predicted_NS, recognised_MS)


class ResidualCell(nn.Module):
    """Recurrent cell that adds the output of a small network to its memory.

    Physical states change little in a step, and so does this cell's memory from the start. A GRU
    must first learn to keep its memory and to listen to actions.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.change = nn.Sequential(
            nn.Linear(hidden_size + input_size, _TRANSITION_HIDDEN_UNITS),
            nn.ReLU(),
            nn.Linear(_TRANSITION_HIDDEN_UNITS, hidden_size),
        )

    def forward(self, inputs: Tensor, memory: Tensor) -> Tensor:
        """Next memory, shape (B, hidden_size); the arguments are in the order of a GRU cell's."""
        change: Tensor = self.change(torch.cat([memory, inputs], dim=-1))
        return memory + change


class MarkovModel(SolipsisticModel):
    """Discrete states with a transition matrix for each action (sections 5.3.1 and 5.4.1).

    A state is a vector of the discrete states' log-probabilities.
    """

    def __init__(
        self, observation: ObservationShape, action: ActionShape, options: SolipsisticOptions
    ) -> None:
        if action.choices is None:
            raise md.InputError("dynamics: must be memory where actions are continuous, got markov")
        super().__init__(observation, action, options)
        # Observations that start with nearly the same distribution, or with transitions that are
        # nearly uniform, collapse into one state and do not part again.
        last = self.recognition.layers[-1]
        assert isinstance(last, nn.Linear)
        last.weight.data.mul_(_INITIAL_SPREAD)
        size = options.state_size
        self.transition_logits_ASS = nn.Parameter(torch.randn(action.size, size, size))
        self.reward_outputs_S = nn.Parameter(torch.zeros(size))

    @property
    def transitions(self) -> Tensor:
        """Probabilities p(s' | s, a), indexed by action, state, next state; shape (A, S, S)."""
        return self.transition_logits_ASS.softmax(-1)

    @property
    def expected_rewards(self) -> Tensor:
        """Expected reward R(s) of each discrete state; shape (S,)."""
        return torch.sigmoid(self.reward_outputs_S) if self.bernoulli else self.reward_outputs_S

    def recognise(self, observations: Tensor) -> Tensor:
        """Log-probabilities log p(s | x), shape (N, S)."""
        return self.recognition(observations).log_softmax(-1)

    def predictions(
        self, recognised_BTS: Tensor, actions_BTA: Tensor, steps: int | None
    ) -> list[Tensor]:
        """Predictions log p(s_{t+1} | x_t, a_t), one step from each observation (equation 5.1)."""
        before = recognised_BTS[:, :-1].exp()
        transitions_BTSS = torch.einsum("bta,asn->btsn", actions_BTA, self.transitions)
        after = torch.einsum("bts,btsn->btn", before, transitions_BTSS)
        # A softmax can round to 0, whose logarithm has no gradient.
        return [after.clamp_min(torch.finfo(after.dtype).tiny).log()]

    def reward_outputs(self, states: Tensor) -> Tensor:
        """Logits or means of p(r | x) = Σ_s p(r | s) p(s | x)."""
        expected = states.exp() @ self.expected_rewards
        return torch.logit(expected, eps=1e-6) if self.bernoulli else expected

    def divergence(self, predicted: Tensor, recognised: Tensor) -> Tensor:
        """Categorical KL divergence."""
        return losses.categorical_divergence(predicted, recognised)

    def pairwise_divergence(self, predicted_NS: Tensor, recognised_MS: Tensor) -> Tensor:
        """Categorical KL divergence of every pair."""
        return losses.pairwise_categorical_divergence(predicted_NS, recognised_MS)
