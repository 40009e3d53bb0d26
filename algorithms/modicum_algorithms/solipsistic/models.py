"""The two models of section 5.2: Markov with discrete states, and with memory.

Shapes: B trajectories, T time steps, N observations, S solipsistic states or their size, A
numbers of an action's encoding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import modicum as md
from modicum_algorithms.solipsistic import losses
from modicum_algorithms.solipsistic.names import (
    RecognitionName,
    RewardName,
    StateBound,
    TransitionName,
)
from modicum_algorithms.solipsistic.networks import Recognition
from modicum_algorithms.solipsistic.spaces import ActionShape, ObservationShape

_REWARD_HIDDEN_UNITS = 32
_TRANSITION_HIDDEN_UNITS = 64
# Of a discrete state's logits, times that of a linear layer's usual initialisation.
_INITIAL_SPREAD = 10


@dataclass(frozen=True)
class ModelSpec:
    """What a model is built from.

    Attributes:
        observation: What is recognised.
        action: What transitions depend on.
        state_size: Numbers of a solipsistic state, or number of discrete states.
        recognition: Name of the recognition network.
        state_bound: Whether recognised states are squashed into (-1, 1), where a GRU's states
            stay, or not; the memory model's.
        transition: The memory model's recurrent cell.
        reward: p(r | s).
    """

    observation: ObservationShape
    action: ActionShape
    state_size: int
    recognition: RecognitionName = "auto"
    state_bound: StateBound = "none"
    transition: TransitionName = "residual"
    reward: RewardName = "bernoulli"


class SolipsisticModel(nn.Module, ABC):
    """Recognition p(s | x), transition and reward p(r | s), for one kind of solipsistic state.

    What the two kinds share is the objective: a state is whatever `divergence` compares.
    """

    def __init__(self, spec: ModelSpec) -> None:
        """Build the recognition network.

        Raises:
            InputError: The recognition network does not go with the observations.
        """
        super().__init__()
        self.spec = spec
        self.recognition = Recognition(spec.observation, spec.state_size, spec.recognition)

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
            steps: How many steps ahead predictions run from every recognised state; None for all
                the way from the first one alone.

        Returns:
            Tensors of predictions, the last of whose time steps is t = T in each: shapes
            (B, T', S).
        """

    @abstractmethod
    def reward_outputs(self, states: Tensor) -> Tensor:
        """Logits or means of p(r | s), shape of `states` without its last axis."""

    @abstractmethod
    def divergence(self, predicted: Tensor, recognised: Tensor) -> Tensor:
        """KL between a predicted and a recognised state, for pairs along the last axis."""

    @abstractmethod
    def pairwise_divergence(self, predicted_NS: Tensor, recognised_MS: Tensor) -> Tensor:
        """`divergence` of every pair, shape (N, M)."""

    def expected_reward(self, states: Tensor) -> Tensor:
        """R(s), the mean of p(r | s)."""
        outputs = self.reward_outputs(states)
        return torch.sigmoid(outputs) if self.spec.reward == "bernoulli" else outputs

    def reward_loss(self, states: Tensor, rewards: Tensor) -> Tensor:
        """−log p(r | s) of each state and reward."""
        outputs = self.reward_outputs(states)
        if self.spec.reward == "bernoulli":
            return losses.bernoulli_reward_loss(outputs, rewards)
        return losses.gaussian_reward_loss(outputs, rewards)


class MemoryModel(SolipsisticModel):
    """Continuous states, p(s | x) = δ(s − g(x)), and recurrent transitions (section 5.3.2).

    The transition's memory is the predicted state itself (appendix C.2.2). It starts as a
    recognised state and takes one action a step, so predictions run on without looking at the
    observations between.
    """

    def __init__(self, spec: ModelSpec) -> None:
        """Build the networks.

        Raises:
            InputError: As `SolipsisticModel`.
        """
        super().__init__(spec)
        self.transition: nn.GRUCell | ResidualCell
        cell = nn.GRUCell if spec.transition == "gru" else ResidualCell
        self.transition = cell(spec.action.size, spec.state_size)
        self.reward = nn.Sequential(
            nn.Linear(spec.state_size, _REWARD_HIDDEN_UNITS),
            nn.ReLU(),
            nn.Linear(_REWARD_HIDDEN_UNITS, 1),
        )

    def recognise(self, observations: Tensor) -> Tensor:
        """g(x), shape (N, S)."""
        states = self.recognition(observations)
        return torch.tanh(states) if self.spec.state_bound == "tanh" else states

    def step(self, states_BS: Tensor, actions_BA: Tensor) -> Tensor:
        """f(h): the next state, shape (B, S)."""
        return self.transition(actions_BA, states_BS)

    def predictions(
        self, recognised_BTS: Tensor, actions_BTA: Tensor, steps: int | None
    ) -> list[Tensor]:
        """Open-loop predictions, from the first recognised state or from all of them at once.

        From all of them, the k-th tensor of the result looks k steps ahead.
        """
        if steps is None:
            return [self._from_first(recognised_BTS[:, 0], actions_BTA)]
        state_size, action_size = recognised_BTS.shape[-1], actions_BTA.shape[-1]
        batch, length = actions_BTA.shape[:2]
        states, found = recognised_BTS, []
        for ahead in range(min(steps, length)):
            # One more step from each state that is not the last.
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
        """Of a small network on the state."""
        return self.reward(states).squeeze(-1)

    def divergence(self, predicted: Tensor, recognised: Tensor) -> Tensor:
        """Spread KL divergence: the squared distance."""
        return losses.spread_divergence(predicted, recognised)

    def pairwise_divergence(self, predicted_NS: Tensor, recognised_MS: Tensor) -> Tensor:
        """Squared distances."""
        return losses.pairwise_spread_divergence(predicted_NS, recognised_MS)


