"""Settings of an RLlib algorithm that collects whole episodes."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

from pydantic import ValidationError
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec

import modicum as md
from modicum_algorithms.solipsistic.config import EPISODES_PER_ITERATION, MethodName
from modicum_algorithms.solipsistic.episodic.collection import evaluate_greedily
from modicum_algorithms.solipsistic.episodic.runner import EpisodeEnvRunner
from modicum_algorithms.solipsistic.rllib_settings import (
    RLLIB_SETTINGS,
    EpisodicAlgorithmOptions,
    rllib_name,
    training_arguments,
)

Options = TypeVar("Options", bound=EpisodicAlgorithmOptions)


class EpisodicConfig(AlgorithmConfig, Generic[Options]):
    """RLlib configuration of a method that collects whole episodes.

    The configuration has the attributes of an options model beside those of RLlib, and starts from
    the defaults of both. Episodes are collected in this process unless `num_env_runners` says
    otherwise, and are the same wherever they are collected. `evaluate()` runs
    `evaluation_duration` greedy episodes.

    Attributes:
        method_name: Name of the method, the key of its defaults.
        options_class: Model of the method's own settings.
        rl_module_class: Module that acts and that is trained.
        default_learner_class: Learner of the module.
    """

    method_name: ClassVar[MethodName]
    options_class: ClassVar[type[EpisodicAlgorithmOptions]]
    rl_module_class: ClassVar[type[RLModule]]
    default_learner_class: ClassVar[type[Learner]]

    # RLlib types these as the defaults that it gives them.
    env_runner_cls: Any
    custom_evaluation_function: Any

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class)
        self.env_runner_cls = EpisodeEnvRunner
        self.num_env_runners = 0
        self.batch_mode = "complete_episodes"
        self.custom_evaluation_function = evaluate_greedily
        # One iteration is one training step, however few steps its episodes had.
        self.min_sample_timesteps_per_iteration = 0
        self.min_time_s_per_iteration = None
        options = self.options_class(
            episodes_per_iteration=EPISODES_PER_ITERATION[self.method_name]
        )
        for name, value in training_arguments(options, self.options_class).items():
            setattr(self, name, value)
        for name, value in RLLIB_SETTINGS[self.method_name].items():
            setattr(self, name, copy.deepcopy(value))

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """RLlib's description of the module."""
        return RLModuleSpec(module_class=self.rl_module_class)

    def get_default_learner_class(self) -> type[Learner]:
        """Learner that RLlib takes where a script sets no other."""
        return self.default_learner_class

    def training(self, **settings: Any) -> Self:
        """Set what concerns training; settings that are left out keep their values.

        Args:
            **settings: Fields of `options_class`, and settings that RLlib's `training` takes.

        Raises:
            InputError: A setting is unknown.
        """
        own = {name: rllib_name(name) for name in self.options_class.model_fields}
        names = set(own.values()) | _training_names(type(self))
        for name in settings:
            if name not in names:
                raise md.unknown_name("setting", name, names)
        mine = {name: value for name, value in settings.items() if name in own.values()}
        super().training(**{name: settings[name] for name in settings.keys() - mine.keys()})
        for name, value in mine.items():
            setattr(self, name, value)
        return self

    @property
    def options(self) -> Options:
        """The method's settings, without the learning rate: RLlib's `lr` may be a schedule.

        Raises:
            InputError: A setting is not allowed.
        """
        fields = self.options_class.model_fields.keys() - {"learning_rate"}
        values = {name: getattr(self, rllib_name(name)) for name in fields}
        try:
            return cast(Options, self.options_class(**values))
        except ValidationError as error:
            raise md.from_validation(error, self.options_class, given=values) from None

    def validate(self) -> None:
        """Raise an `InputError` for a setting that is not allowed."""
        super().validate()
        _ = self.options
        self.require({"num_envs_per_env_runner": 1, "evaluation_parallel_to_training": False})

    def require(self, values: Mapping[str, Any]) -> None:
        """Refuse settings of RLlib with other values than those that make sense here."""
        for name, value in values.items():
            if getattr(self, name) != value:
                raise md.InputError(f"{name}: must be {value}, got {getattr(self, name)}")

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        return super()._model_config_auto_includes | self.options.model_dump()


def _training_names(config: type[AlgorithmConfig]) -> set[str]:
    """Keyword arguments of `training`, those of all base classes included."""
    return {
        name
        for base in config.__mro__
        if "training" in vars(base)
        for name, parameter in inspect.signature(vars(base)["training"]).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
