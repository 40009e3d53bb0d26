"""An episode replay buffer with samples of trajectories and a compact, exact state.

Shapes: B trajectories, T time steps, N observations.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer


@dataclass(frozen=True)
class Trajectories:
    """Windows of episodes, padded at their ends.

    Attributes:
        observations: Observations x_t, shape (B, T, ...).
        actions: Actions a_t, shape (B, T − 1, ...).
        rewards: Rewards r_t, each received together with x_t; shape (B, T).
        present: True where x_t exists, False for padding; shape (B, T).
        rewarded: True where r_t exists; shape (B, T). An episode's first observation has no reward.
    """

    observations: Any
    actions: Any
    rewards: Any
    present: Any
    rewarded: Any


class TrajectoryReplayBuffer(EpisodeReplayBuffer, Checkpointable):
    """Replay buffer of whole episodes, the memory M of algorithm 1.

    Samples come from `rng`, which the algorithm seeds anew in every iteration, since RLlib neither
    seeds nor stores its generator.

    Args:
        capacity: Time steps to keep; the oldest episodes are dropped first.
        absorbing_steps: Copies of a terminated episode's last observation, with reward 0, that
            windows may include.
    """

    def __init__(self, capacity: int, absorbing_steps: int) -> None:
        super().__init__(capacity=capacity)
        self.absorbing_steps = absorbing_steps

    def sample_trajectories(self, number: int, length: int) -> Trajectories:
        """Windows of `length` observations, padded where an episode is shorter.

        The episode of a window is drawn uniformly, then its start among those where it fits.
        """
        windows = [self._window(length) for _ in range(number)]
        return Trajectories(*(np.stack(column) for column in zip(*windows, strict=True)))

    def _window(self, length: int) -> tuple[np.ndarray[Any, Any], ...]:
        episode = self.episodes[self.rng.integers(len(self.episodes))]
        steps = len(episode)
        total = steps + (self.absorbing_steps if episode.is_terminated else 0)
        start = int(self.rng.integers(max(1, total - length + 2)))
        times = np.arange(start, start + length)
        first, last = min(start, steps), min(start + length - 1, steps)
        observations = episode.get_observations(slice(first, last + 1))
        actions = episode.get_actions(slice(min(first, steps - 1), steps))
        earned = (times >= 1) & (times <= steps)
        rewards = np.zeros(length, np.float32)
        if earned.any():
            rewards[earned] = episode.get_rewards(slice(int(times[earned][0]) - 1, last))
        return (
            observations[np.minimum(times, steps) - first],
            actions[np.minimum(times[:-1], steps - 1) - min(first, steps - 1)],
            rewards,
            times <= total,
            (times >= 1) & (times <= total),
        )

    def sample_observations(self, number: int, *, first: bool = False) -> np.ndarray[Any, Any]:
        """Observations, or first ones, of N uniformly drawn episodes; shape (N, ...)."""
        drawn = []
        for _ in range(number):
            episode = self.episodes[self.rng.integers(len(self.episodes))]
            place = 0 if first else int(self.rng.integers(len(episode) + 1))
            drawn.append(episode.get_observations(slice(place, place + 1))[0])
        return np.stack(drawn)

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The episodes, compressed, since successive images have most in common."""
        return {
            "episodes": [_pack(episode) for episode in self.episodes],
            "num_timesteps_added": self._num_timesteps_added,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Replace the content by a stored state."""
        self.__init__(self.capacity, self.absorbing_steps)  # type: ignore[misc]
        for packed in state["episodes"]:
            self.add(_unpack(packed))
        self._num_timesteps_added = state["num_timesteps_added"]

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The constructor's arguments, for checkpoints."""
        return (), {"capacity": self.capacity, "absorbing_steps": self.absorbing_steps}


def _pack(episode: SingleAgentEpisode) -> dict[str, Any]:
    arrays = io.BytesIO()
    np.savez_compressed(
        arrays,
        observations=episode.get_observations(),
        actions=episode.get_actions(),
        rewards=episode.get_rewards(),
    )
    return {
        "id": episode.id_,
        "terminated": episode.is_terminated,
        "truncated": episode.is_truncated,
        "arrays": arrays.getvalue(),
    }


def _unpack(packed: dict[str, Any]) -> SingleAgentEpisode:
    with np.load(io.BytesIO(packed["arrays"]), allow_pickle=False) as arrays:
        return SingleAgentEpisode(
            id_=packed["id"],
            observations=list(arrays["observations"]),
            actions=list(arrays["actions"]),
            rewards=list(arrays["rewards"]),
            terminated=packed["terminated"],
            truncated=packed["truncated"],
            len_lookback_buffer=0,
        ).to_numpy()
