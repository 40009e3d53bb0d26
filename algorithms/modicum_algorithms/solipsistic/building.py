"""RLlib's algorithm of an experiment's settings."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
from ray.rllib.core import DEFAULT_MODULE_ID

import modicum as md
from modicum_algorithms.solipsistic import environments
from modicum_algorithms.solipsistic.algorithm import SolipsisticConfig
from modicum_algorithms.solipsistic.baselines.dqn import EpisodicDQNConfig
from modicum_algorithms.solipsistic.baselines.ppo import EpisodicPPOConfig
from modicum_algorithms.solipsistic.config import SolipsisticSettings
from modicum_algorithms.solipsistic.environments.digit_images import digit_images, found_images
from modicum_algorithms.solipsistic.episodic import EpisodicAlgorithm, EpisodicConfig

# Settings with the same name and meaning here and in `SolipsisticConfig.training`.
_SHARED = (
    "dynamics",
    "state_size",
    "transition",
    "state_bound",
    "reward_distribution",
    "contrast",
    "contrast_weight",
    "margin",
    "reward_weight",
    "reward_of_predictions",
    "model_updates",
    "averaging",
    "trajectories",
    "trajectory_length",
    "prediction_steps",
    "absorbing_steps",
    "imagined_steps",
    "imagined_return",
    "start_frames",
    "starts",
    "policy_iterations",
    "perturbations",
    "perturbation_scale",
    "reinitialise_policy",
    "horizon",
    "replanning",
    "action_noise",
)


def algorithm_config(config: SolipsisticSettings, seed: int) -> EpisodicConfig:
    """The settings in RLlib's form.

    Raises:
        InputError: A setting is not allowed.
    """
    rates = (config.first_exploration_rate, *(config.exploration_rate,) * 4)
    found: EpisodicConfig
    if config.method == "solipsistic":
        found = SolipsisticConfig().training(
            policy_lr=config.policy_learning_rate,
            exploration_rates=rates,
            **{name: getattr(config, name) for name in _SHARED},
        )
    elif config.method == "ppo":
        found = EpisodicPPOConfig().training(clip_param=config.clip)
    else:
        found = EpisodicDQNConfig().training(updates_per_step=config.updates_per_step)
    rate: dict[str, Any] = {} if config.learning_rate is None else {"lr": config.learning_rate}
    found.training(
        episodes_per_iteration=config.episodes_per_iteration,
        recognition=config.recognition,
        **rate,
    )
    arguments = config.environment_arguments
    if config.environment == environments.MNIST_GAME:
        # Checkpoints say which images they were trained on, wherever they are loaded.
        arguments["images"] = found_images(arguments.get("images", "auto"))
    found.environment(environment_id(config.environment), env_config=arguments)
    found.env_runners(num_env_runners=config.environment_runners)
    found.learners(num_gpus_per_learner=config.gpus)
    found.evaluation(evaluation_duration=config.evaluation_episodes)
    found.debugging(seed=seed, log_level="ERROR")
    return found


def quietly() -> contextlib.AbstractContextManager[None]:
    """Without RLlib's notes on its own interfaces."""
    return md.quiet_loggers("ray.rllib", "ray._common.deprecation")


@contextlib.contextmanager
def refusing_environment(name: object) -> Iterator[None]:
    """What gymnasium raises where an environment cannot be made, as an `InputError`."""
    try:
        yield
    except (gym.error.Error, ImportError, TypeError) as error:
        raise md.InputError(f"environment: {name!r} cannot be made: {error}") from error


def check_environment(config: SolipsisticSettings) -> None:
    """Make the environment, and an untrained module on its spaces.

    Raises:
        InputError: There is no such environment, it does not take its options, or the method's
            networks do not fit its spaces.
    """
    found = algorithm_config(config, seed=0)
    with refusing_environment(config.environment):
        name = environment_id(config.environment)
        environment = gym.make(name, **config.environment_arguments)
    spaces = (environment.observation_space, environment.action_space)
    environment.close()
    with quietly():
        found.validate()
        found.get_rl_module_spec(spaces={DEFAULT_MODULE_ID: spaces}).build()


def image_digest(config: SolipsisticSettings) -> str:
    """Digest of the MNIST game's images."""
    options = config.environment_options
    images = digit_images(options.get("images", "auto"), options.get("images_per_digit", 1))
    return hashlib.sha256(images.tobytes()).hexdigest()


def environment_id(name: str) -> str:
    """An id that every process can make; this family's environments have to be imported."""
    own = (environments.MNIST_GAME, environments.PIXEL_CART_POLE)
    return f"{environments.__name__}:{name}" if name in own else name


def build_algorithm(config: SolipsisticSettings, seed: int) -> EpisodicAlgorithm:
    """Build the algorithm.

    Args:
        config: Its settings.
        seed: Everything random derives from it.

    Raises:
        InputError: A setting is not allowed, or does not fit the environment.
    """
    with quietly():
        algorithm: Any = algorithm_config(config, seed).build_algo()
    # RLlib makes a folder in the user's home, which stays empty.
    with contextlib.suppress(OSError):
        Path(algorithm.logdir).rmdir()
    assert isinstance(algorithm, EpisodicAlgorithm)
    return algorithm
