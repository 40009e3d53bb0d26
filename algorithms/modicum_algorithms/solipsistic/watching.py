"""What a trained agent does: its checkpoint, its networks, and films of its episodes.

Neither needs Ray to run.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import gymnasium as gym
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.tune.registry import ENV_CREATOR, _global_registry

import modicum as md
from modicum_algorithms.solipsistic.agent_files import SETTINGS, Agent, read_agent
from modicum_algorithms.solipsistic.building import quietly, refusing_environment
from modicum_algorithms.solipsistic.episodes import EpisodeCounter, EpisodeEnvRunner
from modicum_algorithms.solipsistic.episodic import EpisodicAlgorithm, EpisodicConfig
from modicum_algorithms.solipsistic.experiment import ALGORITHM
from modicum_algorithms.solipsistic.films import Film, observation_picture

Shown = Literal["picture", "observation"]

# Of RLlib's checkpoints.
_MARK = "rllib_checkpoint.json"
_CONSTRUCTOR = "class_and_ctor_args.pkl"
_MODULE = f"learner_group/learner/rl_module/{DEFAULT_MODULE_ID}"
_ENV_RUNNER = "env_runner"

_USUAL_FRAMES_PER_SECOND = 30


def load_agent(location: str | Path, *, trust: bool = False, field: str = "checkpoint") -> Agent:
    """A trained agent.

    Args:
        location: A run folder: its first finished trial with a checkpoint; or a checkpoint of a
            trial; or, if it is trusted, a checkpoint of RLlib's (written by `save_to_path`).
        trust: Read a checkpoint of RLlib's. It consists of pickles, which can run any code.
        field: Setting to name in an error.

    Raises:
        InputError: The location is none of these, or holds no agent of this family.
    """
    folder = Path(location).expanduser().resolve()
    if not folder.is_dir():
        raise md.InputError(f"{field}: there is no folder {str(location)!r}")
    algorithm = next((f for f in (folder, folder / ALGORITHM) if (f / _MARK).is_file()), None)
    if algorithm is not None and not (folder / SETTINGS).is_file():
        if not trust:
            raise md.InputError(
                f"{field}: {str(location)!r} is a checkpoint of RLlib's, whose pickles can run any "
                "code; trust=True (--trust) reads one that you trust"
            )
        with _refusing(algorithm, field), quietly():
            return _read_rllib(algorithm)
    needed = "finished trial with a checkpoint"
    place = md.find_checkpoint(str(folder), SETTINGS, field, needed)
    with _refusing(place, field):
        return read_agent(place)


def _read_rllib(folder: Path) -> Agent:
    """An agent from a checkpoint of RLlib's, whose pickles are loaded.

    Raises:
        ValueError: It is one of another family.
    """
    constructor = pickle.loads((folder / _CONSTRUCTOR).read_bytes())
    if not issubclass(constructor["class"], EpisodicAlgorithm):
        raise ValueError(f"of a {constructor['class'].__name__}")
    (state,), _ = constructor["ctor_args_and_kwargs"]
    config = AlgorithmConfig.from_state(state).copy(copy_frozen=False)
    assert isinstance(config, EpisodicConfig)
    module: Any = RLModule.from_checkpoint(folder / _MODULE)
    runner = folder / _ENV_RUNNER
    return Agent(config, module.eval(), runner if runner.is_dir() else None)


@contextlib.contextmanager
def _refusing(folder: Path, field: str) -> Iterator[None]:
    # What reading something else raises depends on what it is.
    try:
        yield
    except Exception as error:
        message = f"{field}: {str(folder)!r} holds no checkpoint that can be read ({error})"
        raise md.InputError(message) from error


@dataclass(frozen=True)
class Played:
    """Episodes that were played.

    Attributes:
        returns: Sum of rewards of each.
        lengths: Steps of each.
        film: Of one after the other; each has one frame more than steps.
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
    """Play greedy episodes: those of an evaluation of an algorithm that has this seed.

    Args:
        location: As `load_agent` takes it.
        episodes: How many.
        seed: Of the environment.
        what: Whether frames are the environment's pictures, if it has any, or the observations,
            which have to be images.
        trust: Read a checkpoint of RLlib's, which can run any code.
        field: Setting to name in an error about the location.

    Raises:
        InputError: There is no such checkpoint, or nothing to see, or the environment cannot be
            made or did not end an episode within the setting `max_episode_steps`.
    """
    if what not in get_args(Shown):
        allowed = " or ".join(get_args(Shown))
        raise md.InputError(f"what: must be {allowed}, got {what!r}")
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


def _with_pictures(config: EpisodicConfig) -> dict[str, Any]:
    """The environment's arguments, so that it renders if it is gymnasium's and can."""
    arguments = dict(config.env_config)
    if isinstance(config.env, str) and not _global_registry.contains(ENV_CREATOR, config.env):
        with refusing_environment(config.env):
            environment = gym.make(config.env, **arguments)
        if "rgb_array" in environment.metadata.get("render_modes", ()):
            arguments["render_mode"] = "rgb_array"
        environment.close()
    return arguments


def _runner(agent: Agent) -> EpisodeEnvRunner:
    """A runner that acts as the agent does."""
    with quietly(), refusing_environment(agent.config.env):
        runner = EpisodeEnvRunner(config=agent.config)
        if agent.runner is not None:
            runner.restore_from_path(agent.runner)
    runner.module = agent.module
    return runner
