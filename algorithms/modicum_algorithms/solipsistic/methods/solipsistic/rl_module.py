"""The RLModule of solipsistic reinforcement learning: a model, and a policy or plan on its states.

Shapes: N observations, B trajectories, T time steps, S solipsistic state size, P weights of a
policy, A numbers of an action's encoding.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor

import modicum as md
from modicum_algorithms.solipsistic.methods.solipsistic.models import MarkovModel, MemoryModel
from modicum_algorithms.solipsistic.methods.solipsistic.policy import (
    PolicyNetwork,
    action_values,
    state_values,
)
from modicum_algorithms.solipsistic.networks import action_shape, observation_shape
from modicum_algorithms.solipsistic.rllib_settings import SolipsisticAlgorithmOptions

# Columns of a training batch beside RLlib's; see `replay.Trajectories`.
PRESENT = "present"
REWARDED = "rewarded"
# Outputs of the forward pass in training.
RECOGNISED = "recognised"
PREDICTED = "predicted"


class SolipsisticRLModule(TorchRLModule):
    """Acts by a policy on recognised states (memory model), or by planning (Markov model).

    Attributes:
        options: The method's settings, from RLlib's `model_config`.
        model: The trained model.
        averaged_model: Moving average of the trained model. It recognises states in acting, and the
            policy is searched in it, since single updates move the trained model a lot.
        policy_weights_P: Policy of the memory model.
    """

    options: SolipsisticAlgorithmOptions
    model: MemoryModel | MarkovModel
    averaged_model: MemoryModel | MarkovModel
    model_config: Any
    policy_weights_P: Tensor

    def setup(self) -> None:
        """Build the model and the policy."""
        fields = SolipsisticAlgorithmOptions.model_fields
        self.options = options = SolipsisticAlgorithmOptions(
            **{name: self.model_config[name] for name in fields}
        )
        self.action = action_shape(self.action_space)
        model = MarkovModel if options.dynamics == "markov" else MemoryModel
        self.model = model(observation_shape(self.observation_space), self.action, options)
        self.averaged_model = copy.deepcopy(self.model).requires_grad_(False)
        if isinstance(self.model, MemoryModel):
            self.policy = PolicyNetwork(options.state_size, self.action, options.policy_units)
            generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
            # A buffer instead of a parameter: gradients never train the policy.
            self.register_buffer("policy_weights_P", self.policy.initial_weights(generator))
        self._exploration_rate = 0.0
        self._step = 0
        self._predicted_NS: Tensor | None = None

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """Move the averaged model, whose weight is `decay`, towards the trained one."""
        pairs = zip(self.averaged_model.parameters(), self.model.parameters(), strict=True)
        for averaged, trained in pairs:
            averaged.lerp_(trained, 1 - decay)

    def set_state(self, state: dict[str, Any]) -> None:
        """Take stored weights and statistics."""
        own = self.state_dict()
        # RLlib would take part of another module's state, or refuse it without naming anything.
        for name in sorted({*own, *state}):
            here, there = (
                np.shape(values[name]) if name in values else None for values in (own, state)
            )
            if here != there:
                raise md.InputError(
                    "checkpoint: must be of an algorithm with the same dynamics, state_size, "
                    "recognition, transition and policy_units and the same spaces; its "
                    f"{name} has the shape {there}, here it is {here}"
                )
        super().set_state(state)

    def start_episode(self, exploration_rate: float | None) -> None:
        """Begin an episode, with a probability of random actions; None for no random actions."""
        self._exploration_rate = exploration_rate or 0.0
        self._step = 0
        self._predicted_NS = None

    # --- Acting (section 5.3; algorithm 1, lines 8 and 9) ---

    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTIONS: self._act(batch[Columns.OBS], explore=False)}

    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTIONS: self._act(batch[Columns.OBS], explore=True)}

    @torch.no_grad()
    def _act(self, observations: Tensor, *, explore: bool) -> Tensor:
        self.eval()
        states_NS = self._predicted_NS  # without `replanning`, from the second step on
        if states_NS is None:
            states_NS = self.averaged_model.recognise(observations)
        if isinstance(self.averaged_model, MarkovModel):
            actions = self._planned_actions(self.averaged_model, states_NS)
        else:
            actions = self._policy_actions(states_NS, explore=explore)
        if explore:
            actions = self._explored(actions)
        if isinstance(self.averaged_model, MemoryModel) and not self.options.replanning:
            self._predicted_NS = self.averaged_model.step(states_NS, self.action.encode(actions))
        self._step += 1
        return actions

    def _policy_actions(self, states_NS: Tensor, *, explore: bool) -> Tensor:
        outputs = self.policy.outputs_of(self.policy_weights_P[None], states_NS[None])[0]
        if self.action.choices is None:
            return outputs
        probabilities = self.policy.probabilities(outputs)
        if explore:
            return torch.multinomial(probabilities, 1).squeeze(-1)
        return probabilities.argmax(-1)

    def _planned_actions(self, model: MarkovModel, states_NS: Tensor) -> Tensor:
        transitions_ASS, rewards_S = model.transitions, model.expected_rewards
        # The horizon shrinks as the episode goes on, to one step at least.
        left = max(1, self.options.horizon - 1 - self._step)
        next_values_S = state_values(transitions_ASS, rewards_S, left)[-1]
        return action_values(states_NS.exp(), transitions_ASS, next_values_S).argmax(-1)

    def _explored(self, actions: Tensor) -> Tensor:
        if self.action.choices is None:
            noisy = actions + self.options.action_noise * torch.randn_like(actions)
            random = 2 * torch.rand_like(actions) - 1
        else:
            noisy, random = actions, torch.randint_like(actions, self.action.choices)
        at_random = torch.rand(len(actions), device=actions.device) < self._exploration_rate
        if actions.ndim > 1:
            at_random = at_random[:, None]
        chosen = torch.where(at_random, random, noisy)
        return chosen if self.action.choices is not None else chosen.clamp(-1, 1)

    # --- Training (section 5.2.1) ---

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Recognised states at t = 1 … T and predictions of the states at t = 2 … T.

        For the shapes of the predictions see `SolipsisticModel.predictions`.
        """
        self.train()
        present_BT = batch[PRESENT]
        recognised = self.model.recognise(batch[Columns.OBS][present_BT])
        # Padding would disturb batch normalisation, so the network does not see it.
        recognised_BTS = recognised.new_zeros(*present_BT.shape, recognised.shape[-1])
        recognised_BTS[present_BT] = recognised
        actions_BTA = self.action.encode(batch[Columns.ACTIONS])
        return {
            RECOGNISED: recognised_BTS,
            PREDICTED: self.model.predictions(
                recognised_BTS, actions_BTA, self.options.prediction_steps
            ),
        }
