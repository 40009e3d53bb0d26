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
