"""DQN on whole episodes, with the networks of the solipsistic method (appendix C.2.3.2).

The settings are those of the PyTorch tutorial "Reinforcement Learning (DQN)" for pixels, to which
the appendix refers.
"""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
import torch
from ray.rllib.algorithms.dqn import DQN, DQNConfig
from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_PREDS, QF_TARGET_NEXT_PREDS
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.utils import make_target_network
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, QNetAPI, TargetNetworkAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.utils.metrics import REPLAY_BUFFER_RESULTS, TD_ERROR_KEY
from torch import nn

import modicum as md
from modicum_algorithms.solipsistic.episodic.algorithm import EpisodicAlgorithm
from modicum_algorithms.solipsistic.episodic.config import EpisodicConfig
from modicum_algorithms.solipsistic.networks import Recognition, action_shape, observation_shape
from modicum_algorithms.solipsistic.rllib_settings import DQNAlgorithmOptions

_REPLAY_BUFFER = "replay_buffer"


def decayed_rate(steps: float, initial: float, final: float, decay_steps: float) -> float:
    """Probability of a random action: it nears `final` by a factor of e every `decay_steps`."""
    return final + (initial - final) * math.exp(-steps / decay_steps)


class QModule(TorchRLModule, InferenceOnlyAPI, TargetNetworkAPI, QNetAPI):
    """A Q-network that acts greedily, or at random with a probability that decays at every step.

    Attributes:
        q_network: From observations to the actions' values.
        target_network: An earlier copy of `q_network`; only learners have it.
        exploration_rate: Probability that the next action is random.
    """

    observation_space: Any
    action_space: Any
    model_config: Any

    def setup(self) -> None:
        """Build the network."""
        actions = action_shape(self.action_space)
        if actions.choices is None:
            raise md.InputError(f"action_space: must be Discrete for DQN, got {self.action_space}")
        observation = observation_shape(self.observation_space)
        self.choices = actions.choices
        self.q_network = Recognition(observation, self.choices, self.model_config["recognition"])
        self.start_episode(None)

    def start_episode(self, exploration_rate: float | None) -> None:
        """Start an episode at an exploration rate; None takes the final rate."""
        final = self.model_config["final_exploration_rate"]
        self.exploration_rate = final if exploration_rate is None else exploration_rate

    def compute_q_values(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Values of the actions, under RLlib's key `QF_PREDS`."""
        return {QF_PREDS: self.q_network(batch[Columns.OBS])}

    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        with torch.no_grad():
            return {Columns.ACTIONS: self.compute_q_values(batch)[QF_PREDS].argmax(dim=-1)}

    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        greedy = self._forward_inference(batch)[Columns.ACTIONS]
        random = torch.randint(self.choices, greedy.shape)
        explore = torch.rand(greedy.shape) < self.exploration_rate
        # Exponential decay has no memory: it continues from any rate.
        self.exploration_rate = decayed_rate(
            1,
            self.exploration_rate,
            self.model_config["final_exploration_rate"],
            self.model_config["exploration_decay_steps"],
        )
        return {Columns.ACTIONS: torch.where(explore, random, greedy)}

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        target = self.forward_target({Columns.OBS: batch[Columns.NEXT_OBS]})
        return self.compute_q_values(batch) | {QF_TARGET_NEXT_PREDS: target[QF_PREDS]}

    def forward_target(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Values of the actions by the target network."""
        return {QF_PREDS: self.target_network(batch[Columns.OBS])}

    def make_target_networks(self) -> None:
        """Make the target network, a copy of the Q-network."""
        self.target_network = make_target_network(self.q_network).eval()

    def replace_target_network(self) -> None:
        """Copy the Q-network to the target network, batch normalisation's statistics included."""
        self.target_network.load_state_dict(self.q_network.state_dict())

    def get_target_network_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """The Q-network and its target."""
        return [(self.q_network, self.target_network)]

    def get_non_inference_attributes(self) -> list[str]:
        """Names of the attributes that acting does not need."""
        return ["target_network"]

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode, but leave the target network in evaluation mode."""
        super().train(mode)
        if hasattr(self, "target_network"):
            self.target_network.eval()
        return self


class QLearner(DQNTorchLearner):
    """RLlib's DQN learner with the tutorial's optimiser."""

    metrics: Any
    module: Any

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Make the optimiser, RMSprop with torch's defaults."""
        parameters = self.get_parameters(self.module[module_id])
        self.register_optimizer(
            module_id=module_id,
            optimizer=torch.optim.RMSprop(parameters),
            params=parameters,
            lr_or_lr_schedule=config.lr,
        )

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> Any:
        """RLlib's loss."""
        loss = super().compute_loss_for_module(
            module_id=module_id, config=config, batch=batch, fwd_out=fwd_out
        )
        # Only prioritised replay needs the error of every sample.
        self.metrics.delete(module_id, TD_ERROR_KEY)
        return loss

    def replace_target_networks(self) -> None:
        """Copy the Q-networks to the target networks."""
        self.module.foreach_module(lambda _, module: module.unwrapped().replace_target_network())


class EpisodicDQNConfig(EpisodicConfig[DQNAlgorithmOptions], DQNConfig):
    """RLlib's DQN, reduced to the original algorithm, with the settings of the PyTorch tutorial.

    The tutorial draws batches of 128 uniformly from the last 10,000 transitions. It has gamma
    0.999, an exploration rate that decays from 0.9 to 0.05, the Huber loss, gradients clipped to
    [-1, 1], RMSprop with torch's defaults, one update per environment step, and a new target
    network after every 10 episodes. The thesis collects one episode an iteration.

    The updates are made after the iteration's episodes, where the tutorial makes one after each
    step: the policy does not change within an episode. The exploration rate decays with the steps
    of the iterations before and those of the episode itself.
    """

    method_name = "dqn"
    options_class = DQNAlgorithmOptions
    rl_module_class = QModule
    default_learner_class = QLearner

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or EpisodicDQN)

    def validate(self) -> None:
        """Raise an `InputError` for a setting that is not allowed."""
        super().validate()
        if self.replay_buffer_config["type"] != "EpisodeReplayBuffer":
            raise md.InputError(
                "replay_buffer_config: type must be EpisodeReplayBuffer, got "
                f"{self.replay_buffer_config['type']}"
            )
        self.require(
            {
                "double_q": False, "dueling": False, "noisy": False, "num_atoms": 1, "n_step": 1,
                "target_network_update_freq": math.inf,
            }
        )  # fmt: skip


class EpisodicDQN(EpisodicAlgorithm, DQN):
    """RLlib's DQN, collecting whole episodes."""

    @classmethod
    def get_default_config(cls) -> EpisodicDQNConfig:
        """The settings of the tutorial."""
        return EpisodicDQNConfig()

    def training_step(self) -> None:
        """Collect an iteration's episodes, and make `updates_per_step` updates for each step."""
        config, buffer = self.config, self.local_replay_buffer
        steps_before, episodes_before = buffer.get_added_timesteps(), self.counter.episodes
        rate = decayed_rate(
            steps_before,
            config.initial_exploration_rate,
            config.final_exploration_rate,
            config.exploration_decay_steps,
        )
        buffer.add(self.collect([rate] * config.episodes_per_iteration))
        steps = buffer.get_added_timesteps()
        updates = 0
        if steps >= config.num_steps_sampled_before_learning_starts:
            # Fractions of updates add up over iterations.
            updates = int(config.updates_per_step * steps) - int(
                config.updates_per_step * steps_before
            )
        buffer.rng = np.random.default_rng(self.counter.iteration_seed("replay"))
        with md.seeded(self.counter.iteration_seed("update")):
            for _ in range(updates):
                self.learn(
                    buffer.sample(
                        num_items=config.total_train_batch_size, n_step=1, sample_episodes=True
                    )
                )
        self.metrics.aggregate([buffer.get_metrics()], key=REPLAY_BUFFER_RESULTS)
        period = config.target_update_episodes
        if self.counter.episodes // period > episodes_before // period:
            self.learner_group.foreach_learner(lambda learner: learner.replace_target_networks())
        self.send_weights()

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The algorithm's state, and the content of the replay buffer."""
        state = super().get_state(components, not_components=not_components, **kwargs)
        if self._check_component(_REPLAY_BUFFER, components, not_components):
            state[_REPLAY_BUFFER] = self.local_replay_buffer.get_state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a stored state."""
        super().set_state(state)
        if _REPLAY_BUFFER in state:
            self.local_replay_buffer.episodes.clear()  # RLlib would keep them
            self.local_replay_buffer.set_state(state[_REPLAY_BUFFER])
