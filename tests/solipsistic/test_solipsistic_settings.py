"""Settings of the experiment and of RLlib's configurations: one source, the same values."""

import ast
import pickle
from itertools import chain

import pytest
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from conftest import ROOT
from modicum_algorithms.solipsistic import EpisodicDQNConfig, EpisodicPPOConfig, SolipsisticConfig
from modicum_algorithms.solipsistic.building import algorithm_config
from modicum_algorithms.solipsistic.config import SolipsisticSettings
from modicum_algorithms.solipsistic.rllib_settings import (
    DQNAlgorithmOptions,
    PPOAlgorithmOptions,
    SolipsisticAlgorithmOptions,
    rllib_name,
)
from setting_defaults import defaults

FAMILY = ROOT / "algorithms" / "modicum_algorithms" / "solipsistic"
MODELS = (
    SolipsisticSettings,
    SolipsisticAlgorithmOptions,
    PPOAlgorithmOptions,
    DQNAlgorithmOptions,
)
CONFIGS = {"solipsistic": SolipsisticConfig, "ppo": EpisodicPPOConfig, "dqn": EpisodicDQNConfig}
# Places that share only the name with a setting: arguments of the environments (`horizon` is the
# length of an episode), the number of episodes in a film, and counts that start at 0.
OTHERS = {
    ("environments/mnist_game.py", "horizon"),
    ("environments/pixel_cart_pole.py", "horizon"),
    ("environments/pixel_cart_pole.py", "frames_after_fall"),
    ("checkpoints.py", "evaluation_episodes"),
    ("cli.py", "episodes"),
    ("episodic/counter.py", "episodes"),
    ("watching.py", "episodes"),
}


def attributes(tree):
    """Names of attributes, as of `self`, that are set to a constant."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.attr for target in targets if isinstance(target, ast.Attribute))


def named(tree):
    """Names that get a default, or that are set to a constant as an attribute."""
    return [*(name for name, _ in defaults(tree)), *attributes(tree)]


def test_every_setting_has_its_default_in_one_place():
    settings = set(chain(*(model.model_fields for model in MODELS)))
    names = settings | {rllib_name(setting) for setting in settings}
    places = [
        (path.relative_to(FAMILY).as_posix(), name)
        for path in FAMILY.rglob("*.py")
        for name in named(ast.parse(path.read_text()))
        if name in names
    ]
    settings_files = {"config.py", "rllib_settings.py"}
    assert {place for place in places if place[0] not in settings_files} == OTHERS
    declared = [name for file, name in places if file in settings_files]
    assert sorted(declared) == sorted(settings)


@pytest.mark.parametrize("method", CONFIGS)
def test_the_experiments_defaults_are_those_of_rllibs_configuration(method):
    """Those of environments, seeds and resources aside, which the experiment sets itself."""
    experiments = algorithm_config(SolipsisticSettings(method=method), seed=0)
    assert type(experiments) is CONFIGS[method]
    plain = CONFIGS[method]()
    assert experiments.options == plain.options
    different = {n for n, v in vars(plain).items() if vars(experiments)[n] != v}
    assert different <= {"env", "env_config", "evaluation_duration", "seed", "log_level"}


def test_settings_of_the_experiment_reach_rllibs_configuration():
    settings = {"state_size": 7, "policy_learning_rate": 0.02, "learning_rate": 1e-3}
    rates = {"exploration_rate": 0.3, "first_exploration_rate": 0.1}
    found = algorithm_config(SolipsisticSettings(**settings, **rates), seed=0)
    assert (found.state_size, found.policy_lr, found.lr) == (7, 0.02, 1e-3)
    assert found.options.rates == (0.1, 0.3, 0.3, 0.3, 0.3)
    ppo = algorithm_config(SolipsisticSettings(method="ppo", clip=0.1), seed=0)
    assert (ppo.clip_param, ppo.options.clip) == (0.1, 0.1)


def test_exploration_rates_set_the_number_of_episodes():
    config = SolipsisticConfig().training(exploration_rates=(0.2, 0.7))
    assert (config.episodes_per_iteration, config.options.rates) == (2, (0.2, 0.7))
    assert SolipsisticConfig().training(episodes_per_iteration=3).options.rates == (0, 0.5, 0.5)


@pytest.mark.parametrize("config", CONFIGS.values())
def test_configurations_are_copied_and_stored_with_their_settings(config):
    """As RLlib does for workers, evaluation and checkpoints."""
    changed = config().training(recognition="mlp", max_episode_steps=7, lr=0.5)
    copies = [
        changed.copy(),
        pickle.loads(pickle.dumps(changed)),
        AlgorithmConfig.from_state(changed.get_state()),
        config().update_from_dict(changed.to_dict()),
    ]
    for copy in copies:
        assert type(copy) is config
        assert copy.options == changed.options
        assert copy.lr == 0.5
    copies[0].training(max_episode_steps=8)
    assert changed.max_episode_steps == 7
    assert changed.serialize()["max_episode_steps"] == 7


def test_configurations_share_nothing_that_changes():
    first, second = EpisodicDQNConfig(), EpisodicDQNConfig()
    first.replay_buffer_config["capacity"] = 3
    assert second.replay_buffer_config["capacity"] == 10_000
