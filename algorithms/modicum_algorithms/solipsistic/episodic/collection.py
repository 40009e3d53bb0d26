"""Collecting requested episodes with a group of environment runners."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, EVALUATION_RESULTS
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

import modicum as md
from modicum_algorithms.solipsistic.episodic.runner import EpisodeRequest

# Seconds to wait for lost runners when none is left.
RESTORE_SECONDS = 120.0


@dataclass(frozen=True)
class _Answer:
    episodes: Mapping[int, SingleAgentEpisode]
    metrics: Any
    error: Exception | None = None


def collect_episodes(
    algorithm: Algorithm, group: EnvRunnerGroup, requests: Sequence[EpisodeRequest]
) -> tuple[list[SingleAgentEpisode], list[Any]]:
    """Have a group of runners collect episodes.

    Requests that are lost with a runner are sent again, to the runners that are left and to the
    runner that RLlib starts as a replacement.

    Returns:
        The episodes in the order of their requests, and the runners' metrics.

    Raises:
        InputError: An episode did not end within `max_episode_steps`.
        RuntimeError: The environment raised, or no runner is left.
    """
    numbered = dict(enumerate(requests))
    answers: list[_Answer] = []
    if not group.num_remote_workers():
        answers.append(_answer(group.local_env_runner, numbered))
    else:
        answers.extend(_remote_answers(algorithm, group, numbered))
    episodes: dict[int, SingleAgentEpisode] = {}
    for answer in answers:
        if answer.error is not None:
            raise answer.error
        episodes.update(answer.episodes)
    return [episodes[number] for number in numbered], [answer.metrics for answer in answers]


def _answer(runner: Any, requests: Mapping[int, EpisodeRequest]) -> _Answer:
    # RLlib takes an exception on a remote runner for a fault of the runner and retries for ever, so
    # the environment's exception travels as a value. It travels as text, since it may not be
    # picklable, and loses its cause if it is.
    try:
        episodes = runner.run(list(requests.values()))
    except md.InputError as error:
        return _Answer({}, None, error)
    except Exception as error:
        cause = error.__cause__ or error  # RLlib wraps what `step` raises
        text = f"the environment raised {type(cause).__name__}: {cause}"
        return _Answer({}, None, RuntimeError(text))
    return _Answer(dict(zip(requests, episodes, strict=True)), runner.get_metrics())


def _remote_answers(
    algorithm: Algorithm, group: EnvRunnerGroup, requests: Mapping[int, EpisodeRequest]
) -> Iterator[_Answer]:
    """Answers of remote runners until all requests are answered or an environment raised."""
    missing = dict(requests)
    deadline = time.monotonic() + RESTORE_SECONDS
    while missing:
        runners, numbers = group.healthy_worker_ids(), sorted(missing)
        shares = {
            runner: {number: missing[number] for number in numbers[place :: len(runners)]}
            for place, runner in enumerate(runners[: len(numbers)])
        }
        collections: list[Any] = [partial(_answer, requests=share) for share in shares.values()]
        answers: list[_Answer] = []
        if shares:
            answers = group.foreach_env_runner(
                collections, remote_worker_ids=list(shares), local_env_runner=False
            )
        yield from answers
        if any(answer.error for answer in answers):
            return
        for answer in answers:
            for number in answer.episodes:
                missing.pop(number, None)
        if shares and len(answers) == len(shares):
            deadline = time.monotonic() + RESTORE_SECONDS
        elif time.monotonic() > deadline:
            raise RuntimeError(
                f"no environment runner came back within {RESTORE_SECONDS:.0f} seconds"
            )
        elif not algorithm.restore_env_runners(group):
            time.sleep(0.1)


def evaluate_greedily(
    algorithm: Any, eval_env_runner_group: EnvRunnerGroup | None
) -> tuple[dict[str, Any], int, int]:
    """RLlib's `custom_evaluation_function`: `evaluation_duration` greedy episodes.

    Needs an `EpisodicAlgorithm`. RLlib makes runners for evaluation if `evaluation_interval` or
    `evaluation_num_env_runners` is set; otherwise the runners of the training evaluate. RLlib
    reports the algorithm's metrics as the results of an evaluation: `env_runners` holds RLlib's
    usual means, and all returns as `episode_returns`. Returned are results, environment steps and
    agent steps.
    """
    number = algorithm.evaluation_config.evaluation_duration
    requests = algorithm.counter.evaluation_requests(number)
    group = eval_env_runner_group or algorithm.env_runner_group
    episodes, metrics = collect_episodes(algorithm, group, requests)
    steps = sum(len(episode) for episode in episodes)
    returns = [float(episode.get_return()) for episode in episodes]
    logger = MetricsLogger(root=False)
    for value in returns:
        logger.log_value("episode_returns", value, reduce="item_series")
    key = (EVALUATION_RESULTS, ENV_RUNNER_RESULTS)
    algorithm.metrics.aggregate([*metrics, logger.reduce()], key=key)
    return {"episode_returns": returns}, steps, steps
