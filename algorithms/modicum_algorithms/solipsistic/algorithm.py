"""Solipsistic reinforcement learning for RLlib: `SolipsisticConfig` and `Solipsistic`.

Algorithm 1 of the thesis, with its line numbers; chapter 5 and appendix C have the method.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import LEARNER_RESULTS, LEARNER_UPDATE_TIMER

import modicum as md
from modicum_algorithms.solipsistic.episodic import NOT_PROVIDED, EpisodicAlgorithm, EpisodicConfig
from modicum_algorithms.solipsistic.learner import SolipsisticLearner
from modicum_algorithms.solipsistic.names import (
    ContrastName,
    DynamicsName,
    ImaginedReturn,
    RewardName,
    StartFrames,
    StateBound,
    TransitionName,
)
from modicum_algorithms.solipsistic.replay import Trajectories, TrajectoryReplayBuffer
from modicum_algorithms.solipsistic.rl_module import PRESENT, REWARDED, SolipsisticRLModule

POLICY_SEARCH_TIMER = "policy_search"
_CHOICES = {
    "dynamics": DynamicsName,
    "state_bound": StateBound,
    "transition": TransitionName,
    "reward_distribution": RewardName,
    "contrast": ContrastName,
    "imagined_return": ImaginedReturn,
    "start_frames": StartFrames,
}
# Settings of the module, the rest being the learner's and the algorithm's.
_MODULE_SETTINGS = (
    "dynamics",
    "state_size",
    "recognition",
    "state_bound",
    "transition",
    "prediction_steps",
    "reward_distribution",
    "policy_units",
    "horizon",
    "replanning",
    "action_noise",
)
_AT_LEAST = {
    "state_size": 1,
    "policy_units": 1,
    "horizon": 1,
    "model_updates": 1,
    "trajectories": 1,
    "trajectory_length": 2,
    "imagined_steps": 1,
    "starts": 1,
    "policy_iterations": 1,
    "perturbations": 2,
    "replay_capacity": 1,
    "absorbing_steps": 0,
    "statistics_observations": 1,
}
_POSITIVE = ("margin", "perturbation_scale", "policy_lr")
_NOT_NEGATIVE = ("contrast_weight", "reward_weight", "action_noise")


class SolipsisticConfig(EpisodicConfig):
    """Settings of `Solipsistic`, in RLlib's fluent style.

    ```python
    config = (
        SolipsisticConfig()
        .environment("modicum/PixelCartPole-v0")
        .training(model_updates=100, lr=1e-3)
        .debugging(seed=0)
    )
    algorithm = config.build_algo()
    ```
    """

    def __init__(self, algo_class: Any = None) -> None:
        """Start from the settings of the pixel CartPole study."""
        super().__init__(algo_class=algo_class or Solipsistic)
        super().training(lr=3e-3, grad_clip=10.0, grad_clip_by="global_norm")
        # The model.
        self.dynamics: DynamicsName = "memory"
        self.state_size = 16
        self.state_bound: StateBound = "none"
        self.transition: TransitionName = "residual"
        self.reward_distribution: RewardName = "bernoulli"
        # Its objective.
        self.contrast: ContrastName = "same_time"
        self.contrast_weight = 1.0
        self.margin = 5.0
        self.reward_weight = 2.0
        self.reward_of_predictions = True
        # Its training.
        self.model_updates = 50
        self.averaging = 0.95
        self.trajectories = 30
        self.trajectory_length = 15
        self.prediction_steps: int | None = 8
        self.statistics_observations = 1_000
        self.replay_capacity = 100_000
        self.absorbing_steps = 0
        # The policy's training.
        self.policy_units = 50
        self.imagined_steps = 60
        self.imagined_return: ImaginedReturn = "survival"
        self.start_frames: StartFrames = "any"
        self.starts = 16
        self.policy_iterations = 100
        self.perturbations = 50
        self.perturbation_scale = 0.2
        self.policy_lr = 0.05
        self.antithetic = True
        self.reinitialise_policy = True
        # Acting.
        self.horizon = 10
        self.replanning = True
        self.exploration_rates: tuple[float, ...] = (0.0, 0.5, 0.5, 0.5, 0.5)
        self.action_noise = 0.1
        self.episodes_per_iteration = 5

    def training(
        self,
        *,
        dynamics: DynamicsName = NOT_PROVIDED,
        state_size: int = NOT_PROVIDED,
        state_bound: StateBound = NOT_PROVIDED,
        transition: TransitionName = NOT_PROVIDED,
        reward_distribution: RewardName = NOT_PROVIDED,
        contrast: ContrastName = NOT_PROVIDED,
        contrast_weight: float = NOT_PROVIDED,
        margin: float = NOT_PROVIDED,
        reward_weight: float = NOT_PROVIDED,
        reward_of_predictions: bool = NOT_PROVIDED,
        model_updates: int = NOT_PROVIDED,
        averaging: float = NOT_PROVIDED,
        trajectories: int = NOT_PROVIDED,
        trajectory_length: int = NOT_PROVIDED,
        prediction_steps: int | None = NOT_PROVIDED,
        statistics_observations: int = NOT_PROVIDED,
        replay_capacity: int = NOT_PROVIDED,
        absorbing_steps: int = NOT_PROVIDED,
        policy_units: int = NOT_PROVIDED,
        imagined_steps: int = NOT_PROVIDED,
        imagined_return: ImaginedReturn = NOT_PROVIDED,
        start_frames: StartFrames = NOT_PROVIDED,
        starts: int = NOT_PROVIDED,
        policy_iterations: int = NOT_PROVIDED,
        perturbations: int = NOT_PROVIDED,
        perturbation_scale: float = NOT_PROVIDED,
        policy_lr: float = NOT_PROVIDED,
        antithetic: bool = NOT_PROVIDED,
        reinitialise_policy: bool = NOT_PROVIDED,
        horizon: int = NOT_PROVIDED,
        replanning: bool = NOT_PROVIDED,
        exploration_rates: tuple[float, ...] = NOT_PROVIDED,
        action_noise: float = NOT_PROVIDED,
        **kwargs: Any,
    ) -> Self:
        """Set what concerns training; what is left out stays.

        Args:
            dynamics: `memory`, continuous states and a GRU with a policy from variational
                optimisation, or `markov`, discrete states and exact dynamic programming.
            state_size: Numbers of a solipsistic state, or number of discrete states.
            transition: The memory model's recurrent cell: `residual`, or the thesis's `gru`.
            state_bound: Whether recognised states are squashed by tanh.
            reward_distribution: p(r | s): `bernoulli` for rewards in [0, 1], or `gaussian`.
            contrast: What keeps states apart: a hinge against another trajectory's state at the
                same time (`same_time`, equation C.4) or against all other states in the batch
                (`any_time`, equation C.3), the regulariser of equation 5.12
                (`information_bottleneck`), or `none`.
            contrast_weight: λ_s.
            margin: m, the divergence beyond which the hinge costs nothing.
            reward_weight: λ_r.
            reward_of_predictions: Whether rewards are predicted from predicted states, too.
            model_updates: Gradient steps an iteration, N_model.
            averaging: Decay, for each gradient step, of the moving average of the model's weights
                that acting and the policy's search use; 0 for the weights themselves.
            trajectories: Trajectories in a batch, B.
            trajectory_length: Observations in each, T_model.
            prediction_steps: How many steps ahead the memory model is trained to predict, from
                every observation; None for predictions from a trajectory's first observation to
                its end, as the thesis has it.
            statistics_observations: Observations on which batch normalisation's statistics are
                measured after the updates.
            replay_capacity: Time steps that the replay buffer keeps.
            absorbing_steps: Copies of the last observation of terminated episodes, with reward 0,
                that the model is shown; 0 for environments that show what comes after the end
                themselves.
            policy_units: Units in each of the policy's two hidden layers.
            imagined_steps: Steps of imagined roll-outs, T_policy.
            imagined_return: `sum` of rewards, or `survival`; see `imagination`.
            start_frames: Where imagined roll-outs start: at the `first` observations of
                episodes, or at `any`.
            starts: Starts in each iteration of the search, shared by all perturbations.
            policy_iterations: Iterations of the search, N_policy.
            perturbations: Perturbed policies in each, J.
            perturbation_scale: Their standard deviation, σ.
            policy_lr: Adam's learning rate in the search.
            antithetic: Whether perturbations come in pairs of opposite sign.
            reinitialise_policy: Whether the search starts from a random policy every time.
            horizon: Observations that the Markov model plans for, T.
            replanning: Whether the policy acts on what is recognised at every step, or on the
                model's predictions from the first observation.
            exploration_rates: Probability of a random action in each episode of an iteration.
            action_noise: Standard deviation of the noise on continuous actions, which lie in
                [-1, 1].
            **kwargs: `EpisodicConfig.training`'s and RLlib's settings.
        """
        given = {
            name: value
            for name, value in locals().items()
            if name not in ("self", "kwargs", "__class__")
        }
        super().training(**kwargs)
        self.take(**given)
        if exploration_rates is not NOT_PROVIDED:
            self.episodes_per_iteration = len(exploration_rates)
        return self

    def validate(self) -> None:
        """Check the settings.

        Raises:
            InputError: A setting is not allowed.
        """
        super().validate()
        for name, choices in _CHOICES.items():
            md.require_choice(name, getattr(self, name), choices)
        for name, least in _AT_LEAST.items():
            if getattr(self, name) < least:
                raise md.InputError(f"{name}: must be at least {least}, got {getattr(self, name)}")
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise md.InputError(f"{name}: must be above 0, got {getattr(self, name)}")
        for name in _NOT_NEGATIVE:
            if not getattr(self, name) >= 0:
                raise md.InputError(f"{name}: must not be negative, got {getattr(self, name)}")
        if not 0 <= self.averaging < 1:
            raise md.InputError(f"averaging: must be at least 0 and below 1, got {self.averaging}")
        if self.prediction_steps is not None and self.prediction_steps < 1:
            raise md.InputError(
                f"prediction_steps: must be at least 1, or None, got {self.prediction_steps}"
            )
        if not all(0 <= rate <= 1 for rate in self.exploration_rates):
            raise md.InputError(
                f"exploration_rates: must lie in [0, 1], got {self.exploration_rates}"
            )
        if len(self.exploration_rates) != self.episodes_per_iteration:
            raise md.InputError(
                "episodes_per_iteration: must be the number of exploration_rates, "
                f"{len(self.exploration_rates)}, got {self.episodes_per_iteration}"
            )
        if self.imagined_return == "survival" and self.reward_distribution != "bernoulli":
            raise md.InputError(
                "imagined_return: survival needs reward_distribution bernoulli, whose rewards are "
                "probabilities"
            )
        if self.contrast == "same_time" and self.trajectories < 2:
            raise md.InputError("trajectories: must be at least 2 with contrast same_time")

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        return super()._model_config_auto_includes | {
            name: getattr(self, name) for name in _MODULE_SETTINGS
        }

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """The module that acts and that is trained."""
        return RLModuleSpec(module_class=SolipsisticRLModule)

    def get_default_learner_class(self) -> type[SolipsisticLearner]:
        """The learner."""
        return SolipsisticLearner


class Solipsistic(EpisodicAlgorithm):
    """Solipsistic reinforcement learning (algorithm 1).

    Attributes:
        replay_buffer: The memory M; part of the checkpoints.
    """

    config: SolipsisticConfig

    @classmethod
    def get_default_config(cls) -> SolipsisticConfig:
        """The settings to start from."""
        return SolipsisticConfig()

    def setup(self, config: Any) -> None:
        """Build the algorithm (lines 2 and 3)."""
        super().setup(config)
        self.replay_buffer = TrajectoryReplayBuffer(
            self.config.replay_capacity, self.config.absorbing_steps
        )

    def training_step(self) -> None:
        """One iteration i of algorithm 1 (lines 4 to 37)."""
        config = self.config
        episodes = self.collect(config.exploration_rates)  # lines 5 to 11 and 13
        self._check_rewards()
        self.replay_buffer.add(episodes)  # line 12
        self.replay_buffer.rng = np.random.default_rng(self.counter.iteration_seed("replay"))
        self._train_model()
        if config.dynamics == "memory":
            self._train_policy()
        self.send_weights()

    def _train_model(self) -> None:
        """Lines 14 to 17."""
        config = self.config
        seed = self.counter.iteration_seed("model")
        self.learner_group.foreach_learner(lambda learner: learner.seed(seed))
        with self.timed("model", LEARNER_UPDATE_TIMER):
            for _ in range(config.model_updates):
                trajectories = self.replay_buffer.sample_trajectories(  # line 15
                    config.trajectories, config.trajectory_length
                )
                results = self.learner_group.update(batch=_batch(trajectories))  # line 16
                self.metrics.aggregate(results, key=LEARNER_RESULTS)
            sample = self.replay_buffer.sample_observations(config.statistics_observations)
            self.learner_group.foreach_learner(lambda learner: learner.measure_statistics(sample))

    def _train_policy(self) -> None:
        """Lines 18 to 36; every learner makes the same search."""
        config = self.config
        count = config.policy_iterations * config.starts
        starts = self.replay_buffer.sample_observations(  # line 23
            count, first=config.start_frames == "first"
        )
        starts = starts.reshape(config.policy_iterations, config.starts, *starts.shape[1:])
        seed = self.counter.iteration_seed("policy")
        with self.timed("policy", POLICY_SEARCH_TIMER):
            answers = self.learner_group.foreach_learner(
                lambda learner: learner.search_policy(starts, seed)
            )
        found = next(iter(answers)).get()
        self.metrics.log_dict(found, key=("policy",), window=1)

    def _check_rewards(self) -> None:
        if self.config.reward_distribution != "bernoulli":
            return
        rewards = np.concatenate([episode.get_rewards() for episode in self.collected])
        lowest, highest = rewards.min(), rewards.max()
        if lowest < 0 or highest > 1:
            raise md.InputError(
                "reward_distribution: bernoulli needs rewards in [0, 1], and the environment gave "
                f"{lowest:g} to {highest:g}; use gaussian"
            )

    def own_components(self) -> dict[str, Any]:
        """The counter and the replay buffer."""
        return super().own_components() | {"replay_buffer": self.replay_buffer}


def _batch(trajectories: Trajectories) -> MultiAgentBatch:
    columns = {
        Columns.OBS: trajectories.observations,
        Columns.ACTIONS: trajectories.actions,
        Columns.REWARDS: trajectories.rewards,
        PRESENT: trajectories.present,
        REWARDED: trajectories.rewarded,
    }
    batch = SampleBatch(columns)
    return MultiAgentBatch({DEFAULT_MODULE_ID: batch}, env_steps=int(trajectories.present.sum()))
