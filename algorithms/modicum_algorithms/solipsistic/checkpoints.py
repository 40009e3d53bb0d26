"""Checkpoints of a trial: RLlib's, from which training goes on, and the agent as plain files.

RLlib's checkpoints are pickles, which can run any code. The plain files, settings as JSON and
weights as safetensors, are for watching and drawing the agents of others.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModule

import modicum as md
from modicum_algorithms.solipsistic.building import algorithm_config, quietly, untrained_module
from modicum_algorithms.solipsistic.config import MNIST_GAME, SolipsisticSettings
from modicum_algorithms.solipsistic.episodic.algorithm import EpisodicAlgorithm
from modicum_algorithms.solipsistic.episodic.config import EpisodicConfig

# Contents of a trial's checkpoint.
_ALGORITHM = "algorithm"
_PROGRESS = "progress.json"
_AGENT = "agent"
_AGENT_FILE = f"{_AGENT}.json"

# DQN's target network belongs to the learner, and nobody acts by it.
_TARGET = "target_network."

# Contents of RLlib's checkpoints.
_MARK = "rllib_checkpoint.json"
_CONSTRUCTOR = "class_and_ctor_args.pkl"
_MODULE = f"learner_group/learner/rl_module/{DEFAULT_MODULE_ID}"
_ENV_RUNNER = "env_runner"


@dataclass
class Progress:
    """Counts of a trial's training.

    Attributes:
        evaluation_episodes: Greedy episodes so far.
        steps: Environment steps of all training episodes so far.
    """

    evaluation_episodes: int = 0
    steps: int = 0


@dataclass(frozen=True)
class Agent:
    """A trained agent.

    Attributes:
        config: Settings of the algorithm.
        module: The RLModule, for inference.
        runner: Checkpoint of the environment runner, with what the runner remembers beside the
            module, such as running means of observations; None if there is none.
    """

    config: EpisodicConfig[Any]
    module: Any
    runner: Path | None = None


def save_checkpoint(
    folder: Path, algorithm: EpisodicAlgorithm, config: SolipsisticSettings, progress: Progress
) -> None:
    """Write a trial's checkpoint into a folder that does not exist yet."""
    algorithm.save_to_path(folder / _ALGORITHM)
    save_agent(folder, algorithm, config)
    state = {"seconds": algorithm.seconds, **asdict(progress)}
    (folder / _PROGRESS).write_text(json.dumps(state))


def restore_checkpoint(folder: Path, algorithm: EpisodicAlgorithm) -> Progress:
    """Restore a new algorithm from what `save_checkpoint` wrote; returns the trial's counts."""
    algorithm.restore_from_path(folder / _ALGORITHM)
    state = json.loads((folder / _PROGRESS).read_text())
    algorithm.seconds = state.pop("seconds")
    return Progress(**state)


def save_agent(folder: Path, algorithm: EpisodicAlgorithm, config: SolipsisticSettings) -> None:
    """Write an agent as plain files, `agent.json` and `agent.safetensors`, for its settings."""
    described = config.model_dump(mode="json")
    if config.environment == MNIST_GAME:
        # The images that were found where it was trained.
        images = algorithm_config(config, seed=0).env_config["images"]
        described["environment_options"]["images"] = images
    state = algorithm.learner_group.get_weights()[DEFAULT_MODULE_ID]
    weights = {
        name: torch.as_tensor(value)
        for name, value in state.items()
        if not name.startswith(_TARGET)
    }
    md.save_model(folder, described, {_AGENT: weights}, name=_AGENT)


def load_agent(location: str | Path, *, trust: bool = False, field: str = "checkpoint") -> Agent:
    """Load a trained agent.

    Args:
        location: A run folder, of which the first finished trial with a checkpoint is taken; or a
            checkpoint of a trial; or, if trusted, a checkpoint of RLlib (from `save_to_path`).
        trust: Read a checkpoint of RLlib, which consists of pickles and can run any code.
        field: Setting to name in an error.

    Raises:
        InputError: The location is none of these, or holds no agent of this family.
    """
    folder = Path(location).expanduser().resolve()
    if not folder.is_dir():
        raise md.InputError(f"{field}: there is no folder {str(location)!r}")
    algorithm = next((f for f in (folder, folder / _ALGORITHM) if (f / _MARK).is_file()), None)
    if algorithm is not None and not (folder / _AGENT_FILE).is_file():
        if not trust:
            raise md.InputError(
                f"{field}: {str(location)!r} is a checkpoint of RLlib, whose pickles can run any "
                "code; trust=True (--trust) reads one that you trust"
            )
        try:
            with quietly():
                return _read_rllib(algorithm)
        except Exception as error:  # unpickling another thing may raise any
            message = f"{field}: {str(algorithm)!r} holds no checkpoint that can be read ({error})"
            raise md.InputError(message) from error
    needed = "finished trial with a checkpoint"
    place = md.find_checkpoint(str(folder), _AGENT_FILE, field, needed)
    with md.loading_model(place, "agent", field):
        return _read_agent(place, field)


def _read_agent(folder: Path, field: str) -> Agent:
    saved = md.load_model(folder, name=_AGENT)
    settings = SolipsisticSettings.model_validate(saved.description)
    config = algorithm_config(settings, seed=0)
    module = untrained_module(config)
    try:
        module.load_state_dict(saved.weights[_AGENT])
    except RuntimeError as error:
        raise md.InputError(
            f"{field}: {str(folder)!r} holds weights of another network ({error})"
        ) from error
    return Agent(config, module.eval())


def _read_rllib(folder: Path) -> Agent:
    """Read an agent from a checkpoint of RLlib, whose pickles are loaded."""
    constructor = pickle.loads((folder / _CONSTRUCTOR).read_bytes())
    if not issubclass(constructor["class"], EpisodicAlgorithm):
        raise ValueError(f"of a {constructor['class'].__name__}")
    (state,), _ = constructor["ctor_args_and_kwargs"]
    config = AlgorithmConfig.from_state(state).copy(copy_frozen=False)
    assert isinstance(config, EpisodicConfig)
    module: Any = RLModule.from_checkpoint(folder / _MODULE)
    runner = folder / _ENV_RUNNER
    return Agent(config, module.eval(), runner if runner.is_dir() else None)
