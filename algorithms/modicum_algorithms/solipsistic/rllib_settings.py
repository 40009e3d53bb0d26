"""Settings of the RLlib configurations: those of `config`, and those that only scripts can set."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

import modicum as md
from modicum_algorithms.solipsistic.config import (
    DQNOptions,
    EpisodicOptions,
    MethodName,
    PPOOptions,
    SolipsisticOptions,
)

# Settings that RLlib's configurations hold under another name.
_RLLIB_NAMES = {
    "learning_rate": "lr",
    "policy_learning_rate": "policy_lr",
    "clip": "clip_param",
}

# RLlib's own settings where the methods depart from RLlib's defaults: PPO's are those of appendix
# C.2.3.1 (with the mini-batches of OpenAI Baselines), DQN's those of PyTorch's tutorial
# "Reinforcement Learning (DQN)", to which appendix C.2.3.2 refers.
RLLIB_SETTINGS: Mapping[MethodName, Mapping[str, Any]] = {
    "solipsistic": {"lr": 3e-3, "grad_clip": 10.0, "grad_clip_by": "global_norm"},
    "ppo": {
        "num_epochs": 10,
        "minibatch_size": 64,
        "lr": 3e-4,
        "gamma": 0.99,
        "lambda_": 0.95,
        "vf_loss_coeff": 0.5,
        "vf_clip_param": math.inf,
        "entropy_coeff": 0.01,
        "use_kl_loss": False,
    },
    "dqn": {
        "lr": 0.01,
        "gamma": 0.999,
        "train_batch_size_per_learner": 128,
        "num_steps_sampled_before_learning_starts": 128,
        "replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": 10_000},
        "grad_clip": 1.0,
        "grad_clip_by": "value",
        "td_error_loss_fn": "huber",
        "double_q": False,
        "dueling": False,
        # RLlib counts environment steps here; `target_update_episodes` counts episodes.
        "target_network_update_freq": math.inf,
    },
}


def rllib_name(setting: str) -> str:
    """Name under which RLlib's configurations hold a setting of this module."""
    return _RLLIB_NAMES.get(setting, setting)


class EpisodicAlgorithmOptions(EpisodicOptions):
    """Settings of an RLlib configuration that collects whole episodes."""

    episodes_per_iteration: int = md.setting(
        description="Episodes that an iteration collects.", unit="episodes", ge=1
    )
    max_episode_steps: int | None = md.setting(
        10_000,
        description="Steps within which every episode has to end; None for no limit.",
        unit="steps",
        ge=1,
    )


class SolipsisticAlgorithmOptions(EpisodicAlgorithmOptions, SolipsisticOptions):
    """Settings of `SolipsisticConfig`."""

    exploration_rates: tuple[Annotated[float, Field(ge=0, le=1)], ...] | None = md.setting(
        None,
        description="Probability of a random action in each episode of an iteration, which sets "
        "episodes_per_iteration; None for first_exploration_rate in the first episode and "
        "exploration_rate in the others.",
    )
    policy_units: int = md.setting(
        50, description="Units in each of the policy's two hidden layers.", ge=1
    )
    antithetic: bool = md.setting(True, description="Draw perturbations in pairs of opposite sign.")
    statistics_observations: int = md.setting(
        1_000,
        description="Observations on which the statistics of batch normalisation are measured "
        "after the updates.",
        ge=1,
    )
    replay_capacity: int = md.setting(
        100_000, description="Time steps that the replay buffer keeps.", unit="steps", ge=1
    )

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        if len(self.rates) != self.episodes_per_iteration:
            raise ValueError(
                "episodes_per_iteration: must be the number of exploration_rates, "
                f"{len(self.rates)}, got {self.episodes_per_iteration}"
            )
        if self.imagined_return == "survival" and self.reward_distribution != "bernoulli":
            raise ValueError(
                "imagined_return: survival needs reward_distribution bernoulli, whose rewards are "
                "probabilities"
            )
        if self.contrast == "same_time" and self.trajectories < 2:
            raise ValueError("trajectories: must be at least 2 with contrast same_time")
        return self

    @property
    def rates(self) -> tuple[float, ...]:
        """Probability of a random action in each episode of an iteration."""
        if self.exploration_rates is not None:
            return self.exploration_rates
        others = (self.exploration_rate,) * (self.episodes_per_iteration - 1)
        return (self.first_exploration_rate, *others)


class PPOAlgorithmOptions(EpisodicAlgorithmOptions, PPOOptions):
    """Settings of `EpisodicPPOConfig`."""


class DQNAlgorithmOptions(EpisodicAlgorithmOptions, DQNOptions):
    """Settings of `EpisodicDQNConfig`."""

    target_update_episodes: int = md.setting(
        10,
        description="Episodes between two replacements of the target network.",
        unit="episodes",
        ge=1,
    )
    initial_exploration_rate: float = md.setting(
        0.9, description="Probability of a random action at the first step.", ge=0.0, le=1.0
    )
    final_exploration_rate: float = md.setting(
        0.05,
        description="Probability of a random action towards which the rate decays.",
        ge=0.0,
        le=1.0,
    )
    exploration_decay_steps: float = md.setting(
        200.0,
        description="Environment steps in which the rate's distance from the final rate shrinks "
        "by a factor of e.",
        unit="steps",
        gt=0.0,
    )


def training_arguments(
    settings: md.Config, options: type[EpisodicAlgorithmOptions]
) -> dict[str, Any]:
    """Keyword arguments of `training`: fields of `options` that the settings have.

    They have the names of RLlib's configurations. A learning rate that is None is left out.
    """
    values = {
        rllib_name(name): getattr(settings, name)
        for name in options.model_fields
        if hasattr(settings, name)
    }
    return {name: value for name, value in values.items() if (name, value) != ("lr", None)}
