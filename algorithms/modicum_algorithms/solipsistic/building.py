"""RLlib algorithms from the experiment's settings."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
from ray.rllib.core import DEFAULT_MODULE_ID

import modicum as md
from modicum_algorithms.solipsistic.algorithm import SolipsisticConfig
from modicum_algorithms.solipsistic.config import MNIST_GAME, MethodName, SolipsisticSettings
from modicum_algorithms.solipsistic.environments import environment_id, refusing_environment
from modicum_algorithms.solipsistic.environments.digit_images import found_images
from modicum_algorithms.solipsistic.episodic.algorithm import EpisodicAlgorithm
from modicum_algorithms.solipsistic.episodic.config import EpisodicConfig
from modicum_algorithms.solipsistic.methods.dqn import EpisodicDQNConfig
from modicum_algorithms.solipsistic.methods.ppo import EpisodicPPOConfig
from modicum_algorithms.solipsistic.rllib_settings import training_arguments

_CONFIGS: Mapping[MethodName, type[EpisodicConfig[Any]]] = {
    "solipsistic": SolipsisticConfig,
    "ppo": EpisodicPPOConfig,
    "dqn": EpisodicDQNConfig,
}


def quietly() -> contextlib.AbstractContextManager[None]:
    """Silence RLlib's notes on its own interfaces."""
    return md.quiet_loggers("ray.rllib", "ray._common.deprecation")


def algorithm_config(config: SolipsisticSettings, seed: int) -> EpisodicConfig[Any]:
    """RLlib's configuration of a trial."""
    found = _CONFIGS[config.method]()
    found.training(**training_arguments(config, found.options_class))
    arguments = config.environment_arguments
    if config.environment == MNIST_GAME:
        # A checkpoint names the images it was trained on, wherever it is loaded.
        arguments["images"] = found_images(arguments.get("images", "auto"))
    found.environment(environment_id(config.environment), env_config=arguments)
    found.env_runners(num_env_runners=config.environment_runners)
    found.learners(num_gpus_per_learner=config.gpus)
    found.evaluation(evaluation_duration=config.evaluation_episodes)
    found.debugging(seed=seed, log_level="ERROR")
    return found


def build_algorithm(config: SolipsisticSettings, seed: int) -> EpisodicAlgorithm:
    """Build the algorithm of a trial; everything random derives from the seed."""
    with quietly():
        algorithm: Any = algorithm_config(config, seed).build_algo()
    # RLlib makes a folder in the user's home, which stays empty.
    with contextlib.suppress(OSError):
        Path(algorithm.logdir).rmdir()
    assert isinstance(algorithm, EpisodicAlgorithm)
    return algorithm


def untrained_module(config: EpisodicConfig[Any]) -> Any:
    """An untrained RLModule on the spaces of the environment."""
    with refusing_environment(config.env), quietly():
        environment = gym.make(str(config.env), **config.env_config)
    spaces = (environment.observation_space, environment.action_space)
    environment.close()
    with quietly():
        return config.get_rl_module_spec(spaces={DEFAULT_MODULE_ID: spaces}).build()


def check_settings(config: SolipsisticSettings) -> None:
    """Raise an `InputError` if the environment, the settings and the networks do not fit."""
    found = algorithm_config(config, seed=0)
    untrained_module(found)
    with quietly():
        found.validate()
