"""An RLlib algorithm that collects whole episodes and continues exactly from its checkpoints.

`EpisodicAlgorithm` stands before RLlib's own class among the bases of an algorithm:
`class EpisodicPPO(EpisodicAlgorithm, PPO)`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import COMPONENT_LEARNER_GROUP
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)

from modicum_algorithms.solipsistic.episodic.collection import collect_episodes
from modicum_algorithms.solipsistic.episodic.counter import EpisodeCounter


class EpisodicAlgorithm(Algorithm):
    """An algorithm that collects whole episodes and continues exactly from its checkpoints.

    It continues exactly if the learner lives in this process, as is RLlib's default
    (`num_learners=0`): everything random in an update is seeded here.

    Attributes:
        counter: Seeds, and counts of episodes and iterations. It starts from the setting `seed`,
            or from a random seed without one, and is part of the checkpoints.
        collected: Episodes of the last iteration.
        seconds: Wall-clock time so far, by part: `collection` of episodes, updates of the
            `model` (or networks), search for the `policy`. Not part of the checkpoints.
    """

    counter: EpisodeCounter
    collected: list[SingleAgentEpisode]
    seconds: dict[str, float]

    # Set up by RLlib, whose types are those of the values before the setup.
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
        """Time a part of the iteration, in `seconds` and under the name of RLlib's timer."""
        started = time.perf_counter()
        with self.metrics.log_time((TIMERS, timer)):
            yield
        self.seconds[part] += time.perf_counter() - started

    def collect(self, exploration_rates: Sequence[float | None]) -> list[SingleAgentEpisode]:
        """Collect and count the iteration's episodes, one for each exploration rate."""
        requests = self.counter.next_requests(exploration_rates)
        with self.timed("collection", ENV_RUNNER_SAMPLING_TIMER):
            episodes, metrics = collect_episodes(self, self.env_runner_group, requests)
        self.metrics.aggregate(metrics, key=ENV_RUNNER_RESULTS)
        self.collected = episodes
        return episodes

    def learn(self, episodes: Sequence[SingleAgentEpisode], **kwargs: Any) -> None:
        """Have the learners make an update from episodes, with RLlib's further arguments."""
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
        """The states of RLlib's components and of `own_components`."""
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
            # Otherwise a learner keeps its weights where the stored ones are of no later update.
            self.learner_group.foreach_learner(
                lambda learner: setattr(learner, "_weights_seq_no", 0)
            )
        super().set_state(state)
        for name, component in self.own_components().items():
            if name in state:
                component.set_state(state[name])

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        """RLlib's components and `own_components`."""
        return [*super().get_checkpointable_components(), *self.own_components().items()]

    def own_components(self) -> dict[str, Any]:
        """Components of the checkpoints beside RLlib's, by name."""
        return {"counter": self.counter}
