"""Solipsistic reinforcement learning for RLlib: `SolipsisticConfig` and `Solipsistic`.

The comments give the line numbers of the thesis's algorithm 1; chapter 5 and appendix C describe
the method.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import LEARNER_RESULTS, LEARNER_UPDATE_TIMER

import modicum as md
from modicum_algorithms.solipsistic.episodic.algorithm import EpisodicAlgorithm
from modicum_algorithms.solipsistic.episodic.config import EpisodicConfig
from modicum_algorithms.solipsistic.methods.solipsistic.learner import SolipsisticLearner
from modicum_algorithms.solipsistic.methods.solipsistic.replay import (
    Trajectories,
    TrajectoryReplayBuffer,
)
from modicum_algorithms.solipsistic.methods.solipsistic.rl_module import (
    PRESENT,
    REWARDED,
    SolipsisticRLModule,
)
from modicum_algorithms.solipsistic.rllib_settings import SolipsisticAlgorithmOptions


class SolipsisticConfig(EpisodicConfig[SolipsisticAlgorithmOptions]):
    """Settings of `Solipsistic`, in RLlib's fluent style.

    `training` takes the fields of `SolipsisticAlgorithmOptions` beside RLlib's settings;
    `policy_lr` and RLlib's `lr` stand for `policy_learning_rate` and `learning_rate`. The defaults
    are those of the pixel CartPole study.

    ```python
    config = (
        SolipsisticConfig()
        .environment("modicum/PixelCartPole-v0")
        .training(model_updates=100, lr=1e-3)
        .debugging(seed=0)
    )
    algorithm = config.build_algo()
    ```
    """

    method_name = "solipsistic"
    options_class = SolipsisticAlgorithmOptions
    rl_module_class = SolipsisticRLModule
    default_learner_class = SolipsisticLearner

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or Solipsistic)

    def training(self, **settings: Any) -> Self:
        """Set what concerns training; settings that are left out keep their values.

        Args:
            **settings: Fields of `SolipsisticAlgorithmOptions`, and settings of RLlib's `training`.
                `exploration_rates` sets `episodes_per_iteration`, too.

        Raises:
            InputError: A setting is unknown.
        """
        super().training(**settings)
        rates = settings.get("exploration_rates")
        if rates is not None:
            self.episodes_per_iteration = len(rates)
        return self


class Solipsistic(EpisodicAlgorithm):
    """Solipsistic reinforcement learning (algorithm 1).

    Attributes:
        options: The method's settings.
        replay_buffer: The memory M; part of the checkpoints.
    """

    options: SolipsisticAlgorithmOptions
    replay_buffer: TrajectoryReplayBuffer

    @classmethod
    def get_default_config(cls) -> SolipsisticConfig:
        """The settings of the pixel CartPole study."""
        return SolipsisticConfig()

    def setup(self, config: Any) -> None:
        """Build the algorithm (lines 2 and 3)."""
        super().setup(config)
        self.options = self.config.options
        self.replay_buffer = TrajectoryReplayBuffer(
            self.options.replay_capacity, self.options.absorbing_steps
        )

    def training_step(self) -> None:
        """One iteration i of algorithm 1 (lines 4 to 37)."""
        episodes = self.collect(self.options.rates)  # lines 5 to 11 and 13
        self._check_rewards()
        self.replay_buffer.add(episodes)  # line 12
        self.replay_buffer.rng = np.random.default_rng(self.counter.iteration_seed("replay"))
        self._train_model()
        if self.options.dynamics == "memory":
            self._train_policy()
        self.send_weights()

    def _train_model(self) -> None:
        """Train the model by gradient (lines 14 to 17)."""
        options = self.options
        seed = self.counter.iteration_seed("model")
        self.learner_group.foreach_learner(lambda learner: learner.seed(seed))
        with self.timed("model", LEARNER_UPDATE_TIMER):
            for _ in range(options.model_updates):
                trajectories = self.replay_buffer.sample_trajectories(  # line 15
                    options.trajectories, options.trajectory_length
                )
                results = self.learner_group.update(batch=training_batch(trajectories))  # line 16
                self.metrics.aggregate(results, key=LEARNER_RESULTS)
            sample = self.replay_buffer.sample_observations(options.statistics_observations)
            self.learner_group.foreach_learner(lambda learner: learner.measure_statistics(sample))

    def _train_policy(self) -> None:
        """Search for a policy inside the model (lines 18 to 36), the same in every learner."""
        options = self.options
        count = options.policy_iterations * options.starts
        starts = self.replay_buffer.sample_observations(  # line 23
            count, first=options.start_frames == "first"
        )
        starts = starts.reshape(options.policy_iterations, options.starts, *starts.shape[1:])
        seed = self.counter.iteration_seed("policy")
        with self.timed("policy", "policy_search"):
            answers = self.learner_group.foreach_learner(
                lambda learner: learner.search_policy(starts, seed)
            )
        found = next(iter(answers)).get()
        self.metrics.log_dict(found, key=("policy",), window=1)

    def _check_rewards(self) -> None:
        if self.options.reward_distribution != "bernoulli":
            return
        rewards = np.concatenate([episode.get_rewards() for episode in self.collected])
        lowest, highest = rewards.min(), rewards.max()
        if lowest < 0 or highest > 1:
            raise md.InputError(
                "reward_distribution: bernoulli needs rewards in [0, 1], and the environment gave "
                f"{lowest:g} to {highest:g}; use gaussian"
            )

    def own_components(self) -> dict[str, Any]:
        """The counter and the replay buffer."""
        return super().own_components() | {"replay_buffer": self.replay_buffer}


def training_batch(trajectories: Trajectories) -> MultiAgentBatch:
    """Trajectories in the form that RLlib's learners take."""
    columns = {
        Columns.OBS: trajectories.observations,
        Columns.ACTIONS: trajectories.actions,
        Columns.REWARDS: trajectories.rewards,
        PRESENT: trajectories.present,
        REWARDED: trajectories.rewarded,
    }
    batch = SampleBatch(columns)
    return MultiAgentBatch({DEFAULT_MODULE_ID: batch}, env_steps=int(trajectories.present.sum()))
