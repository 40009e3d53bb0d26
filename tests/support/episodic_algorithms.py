"""Building, looking into and killing parts of RLlib algorithms that collect whole episodes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from modicum_algorithms.solipsistic import EpisodicDQNConfig, EpisodicPPOConfig, SolipsisticConfig


def small(**settings: Any) -> SolipsisticConfig:
    """An iteration takes a moment."""
    values = {
        "state_size": 4,
        "model_updates": 3,
        "trajectories": 4,
        "trajectory_length": 5,
        "prediction_steps": 2,
        "statistics_observations": 30,
        "imagined_steps": 4,
        "starts": 2,
        "policy_iterations": 3,
        "perturbations": 6,
        "exploration_rates": (0.0, 0.5),
    }
    return SolipsisticConfig().training(**(values | settings))


def small_markov(**settings: Any) -> SolipsisticConfig:
    return small(dynamics="markov", contrast="any_time", **settings)


def small_ppo() -> EpisodicPPOConfig:
    return EpisodicPPOConfig().training(num_epochs=2, episodes_per_iteration=2)


def small_dqn(**settings: Any) -> EpisodicDQNConfig:
    """Learns from the first episodes on."""
    return EpisodicDQNConfig().training(
        train_batch_size_per_learner=16,
        num_steps_sampled_before_learning_starts=16,
        target_update_episodes=3,
        updates_per_step=0.25,
        **settings,
    )


@contextmanager
def building() -> Iterator[Callable[..., Any]]:
    """Builds algorithms, and stops them at the end, together since each stop waits a while."""
    built: list[Any] = []

    def build(config: Any, environment: Any = "CartPole-v1", seed: int = 3, **options: Any) -> Any:
        config = config.environment(environment, env_config=options).debugging(seed=seed)
        built.append(config.build_algo())
        return built[-1]

    yield build
    with ThreadPoolExecutor(max(1, len(built))) as pool:
        list(pool.map(lambda algorithm: algorithm.stop(), built))


def learner(algorithm: Any) -> Any:
    return algorithm.learner_group._learner


def module(algorithm: Any) -> Any:
    return learner(algorithm).module[DEFAULT_MODULE_ID]


def optimizer(algorithm: Any) -> Any:
    return learner(algorithm).get_optimizer(DEFAULT_MODULE_ID)


def updates(algorithm: Any) -> int:
    """Updates that the optimiser has made."""
    states = optimizer(algorithm).state.values()
    return int(next(iter(states))["step"]) if states else 0


def weights(algorithm: Any) -> dict[str, torch.Tensor]:
    return {name: values.clone() for name, values in module(algorithm).state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def kill_a_runner(algorithm: Any) -> None:
    """A real SIGKILL of the process of the first remote runner."""
    process, *_ = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: os.getpid(), local_env_runner=False
    )
    os.kill(process, signal.SIGKILL)


def wait_for_runners(algorithm: Any, number: int) -> None:
    """Until so many remote runners are healthy again."""
    deadline = time.monotonic() + 60
    while algorithm.env_runner_group.num_healthy_remote_workers() < number:
        assert time.monotonic() < deadline
        algorithm.restore_env_runners(algorithm.env_runner_group)
        time.sleep(0.1)
