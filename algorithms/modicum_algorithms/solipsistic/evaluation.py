"""What a record of the experiment says, and what a trial must remember to go on with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.utils.metrics import LEARNER_RESULTS

from modicum_algorithms.solipsistic.building import environment_id
from modicum_algorithms.solipsistic.config import SolipsisticSettings
from modicum_algorithms.solipsistic.environments.digit_images import DIGITS
from modicum_algorithms.solipsistic.episodes import evaluate_greedily
from modicum_algorithms.solipsistic.episodic import EpisodicAlgorithm
from modicum_algorithms.solipsistic.models import MarkovModel
from modicum_algorithms.solipsistic.names import MNIST_GAME
from modicum_algorithms.solipsistic.rl_module import SolipsisticRLModule

_FILE = "progress.json"
_PLUS_ONE = 1


class Progress:
    """An algorithm in training, and the figures of its records."""

    def __init__(self, algorithm: EpisodicAlgorithm, config: SolipsisticSettings) -> None:
        """Start with nothing trained."""
        self._algorithm = algorithm
        self._config = config
        self._evaluation_episodes = 0
        self._steps = 0
        self._returns: list[float] = []
        self._results: dict[str, Any] = {}

    def train(self) -> None:
        """One iteration of the algorithm."""
        self._results = self._algorithm.train()
        collected = self._algorithm.collected
        self._steps += sum(len(episode) for episode in collected)
        self._returns += [float(episode.get_return()) for episode in collected]

    def evaluate(self) -> dict[str, float]:
        """The metrics of a record, with greedy episodes; see the experiment."""
        results, _, _ = evaluate_greedily(self._algorithm, None)
        returns = results["episode_returns"]
        self._evaluation_episodes += len(returns)
        metrics = {
            "evaluation/return": float(np.mean(returns)),
            "evaluation/return_min": float(np.min(returns)),
            "evaluation/episodes": float(self._evaluation_episodes),
            "train/return": float(np.mean(self._returns)),
            "train/steps": float(self._steps),
        }
        times = self._algorithm.seconds
        metrics |= {f"time/{part}": seconds for part, seconds in times.items() if seconds}
        self._returns = []
        if self._config.method == "solipsistic":
            metrics |= self._model_metrics()
        if self._config.environment == MNIST_GAME:
            metrics |= mnist_game_metrics(self._algorithm.get_module(), self._config)
        return metrics

    def _model_metrics(self) -> dict[str, float]:
        found = {}
        recent = self._results[LEARNER_RESULTS][DEFAULT_MODULE_ID]
        for name in ("consistency", "contrast", "reward", "predicted_reward"):
            if name in recent:
                found[f"model/{name}"] = float(recent[name])
        if self._config.dynamics == "memory":
            found["policy/imagined_return"] = float(self._results["policy"]["imagined_return"])
        return found

    def save(self, folder: Path) -> None:
        """Write what a restored trial must know beside the algorithm's own checkpoint."""
        state = {
            "seconds": self._algorithm.seconds,
            "evaluation_episodes": self._evaluation_episodes,
            "steps": self._steps,
        }
        (folder / _FILE).write_text(json.dumps(state))

    def restore(self, folder: Path) -> None:
        """Go on from a checkpoint."""
        state = json.loads((folder / _FILE).read_text())
        self._algorithm.seconds = state["seconds"]
        self._evaluation_episodes = state["evaluation_episodes"]
        self._steps = state["steps"]


def digit_observations(options: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """The MNIST game's first observation at each digit; shape (10, 28, 28, 1).

    Args:
        options: The game's arguments.
    """
    game = gym.make(environment_id(MNIST_GAME), **options)
    observations = [game.reset(seed=0, options={"digit": digit})[0] for digit in range(DIGITS)]
    game.close()
    return np.stack(observations)


@torch.no_grad()
def mnist_game_metrics(module: Any, config: SolipsisticSettings) -> dict[str, float]:
    """Whether a method solved the MNIST game; see the experiment's metrics.

    Args:
        module: The RLModule.
        config: Settings of the game.
    """
    observations = torch.as_tensor(digit_observations(config.environment_arguments))
    optimal = greedy_actions(module, observations) == _PLUS_ONE
    metrics = {"evaluation/optimal_starts": float(optimal.float().mean())}
    if isinstance(module, SolipsisticRLModule) and isinstance(module.averaged_model, MarkovModel):
        states = module.averaged_model.recognise(observations).argmax(-1)
        metrics["evaluation/distinct_states"] = len(set(states.tolist())) / DIGITS
    return metrics


def greedy_actions(module: Any, observations: Any) -> Any:
    """The best actions at the first step of episodes, as numbers; shape (N,)."""
    if hasattr(module, "start_episode"):
        module.start_episode(None)
    found = module.forward_inference({Columns.OBS: observations})
    if Columns.ACTIONS in found:
        return found[Columns.ACTIONS]
    return found[Columns.ACTION_DIST_INPUTS].argmax(-1)