class ResidualCell(nn.Module):
    """A recurrent cell that adds a small network's output to its memory.

    Physical states change little in a step, which such a cell does from the start, whereas a GRU
    must first learn to keep its memory, and what actions do.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        """Build the network."""
        super().__init__()
        self.change = nn.Sequential(
            nn.Linear(hidden_size + input_size, _TRANSITION_HIDDEN_UNITS),
            nn.ReLU(),
            nn.Linear(_TRANSITION_HIDDEN_UNITS, hidden_size),
        )

    def forward(self, inputs: Tensor, memory: Tensor) -> Tensor:
        """The next memory, with arguments in a GRU cell's order; shape (B, hidden_size)."""
        change: Tensor = self.change(torch.cat([memory, inputs], dim=-1))
        return memory + change


class MarkovModel(SolipsisticModel):
    """Discrete states with a transition matrix for each action (sections 5.3.1 and 5.4.1).

    States are logarithms of probabilities of the discrete states.
    """

    def __init__(self, spec: ModelSpec) -> None:
        """Build the networks and matrices.

        Raises:
            InputError: As `SolipsisticModel`, or the actions are continuous.
        """
        if spec.action.choices is None:
            raise md.InputError("dynamics: must be memory where actions are continuous, got markov")
        super().__init__(spec)
        # Observations that start with nearly the same distribution, or transitions near uniform,
        # end as one state and do not part again.
        last = self.recognition.layers[-1]
        assert isinstance(last, nn.Linear)
        last.weight.data.mul_(_INITIAL_SPREAD)
        size = spec.state_size
        self.transition_logits_ASS = nn.Parameter(torch.randn(spec.action.size, size, size))
        self.reward_outputs_S = nn.Parameter(torch.zeros(size))

    @property
    def transitions(self) -> Tensor:
        """p(s' | s, a), indexed by action, state, next state; shape (A, S, S)."""
        return self.transition_logits_ASS.softmax(-1)

    @property
    def expected_rewards(self) -> Tensor:
        """R(s) of each discrete state; shape (S,)."""
        if self.spec.reward == "bernoulli":
            return torch.sigmoid(self.reward_outputs_S)
        return self.reward_outputs_S

    def recognise(self, observations: Tensor) -> Tensor:
        """Log p(s | x), shape (N, S)."""
        return self.recognition(observations).log_softmax(-1)

    def predictions(
        self, recognised_BTS: Tensor, actions_BTA: Tensor, steps: int | None
    ) -> list[Tensor]:
        """Log p(s_{t+1} | x_t, a_t), one step from each observation (equation 5.1)."""
        before = recognised_BTS[:, :-1].exp()
        transitions_BTSS = torch.einsum("bta,asn->btsn", actions_BTA, self.transitions)
        after = torch.einsum("bts,btsn->btn", before, transitions_BTSS)
        # A softmax can round to 0, whose logarithm has no gradient.
        return [after.clamp_min(torch.finfo(after.dtype).tiny).log()]

    def reward_outputs(self, states: Tensor) -> Tensor:
        """Logit or mean of p(r | x) = Σ_s p(r | s) p(s | x)."""
        expected = states.exp() @ self.expected_rewards
        if self.spec.reward == "bernoulli":
            return torch.logit(expected, eps=1e-6)
        return expected

    def divergence(self, predicted: Tensor, recognised: Tensor) -> Tensor:
        """Categorical KL."""
        return losses.categorical_divergence(predicted, recognised)

    def pairwise_divergence(self, predicted_NS: Tensor, recognised_MS: Tensor) -> Tensor:
        """Categorical KL of every pair."""
        return losses.pairwise_categorical_divergence(predicted_NS, recognised_MS)
