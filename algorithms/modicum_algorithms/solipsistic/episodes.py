"""Collecting whole episodes, the family's unit of budget, each from a seed of its own.

RLlib's runners count time steps and carry their random state from one call to the next. Here an
episode depends on its request and on the weights alone: not on the runner that collects it, on
what it collected before, or on how many runners there are; an episode that was lost with its
runner is collected again, the same.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, EVALUATION_RESULTS, WEIGHTS_SEQ_NO
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

import modicum as md
from modicum_algorithms.solipsistic.seeding import seeded

# How long lost runners are waited for, when none is left.
RESTORE_SECONDS = 120.0


@dataclass(frozen=True)
class EpisodeRequest:
    """An episode to collect.

    Attributes:
        seed: Seeds the environment and everything random in acting.
        explore: Whether actions are sampled, or the best are taken.
        exploration_rate: Probability of a random action; None leaves it to the module.
    """

    seed: int
    explore: bool = True
    exploration_rate: float | None = None


class EpisodeEnvRunner(SingleAgentEnvRunner):
    """RLlib's runner of one environment, with episodes on request.

    A module with a method `start_episode(exploration_rate)` is told that an episode starts.
    """

    _steps_left: int | None = None

    def set_state(self, state: Any) -> None:
        """Take a state with its weights.

        RLlib's runners keep their own weights where those that come are of no later update, as
        they are when an algorithm goes back to a checkpoint. Here runners never lag behind.
        """
        super().set_state({**state, WEIGHTS_SEQ_NO: 0})

    def run(self, requests: Sequence[EpisodeRequest]) -> list[SingleAgentEpisode]:
        """Collect the requested episodes one after another.

        Raises:
            RuntimeError: The environment raised.
            InputError: An episode did not end within the configuration's `max_episode_steps`.
        """
        return [self._episode(request) for request in requests]

    def _episode(self, request: EpisodeRequest) -> SingleAgentEpisode:
        self._seed = request.seed
        self._needs_initial_reset = True  # so that the environment is seeded
        self._steps_left = getattr(self.config, "max_episode_steps", None)
        start_episode = getattr(self.module, "start_episode", None)
        if start_episode is not None:
            start_episode(request.exploration_rate)
        with seeded(request.seed):
            (episode,) = self.sample(num_episodes=1, explore=request.explore)
        return episode

    def _try_env_step(self, actions: Any) -> Any:
        if self._steps_left is not None:
            if self._steps_left == 0:
                limit = getattr(self.config, "max_episode_steps", None)
                raise md.InputError(
                    f"max_episode_steps: {self.config.env!r} did not end an episode within {limit} "
                    "steps; wrap it in gymnasium's TimeLimit, or allow more"
                )
            self._steps_left -= 1
        return super()._try_env_step(actions)


@dataclass(frozen=True)
class _Answer:
    episodes: dict[int, SingleAgentEpisode]
    metrics: Any
    error: Exception | None = None


def _answer(runner: Any, requests: dict[int, EpisodeRequest]) -> _Answer:
    # An exception of the environment's travels as a value: RLlib takes one that is raised on a
    # remote runner for a fault of the runner, and tries again for ever. It travels as text, since
    # it may not be picklable, and loses its cause if it is.
    try:
        episodes = runner.run(list(requests.values()))
    except md.InputError as error:
        return _Answer({}, None, error)
    except Exception as error:
        cause = error.__cause__ or error  # RLlib wraps what `step` raises
        text = f"the environment raised {type(cause).__name__}: {cause}"
        return _Answer({}, None, RuntimeError(text))
    return _Answer(dict(zip(requests, episodes, strict=True)), runner.get_metrics())


def collect_episodes(
    algorithm: Algorithm, group: EnvRunnerGroup, requests: Sequence[EpisodeRequest]
) -> tuple[list[SingleAgentEpisode], list[Any]]:
    """Have a group of runners collect episodes.

    Requests that were lost with a runner are sent again, to the runners that are left and to the
    one that RLlib starts in its place.

    Returns:
        The episodes in the order of their requests, and the runners' metrics.

    Raises:
        InputError: An episode did not end within `max_episode_steps`.
        RuntimeError: The environment raised, or there is no runner left.
    """
    if not group.num_remote_workers():
        answers = [_answer(group.local_env_runner, dict(enumerate(requests)))]
        return _checked(answers, len(requests))
    done: list[_Answer] = []
    deadline = time.monotonic() + RESTORE_SECONDS
    while missing := set(range(len(requests))).difference(*(answer.episodes for answer in done)):
        runners = group.healthy_worker_ids()
        shares: dict[int, dict[int, EpisodeRequest]] = {}
        for place, number in enumerate(sorted(missing)) if runners else ():
            shares.setdefault(runners[place % len(runners)], {})[number] = requests[number]
        answers = (
            group.foreach_env_runner(
                [_sharer(share) for share in shares.values()],
                remote_worker_ids=list(shares),
                local_env_runner=False,
            )
            if shares
            else []
        )
        done.extend(answers)
        if any(answer.error for answer in answers):
            break
        if len(answers) < len(shares) or not shares:
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"no environment runner came back within {RESTORE_SECONDS:.0f} seconds"
                )
            if not algorithm.restore_env_runners(group):
                time.sleep(0.1)
        else:
            deadline = time.monotonic() + RESTORE_SECONDS
    return _checked(done, len(requests))


def _sharer(share: dict[int, EpisodeRequest]) -> Any:
    return lambda runner: _answer(runner, share)


def _checked(answers: Sequence[_Answer], number: int) -> tuple[list[SingleAgentEpisode], list[Any]]:
    for answer in answers:
        if answer.error is not None:
            raise answer.error
    episodes: dict[int, SingleAgentEpisode] = {}
    for answer in answers:
        episodes.update(answer.episodes)
    return [episodes[place] for place in range(number)], [answer.metrics for answer in answers]


class EpisodeCounter(Checkpointable):
    """Where an algorithm is: its seed, and how many episodes and iterations it has collected.

    From these every seed derives, so they are all that a checkpoint needs of random states.
    """

    def __init__(self, seed: int) -> None:
        """Start at nothing collected."""
        self.seed = seed
        self.episodes = 0
        self.iterations = 0

    def next_requests(self, exploration_rates: Sequence[float | None]) -> list[EpisodeRequest]:
        """Requests for the training episodes of the next iteration."""
        first = self.episodes
        self.episodes += len(exploration_rates)
        self.iterations += 1
        return [
            EpisodeRequest(self.seed_for(f"episode {first + place}"), exploration_rate=rate)
            for place, rate in enumerate(exploration_rates)
        ]

    def evaluation_requests(self, number: int) -> list[EpisodeRequest]:
        """Requests for greedy episodes; at every evaluation from the same starts."""
        return [
            EpisodeRequest(self.seed_for(f"evaluation {place}"), explore=False)
            for place in range(number)
        ]

    def seed_for(self, purpose: str) -> int:
        """A seed for one purpose."""
        return md.derive_seed(self.seed, purpose) % 2**31  # gymnasium takes no larger ones

    def iteration_seed(self, purpose: str) -> int:
        """A seed for one purpose in the current iteration."""
        return self.seed_for(f"{purpose} {self.iterations}")

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> Any:
        """The seed and the counts."""
        return {"seed": self.seed, "episodes": self.episodes, "iterations": self.iterations}

    def set_state(self, state: Any) -> None:
        """Go on from a stored state."""
        self.seed = state["seed"]
        self.episodes = state["episodes"]
        self.iterations = state["iterations"]

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments that make an equal counter at its start."""
        return (self.seed,), {}


def evaluate_greedily(
    algorithm: Any, eval_env_runner_group: EnvRunnerGroup | None
) -> tuple[dict[str, Any], int, int]:
    """RLlib's `custom_evaluation_function`: `evaluation_duration` greedy episodes.

    Needs an algorithm with an `EpisodeCounter` named `counter`. RLlib makes runners for
    evaluation if `evaluation_interval` or `evaluation_num_env_runners` is set; without them those
    of the training do it. RLlib's results of an evaluation are what is in the algorithm's
    metrics: `env_runners` holds its usual means, and all returns as `episode_returns`.

    Returns:
        Results, environment steps and agent steps.
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
