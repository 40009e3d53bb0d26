"""Greedy episodes of a trained agent, as a film; works without a running Ray."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
from ray.tune.registry import ENV_CREATOR, _global_registry

import modicum as md
from modicum_algorithms.solipsistic.building import quietly
from modicum_algorithms.solipsistic.checkpoints import Agent, load_agent
from modicum_algorithms.solipsistic.config import Shown
from modicum_algorithms.solipsistic.environments import refusing_environment
from modicum_algorithms.solipsistic.episodic.config import EpisodicConfig
from modicum_algorithms.solipsistic.episodic.counter import EpisodeCounter
from modicum_algorithms.solipsistic.episodic.runner import EpisodeEnvRunner
from modicum_algorithms.solipsistic.films import Film, observation_picture

_USUAL_FRAMES_PER_SECOND = 30


@dataclass(frozen=True)
class Played:
    """Episodes that were played.

    Attributes:
        returns: Sum of rewards of each episode.
        lengths: Number of steps of each episode.
        film: The episodes one after the other. Each has one frame more than steps.
    """

    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    film: Film


def play(
    location: str | Path,
    *,
    episodes: int = 1,
    seed: int = 0,
    what: Shown = "picture",
    trust: bool = False,
    field: str = "checkpoint",
) -> Played:
    """Play the greedy episodes that an algorithm with this seed would be evaluated on.

    Args:
        location: Location of a checkpoint; see `load_agent`.
        episodes: Number of episodes.
        seed: Seed of the environment.
        what: `picture` films the environment's own pictures where it has any; `observation` films
            the observations, which have to be images.
        trust: Read a checkpoint of RLlib, which can run any code.
        field: Setting to name in an error about the location.

    Raises:
        InputError: There is no such checkpoint, or nothing to see, or the environment cannot be
            made or did not end an episode within the setting `max_episode_steps`.
    """
    md.require_choice("what", what, Shown)
    if episodes < 1:
        raise md.InputError(f"episodes: must be at least 1, got {episodes}")
    agent = load_agent(location, trust=trust, field=field)
    config = agent.config
    config.environment(env_config=_with_pictures(config))
    film: Film | None = None

    def add_picture(*, env: Any, **kwargs: Any) -> None:
        if film is not None:
            film.add(env.render()[0])

    config.callbacks(on_episode_start=add_picture, on_episode_step=add_picture)
    runner = _runner(agent)
    environment: Any = runner.env
    speed = environment.metadata.get("render_fps") or _USUAL_FRAMES_PER_SECOND
    if what == "picture" and environment.render_mode == "rgb_array":
        film = Film(speed)
    played = runner.run(EpisodeCounter(seed).evaluation_requests(episodes))
    runner.stop()
    if film is None:
        film = Film(speed)
        for episode in played:
            for observation in episode.get_observations():
                film.add(observation_picture(observation))
    return Played(
        returns=tuple(float(episode.get_return()) for episode in played),
        lengths=tuple(map(len, played)),
        film=film,
    )


def _with_pictures(config: EpisodicConfig[Any]) -> dict[str, Any]:
    """Arguments of the environment, with rendering where gymnasium makes it and it can render."""
    arguments = dict(config.env_config)
    if isinstance(config.env, str) and not _global_registry.contains(ENV_CREATOR, config.env):
        with refusing_environment(config.env):
            environment = gym.make(config.env, **arguments)
        if "rgb_array" in environment.metadata.get("render_modes", ()):
            arguments["render_mode"] = "rgb_array"
        environment.close()
    return arguments


def _runner(agent: Agent) -> EpisodeEnvRunner:
    """An environment runner that acts like the agent."""
    with quietly(), refusing_environment(agent.config.env):
        runner = EpisodeEnvRunner(config=agent.config)
        if agent.runner is not None:
            runner.restore_from_path(agent.runner)
    runner.module = agent.module
    return runner
