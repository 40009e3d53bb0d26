"""What RLlib algorithms share whose unit of budget is the whole episode.

`EpisodicConfig` and `EpisodicAlgorithm` stand before RLlib's own classes in a class's bases:
`class EpisodicPPO(EpisodicAlgorithm, PPO)`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import COMPONENT_LEARNER_GROUP
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.from_config import NotProvided
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)

import modicum as md
from modicum_algorithms.solipsistic.episodes import (
    EpisodeCounter,
    EpisodeEnvRunner,
    collect_episodes,
    evaluate_greedily,
)
from modicum_algorithms.solipsistic.names import RecognitionName

# RLlib's mark of a setting that a call leaves as it is, in signatures of any type.
NOT_PROVIDED: Any = NotProvided


class EpisodicConfig(AlgorithmConfig):
    """Settings of an algorithm that collects whole episodes.

    Episodes are collected in this process unless `num_env_runners` says otherwise, and are the
    same wherever they are collected. `evaluate()` runs `evaluation_duration` greedy episodes.
    """

    # RLlib types these as the defaults that it gives them.
    env_runner_cls: Any
    custom_evaluation_function: Any

    def __init__(self, algo_class: Any = None) -> None:
        """Start from RLlib's settings."""
        super().__init__(algo_class=algo_class)
        self.episodes_per_iteration = 5
        self.max_episode_steps: int | None = 10_000
        self.recognition: RecognitionName = "auto"
        self.env_runner_cls = EpisodeEnvRunner
        self.num_env_runners = 0
        self.batch_mode = "complete_episodes"
        self.custom_evaluation_function = evaluate_greedily
        # One iteration is one training step, however few steps its episodes had.
        self.min_sample_timesteps_per_iteration = 0
        self.min_time_s_per_iteration = None

    def training(
        self,
        *,
        episodes_per_iteration: int = NOT_PROVIDED,
        max_episode_steps: int | None = NOT_PROVIDED,
        recognition: RecognitionName = NOT_PROVIDED,
        **kwargs: Any,
    ) -> Self:
        """Set what concerns training.

        Args:
            episodes_per_iteration: Episodes that each iteration collects.
            max_episode_steps: Steps within which every episode has to end; None for no limit.
            recognition: The networks' architecture; see `networks.recognition_network`.
            **kwargs: Settings of RLlib's algorithm.
        """
        super().training(**kwargs)
        self.take(
            episodes_per_iteration=episodes_per_iteration,
            max_episode_steps=max_episode_steps,
            recognition=recognition,
        )
        return self

    def take(self, **settings: Any) -> None:
        """Take the settings that a call gave; those that are `NOT_PROVIDED` stay."""
        for name, value in settings.items():
            if value is not NOT_PROVIDED:
                setattr(self, name, value)

    def validate(self) -> None:
        """Check the settings.

        Raises:
            InputError: A setting is not allowed.
        """
        super().validate()
        if self.episodes_per_iteration < 1:
            raise md.InputError(
                f"episodes_per_iteration: must be at least 1, got {self.episodes_per_iteration}"
            )
        if self.max_episode_steps is not None and self.max_episode_steps < 1:
            raise md.InputError(
                f"max_episode_steps: must be at least 1, or None, got {self.max_episode_steps}"
            )
        md.require_choice("recognition", self.recognition, RecognitionName)
        self.require({"num_envs_per_env_runner": 1, "evaluation_parallel_to_training": False})

    def require(self, values: dict[str, Any]) -> None:
        """Check settings of RLlib's of which only one value makes sense here.

        Raises:
            InputError: A setting has another value.
        """
        for name, value in values.items():
            if getattr(self, name) != value:
                raise md.InputError(f"{name}: must be {value}, got {getattr(self, name)}")

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        return super()._model_config_auto_includes | {"recognition": self.recognition}


class EpisodicAlgorithm(Algorithm):
    """An algorithm that collects whole episodes, and goes on exactly from its checkpoints.

    Exactly with the learner in this process, as is RLlib's default (`num_learners=0`): what is
    random in an update is seeded here.

    Attributes:
        counter: Where the algorithm is; every seed derives from it. Made of the setting `seed`,
            or of a random seed without one; part of the checkpoints.
        collected: Episodes of the last iteration.
        seconds: Wall-clock time spent so far, by part: `collection` of episodes, updates of the
            `model` (or networks), search of the `policy`. No part of the checkpoints.
    """

    counter: EpisodeCounter
    collected: list[SingleAgentEpisode]
    seconds: dict[str, float]

    # Set up by RLlib, which types them as they are before.
    config: Any
    metrics: Any
    env_runner_group: Any
    learner_group: Any
    local_replay_buffer: Any

    def setup(self, config: Any) -> None:
        """Build the algorithm."""
        super().setup(config)
        seed = self.config.seed
        self.counter = EpisodeCounter(secrets.randbits(31) if seed is None else seed)
        self.collected = []
        self.seconds = {"collection": 0.0, "model": 0.0, "policy": 0.0}

    @contextmanager
    def timed(self, part: str, timer: str) -> Iterator[None]:
        """Time a part of the iteration, for `seconds` and among RLlib's timers."""
        started = time.perf_counter()
        with self.metrics.log_time((TIMERS, timer)):
            yield
        self.seconds[part] += time.perf_counter() - started

    def collect(self, exploration_rates: Sequence[float | None]) -> list[SingleAgentEpisode]:
        """Collect the iteration's episodes, one for each exploration rate, and count them.

        Raises:
            InputError: An episode did not end within `max_episode_steps`.
            RuntimeError: The environment raised, or there is no runner left.
        """
        requests = self.counter.next_requests(exploration_rates)
        with self.timed("collection", ENV_RUNNER_SAMPLING_TIMER):
            episodes, metrics = collect_episodes(self, self.env_runner_group, requests)
        self.metrics.aggregate(metrics, key=ENV_RUNNER_RESULTS)
        self.collected = episodes
        return episodes

    def learn(self, episodes: Sequence[SingleAgentEpisode], **kwargs: Any) -> None:
        """Have the learners make an update from episodes.

        Args:
            episodes: What to learn from.
            **kwargs: Arguments of RLlib's `LearnerGroup.update`.
        """
        steps = self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0)
        with self.timed("model", LEARNER_UPDATE_TIMER):
            results = self.learner_group.update(
                episodes=list(episodes), timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: steps}, **kwargs
            )
        self.metrics.aggregate(results, key=LEARNER_RESULTS)

    def send_weights(self) -> None:
        """Give the runners the learners' weights."""
        with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
            self.env_runner_group.sync_weights(
                from_worker_or_learner_group=self.learner_group, inference_only=True
            )

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """RLlib's state, and that of `own_components`."""
        state: dict[str, Any] = super().get_state(
            components, not_components=not_components, **kwargs
        )
        for name, component in self.own_components().items():
            if self._check_component(name, components, not_components):
                state[name] = component.get_state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a stored state."""
        if COMPONENT_LEARNER_GROUP in state:
            # Or a learner would keep its own weights where the stored ones are of no later update.
            self.learner_group.foreach_learner(_forget_updates)
        super().set_state(state)
        for name, component in self.own_components().items():
            if name in state:
                component.set_state(state[name])

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        """RLlib's components, and `own_components`."""
        return [*super().get_checkpointable_components(), *self.own_components().items()]

    def own_components(self) -> dict[str, Any]:
        """What checkpoints hold beside RLlib's components, by name."""
        return {"counter": self.counter}


def _forget_updates(learner: Any) -> None:
    learner._weights_seq_no = 0
