"""Metrics of a trained algorithm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.utils.metrics import LEARNER_RESULTS

from modicum_algorithms.solipsistic.config import MNIST_GAME, SolipsisticSettings
from modicum_algorithms.solipsistic.environments import environment_id
from modicum_algorithms.solipsistic.environments.digit_images import DIGITS
from modicum_algorithms.solipsistic.methods.solipsistic.models import MarkovModel
from modicum_algorithms.solipsistic.methods.solipsistic.rl_module import SolipsisticRLModule


def model_metrics(results: Mapping[str, Any], config: SolipsisticSettings) -> dict[str, float]:
    """Metrics of the model and of the policy search in an iteration's results, if it has any."""
    if config.method != "solipsistic":
        return {}
    recent = results[LEARNER_RESULTS][DEFAULT_MODULE_ID]
    names = ("consistency", "contrast", "reward", "predicted_reward")
    metrics = {f"model/{name}": float(recent[name]) for name in names if name in recent}
    if config.dynamics == "memory":
        metrics["policy/imagined_return"] = float(results["policy"]["imagined_return"])
    return metrics


@torch.no_grad()
def mnist_game_metrics(module: Any, config: SolipsisticSettings) -> dict[str, float]:
    """Metrics of a solution of the MNIST game; none in other environments."""
    if config.environment != MNIST_GAME:
        return {}
    observations = torch.as_tensor(digit_observations(config.environment_arguments))
    optimal = greedy_actions(module, observations) == 1  # plus 1
    metrics = {"evaluation/optimal_starts": float(optimal.float().mean())}
    if isinstance(module, SolipsisticRLModule) and isinstance(module.averaged_model, MarkovModel):
        states = module.averaged_model.recognise(observations).argmax(-1)
        metrics["evaluation/distinct_states"] = len(set(states.tolist())) / DIGITS
    return metrics


def digit_observations(options: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """First observation of the MNIST game with these options at each digit; (10, 28, 28, 1)."""
    game = gym.make(environment_id(MNIST_GAME), **options)
    observations = [game.reset(seed=0, options={"digit": digit})[0] for digit in range(DIGITS)]
    game.close()
    return np.stack(observations)


def greedy_actions(module: Any, observations: Any) -> Any:
    """Best of the discrete actions for N raw observations at an episode's first step; (N,)."""
    if hasattr(module, "start_episode"):
        module.start_episode(None)
    found = module.forward_inference({Columns.OBS: observations})
    if Columns.ACTIONS in found:
        return found[Columns.ACTIONS]
    return found[Columns.ACTION_DIST_INPUTS].argmax(-1)
