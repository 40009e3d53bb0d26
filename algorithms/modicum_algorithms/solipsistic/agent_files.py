"""A trained agent as plain files: settings as JSON, weights as safetensors.

RLlib's own checkpoints, from which training goes on, are pickles, which can run any code. What
others may look at, watch or draw is read from these files instead.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from safetensors.torch import load_file, save_file

from modicum_algorithms.solipsistic.building import (
    algorithm_config,
    environment_id,
    quietly,
    refusing_environment,
)
from modicum_algorithms.solipsistic.config import SolipsisticSettings
from modicum_algorithms.solipsistic.episodic import EpisodicAlgorithm, EpisodicConfig
from modicum_algorithms.solipsistic.names import MNIST_GAME

SETTINGS = "agent.json"
_WEIGHTS = "agent.safetensors"

# DQN's learner makes it, and nobody acts by it.
_TARGET = "target_network."


@dataclass(frozen=True)
class Agent:
    """A trained agent.

    Attributes:
        config: Settings of its algorithm.
        module: Its RLModule, for inference.
        runner: Checkpoint of its environment runner, with what that remembers beside the module,
            as running means of observations.
    """

    config: EpisodicConfig
    module: Any
    runner: Path | None = None


def save_agent(folder: Path, algorithm: EpisodicAlgorithm, settings: SolipsisticSettings) -> None:
    """Write an agent beside the checkpoint of its algorithm.

    Args:
        folder: Exists.
        algorithm: Trained.
        settings: What it was made of.
    """
    described = settings.model_dump(mode="json")
    if settings.environment == MNIST_GAME:
        # Those that were found where it was trained.
        images = algorithm_config(settings, seed=0).env_config["images"]
        described["environment_options"]["images"] = images
    (folder / SETTINGS).write_text(json.dumps(described, indent=1))
    state = algorithm.learner_group.get_weights()[DEFAULT_MODULE_ID]
    weights = {
        name: torch.as_tensor(value).contiguous()
        for name, value in state.items()
        if not name.startswith(_TARGET)
    }
    save_file(weights, folder / _WEIGHTS)


def read_agent(folder: Path) -> Agent:
    """An agent from its files.

    Raises:
        ValueError: They are not such files, or do not fit each other.
        OSError: They cannot be read.
    """
    settings = SolipsisticSettings.model_validate_json((folder / SETTINGS).read_bytes())
    with quietly(), refusing_environment(settings.environment):
        config = algorithm_config(settings, seed=0)
        environment = gym.make(environment_id(settings.environment), **config.env_config)
        spaces = (environment.observation_space, environment.action_space)
        environment.close()
        module: Any = config.get_rl_module_spec(spaces={DEFAULT_MODULE_ID: spaces}).build()
    try:
        module.load_state_dict(load_file(folder / _WEIGHTS))
    except RuntimeError as error:
        raise ValueError(f"weights of another network ({error})") from error
    return Agent(config, module.eval())
