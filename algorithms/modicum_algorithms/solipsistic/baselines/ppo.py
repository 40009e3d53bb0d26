"""PPO with whole episodes, and networks like the recognition network (appendix C.2.3.1).

Shapes: N time steps of a batch.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor

from modicum_algorithms.solipsistic.episodic import EpisodicAlgorithm, EpisodicConfig
from modicum_algorithms.solipsistic.networks import Recognition
from modicum_algorithms.solipsistic.seeding import seeded
from modicum_algorithms.solipsistic.spaces import action_shape, observation_shape

# Observations that go through a network at once, which bounds memory.
_LARGEST_BATCH = 1024


def _parts(observations: Tensor) -> tuple[Tensor, ...]:
    return observations.chunk(math.ceil(len(observations) / _LARGEST_BATCH))


class ActorCriticModule(TorchRLModule, ValueFunctionAPI):
    """A policy and a value network that share nothing.

    Attributes:
        policy_network: From observations to the parameters of the actions' distribution.
        value_network: From observations to values.
    """

    observation_space: Any
    action_space: Any
    model_config: Any

    def setup(self) -> None:
        """Build the networks.

        Raises:
            InputError: The spaces or the recognition network do not go with them.
        """
        observation = observation_shape(self.observation_space)
        actions = action_shape(self.action_space)
        name = self.model_config["recognition"]
        # A normal distribution has a mean and a deviation for each number.
        outputs = actions.choices or 2 * actions.size
        self.policy_network = Recognition(observation, outputs, name)
        self.value_network = Recognition(observation, 1, name)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.policy_network(batch[Columns.OBS])}

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return self._forward(batch) | {Columns.EMBEDDINGS: self.value_network(batch[Columns.OBS])}

    def compute_values(self, batch: dict[str, Any], embeddings: Tensor | None = None) -> Tensor:
        """Values of N observations, shape (N,).

        Args:
            batch: Holds the observations.
            embeddings: The value network's outputs in a training pass. Without them, values are
                computed for advantages and bootstraps: no gradients, and batch normalisation by
                running statistics, as when acting.
        """
        if embeddings is None:
            was_training = self.training
            self.eval()
            with torch.no_grad():
                embeddings = torch.cat([self.value_network(x) for x in _parts(batch[Columns.OBS])])
            self.train(was_training)
        return embeddings.squeeze(-1)


class TrainingLogProbabilities(ConnectorV2):
    """Computes the actions' log-probabilities anew, with networks as they are in training.

    When acting, batch normalisation uses running statistics, in training those of the batch. The
    ratio of new to old probabilities would be away from 1 before anything was learnt, and clipped.
    """

    def __call__(self, *, rl_module: Any, batch: Any, episodes: Any, **kwargs: Any) -> Any:
        """Replace the log-probabilities in a batch that is complete."""
        for module_id, module_batch in batch.items():
            module = rl_module[module_id].unwrapped()
            module.train()
            with torch.no_grad():
                inputs = [module.policy_network(x) for x in _parts(module_batch[Columns.OBS])]
            distribution = module.get_train_action_dist_cls().from_logits(torch.cat(inputs))
            module_batch[Columns.ACTION_LOGP] = distribution.logp(module_batch[Columns.ACTIONS])
        return batch


class EpisodicPPOLearner(PPOTorchLearner):
    """RLlib's learner of PPO, for networks with batch normalisation."""

    _learner_connector: Any

    def build(self) -> None:
        """Build the learner."""
        super().build()
        self._learner_connector.append(TrainingLogProbabilities())


class EpisodicPPOConfig(EpisodicConfig, PPOConfig):
    """RLlib's PPO with the settings of appendix C.2.3.1.

    There: 5 episodes and 10 epochs an iteration, Adam with a learning rate of 3e-4, gamma 0.99,
    lambda 0.95, a weight of 0.5 for the value and of 0.01 for the entropy term, clip ratios of 0.1
    and 0.2. It refers to OpenAI Baselines for the rest, whose minibatches have 64 time steps.

    There is no penalty on the KL divergence, and the value's loss is not clipped: RLlib clips the
    squared error itself, so that values further off than `vf_clip_param` allows learn nothing.
    Gradients are not clipped either; RLlib's `grad_clip` can.
    """

    minibatch_size: Any  # RLlib types it as the default that it gives it

    def __init__(self, algo_class: Any = None) -> None:
        """Start from the thesis's settings."""
        super().__init__(algo_class=algo_class or EpisodicPPO)
        self.episodes_per_iteration = 5
        self.num_epochs = 10
        self.minibatch_size = 64
        self.lr = 3e-4
        self.gamma = 0.99
        self.lambda_ = 0.95
        self.clip_param = 0.2
        self.vf_loss_coeff = 0.5
        self.vf_clip_param = math.inf
        self.entropy_coeff = 0.01
        self.use_kl_loss = False

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """The module with separate networks."""
        return RLModuleSpec(module_class=ActorCriticModule, model_config=self.model_config)

    def get_default_learner_class(self) -> type[EpisodicPPOLearner]:
        """The learner for networks with batch normalisation."""
        return EpisodicPPOLearner


class EpisodicPPO(EpisodicAlgorithm, PPO):
    """RLlib's PPO, collecting whole episodes."""

    @classmethod
    def get_default_config(cls) -> EpisodicPPOConfig:
        """The thesis's settings."""
        return EpisodicPPOConfig()

    def training_step(self) -> None:
        """Collect an iteration's episodes and learn from them.

        Raises:
            InputError: An episode did not end within `max_episode_steps`.
            RuntimeError: The environment raised, or there is no runner left.
        """
        episodes = self.collect([None] * self.config.episodes_per_iteration)
        with seeded(self.counter.iteration_seed("update")):
            self.learn(
                episodes,
                num_epochs=self.config.num_epochs,
                minibatch_size=self.config.minibatch_size,
                shuffle_batch_per_epoch=self.config.shuffle_batch_per_epoch,
            )
        self.send_weights()
