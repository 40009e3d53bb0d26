"""An environment runner that collects episodes on request, each from its own seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

import modicum as md


@dataclass(frozen=True)
class EpisodeRequest:
    """An episode to collect.

    Attributes:
        seed: Seeds the environment and everything random in acting.
        exploration_rate: Probability of a random action; None leaves it to the module.
        explore: Whether actions are sampled; False takes the best ones.
    """

    seed: int
    exploration_rate: float | None
    explore: bool = True


class EpisodeEnvRunner(SingleAgentEnvRunner):
    """RLlib's runner of one environment, with episodes on request.

    The runner calls a module's `start_episode(exploration_rate)`, where there is one, at the start
    of every episode.
    """

    _steps_left: int | None = None

    def set_state(self, state: Any) -> None:
        """Take a state with its weights.

        RLlib's runners ignore weights that are no newer than their own, such as those of an
        earlier checkpoint. This runner takes them.
        """
        super().set_state({**state, WEIGHTS_SEQ_NO: 0})

    def run(self, requests: Sequence[EpisodeRequest]) -> list[SingleAgentEpisode]:
        """Collect the requested episodes one after another."""
        return [self._episode(request) for request in requests]

    def _episode(self, request: EpisodeRequest) -> SingleAgentEpisode:
        self._seed = request.seed
        self._needs_initial_reset = True  # so that the environment is seeded
        self._steps_left = getattr(self.config, "max_episode_steps", None)
        start_episode = getattr(self.module, "start_episode", None)
        if start_episode is not None:
            start_episode(request.exploration_rate)
        with md.seeded(request.seed):
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
