"""PPO on whole episodes, with the networks of the solipsistic method (appendix C.2.3.1).

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
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor

import modicum as md
from modicum_algorithms.solipsistic.episodic.algorithm import EpisodicAlgorithm
from modicum_algorithms.solipsistic.episodic.config import EpisodicConfig
from modicum_algorithms.solipsistic.networks import Recognition, action_shape, observation_shape
from modicum_algorithms.solipsistic.rllib_settings import PPOAlgorithmOptions

# Most observations that go through a network at once, to bound memory.
_LARGEST_BATCH = 1024


def _parts(observations: Tensor) -> tuple[Tensor, ...]:
    return observations.chunk(math.ceil(len(observations) / _LARGEST_BATCH))


class ActorCriticModule(TorchRLModule, ValueFunctionAPI):
    """A policy network and a value network without shared weights.

    Attributes:
        policy_network: From observations to the parameters of the actions' distribution.
        value_network: From observations to values.
    """

    observation_space: Any
    action_space: Any
    model_config: Any

    def setup(self) -> None:
        """Build the networks."""
        observation = observation_shape(self.observation_space)
        actions = action_shape(self.action_space)
        name = self.model_config["recognition"]
        # A normal distribution has a mean and a standard deviation for each dimension.
        outputs = actions.choices or 2 * actions.size
        self.policy_network = Recognition(observation, outputs, name)
        self.value_network = Recognition(observation, 1, name)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.policy_network(batch[Columns.OBS])}

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return self._forward(batch) | {Columns.EMBEDDINGS: self.value_network(batch[Columns.OBS])}

    def compute_values(self, batch: dict[str, Any], embeddings: Tensor | None = None) -> Tensor:
        """Values of N observations, shape (N,).

        Embeddings are the value network's outputs in a training pass. Without them, the values are
        computed for advantages and bootstraps: without gradients, and with batch normalisation by
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
    """Recomputes the actions' log-probabilities with the networks in training mode.

    Batch normalisation uses running statistics in acting and the batch's statistics in training.
    With the log-probabilities of acting, the ratio of new to old probabilities would differ from 1,
    and be clipped, before anything was learnt.
    """

    def __call__(self, *, rl_module: Any, batch: Any, episodes: Any, **kwargs: Any) -> Any:
        """Replace the log-probabilities in a complete batch."""
        for module_id, module_batch in batch.items():
            module = rl_module[module_id].unwrapped()
            module.train()
            with torch.no_grad():
                inputs = [module.policy_network(x) for x in _parts(module_batch[Columns.OBS])]
            distribution = module.get_train_action_dist_cls().from_logits(torch.cat(inputs))
            module_batch[Columns.ACTION_LOGP] = distribution.logp(module_batch[Columns.ACTIONS])
        return batch


class EpisodicPPOLearner(PPOTorchLearner):
    """RLlib's PPO learner, for networks with batch normalisation."""

    _learner_connector: Any

    def build(self) -> None:
        """Build the learner."""
        super().build()
        self._learner_connector.append(TrainingLogProbabilities())


class EpisodicPPOConfig(EpisodicConfig[PPOAlgorithmOptions], PPOConfig):
    """RLlib's PPO with the settings of appendix C.2.3.1.

    The appendix has 5 episodes and 10 epochs an iteration, Adam with a learning rate of 3e-4, gamma
    0.99, lambda 0.95, a weight of 0.5 for the value loss and of 0.01 for the entropy, and clip
    ratios of 0.1 and 0.2. It refers to OpenAI Baselines for the rest, whose mini-batches have 64
    time steps.

    There is no penalty on the KL divergence, and the value loss is not clipped: RLlib clips the
    squared error itself, so that values further off than `vf_clip_param` learn nothing. Gradients
    are not clipped either; RLlib's `grad_clip` can.
    """

    method_name = "ppo"
    options_class = PPOAlgorithmOptions
    rl_module_class = ActorCriticModule
    default_learner_class = EpisodicPPOLearner

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or EpisodicPPO)


class EpisodicPPO(EpisodicAlgorithm, PPO):
    """RLlib's PPO, collecting whole episodes."""

    @classmethod
    def get_default_config(cls) -> EpisodicPPOConfig:
        """The settings of the thesis."""
        return EpisodicPPOConfig()

    def training_step(self) -> None:
        """Collect an iteration's episodes and learn from them."""
        episodes = self.collect([None] * self.config.episodes_per_iteration)
        with md.seeded(self.counter.iteration_seed("update")):
            self.learn(
                episodes,
                num_epochs=self.config.num_epochs,
                minibatch_size=self.config.minibatch_size,
                shuffle_batch_per_epoch=self.config.shuffle_batch_per_epoch,
            )
        self.send_weights()
