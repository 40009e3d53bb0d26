"""Settings of the experiment `solipsistic`.

The `*Options` are the settings that the experiment shares with RLlib's configurations, which add
their own in `rllib_settings`. The descriptions name the thesis's value where a default departs
from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import model_validator

import modicum as md

MNIST_GAME = "modicum/MnistGame-v0"
PIXEL_CART_POLE = "modicum/PixelCartPole-v0"

MethodName = Literal["solipsistic", "ppo", "dqn"]
DynamicsName = Literal["memory", "markov"]
RecognitionName = Literal["auto", "convolutional", "digits", "mlp"]
TransitionName = Literal["gru", "residual"]
StateBound = Literal["none", "tanh"]
ContrastName = Literal["same_time", "any_time", "information_bottleneck", "none"]
RewardName = Literal["bernoulli", "gaussian"]
ImaginedReturn = Literal["sum", "survival"]
StartFrames = Literal["first", "any"]
Shown = Literal["picture", "observation"]

_OWN_ENVIRONMENTS = (MNIST_GAME, PIXEL_CART_POLE)

_SOLIPSISTIC = {"method": ("solipsistic",)}
_MEMORY = _SOLIPSISTIC | {"dynamics": ("memory",)}
_MARKOV = _SOLIPSISTIC | {"dynamics": ("markov",)}
_PPO = {"method": ("ppo",)}
_DQN = {"method": ("dqn",)}

EPISODES_PER_ITERATION: Mapping[MethodName, int] = {"solipsistic": 5, "ppo": 5, "dqn": 1}


class TrialSettings(md.Config):
    """The environment, the method, and the budget of a trial."""

    environment: str = md.setting(
        PIXEL_CART_POLE,
        description="Id of a gymnasium environment: modicum/MnistGame-v0, "
        "modicum/PixelCartPole-v0, or any other. An environment that a module registers has the "
        "module before a colon.",
    )
    environment_options: dict[str, Any] = md.setting(
        {}, description="Keyword arguments of the environment."
    )
    random_start: bool = md.setting(
        False,
        description="Start the game at a random digit, or the pole near the upright position, "
        "instead of at a fixed state (thesis: fixed).",
        used_by={"environment": _OWN_ENVIRONMENTS},
    )
    frames_after_fall: int = md.setting(
        10,
        description="Frames after the pole's fall that the model is shown, with reward 0. "
        "Episodes of PPO and DQN end with the fall.",
        unit="steps",
        ge=0,
        used_by=_SOLIPSISTIC | {"environment": (PIXEL_CART_POLE,)},
    )
    method: MethodName = md.setting(
        "solipsistic", description="Solipsistic reinforcement learning, or RLlib's PPO or DQN."
    )
    episodes: int = md.setting(
        300, description="Training episodes to collect.", unit="episodes", ge=1
    )
    evaluate_every: int = md.setting(
        5,
        description="Training episodes between two evaluations; each evaluation is a record.",
        unit="episodes",
        ge=1,
    )
    evaluation_episodes: int = md.setting(
        1,
        description="Greedy episodes of an evaluation. They are all equal where neither the start "
        "nor the environment is random.",
        unit="episodes",
        ge=1,
    )
    checkpoint_every: int | None = md.setting(
        None,
        description="Training episodes between two checkpoints, from which a trial resumes and "
        "a policy can be watched; null for a single checkpoint at the end.",
        unit="episodes",
        identity=False,
        ge=1,
    )
    environment_runners: int = md.setting(
        0,
        description="Processes that collect episodes, one core each; 0 collects in the trial's own "
        "process. The episodes do not depend on it.",
        identity=False,
        ge=0,
    )
    gpus: float = md.setting(
        0.0,
        description="GPUs of the learner, may be a fraction; 0 computes on the CPU.",
        identity=False,
        ge=0.0,
    )


class EpisodicOptions(md.Config):
    """Settings of all three methods."""

    recognition: RecognitionName = md.setting(
        "auto",
        description="Network that sees the observations, the same for all methods: convolutional "
        "(appendix C.2.2) or digits (C.2.1) for images, mlp for vectors; auto takes convolutional "
        "for images and mlp for vectors.",
    )
    learning_rate: float | None = md.setting(
        None,
        description="Learning rate of the model or the networks; null for the method's default: "
        "solipsistic 3e-3 (thesis: 1e-4), PPO 3e-4, DQN 1e-2.",
        gt=0.0,
    )


class SolipsisticOptions(EpisodicOptions):
    """Settings of solipsistic reinforcement learning (algorithm 1)."""

    dynamics: DynamicsName = md.setting(
        "memory",
        description="memory: continuous states, a recurrent transition, and a policy found by "
        "variational optimisation; markov: discrete states and exact dynamic programming.",
        used_by=_SOLIPSISTIC,
    )
    state_size: int = md.setting(
        16,
        description="Dimension of a continuous state, or number of discrete states.",
        ge=1,
        le=10_000,
        used_by=_SOLIPSISTIC,
    )
    transition: TransitionName = md.setting(
        "residual",
        description="Recurrent cell of the memory model (thesis: gru).",
        used_by=_MEMORY,
    )
    state_bound: StateBound = md.setting(
        "none",
        description="Activation on recognised states: none, or tanh, which keeps them in (-1, 1) "
        "like a GRU's states.",
        used_by=_MEMORY,
    )
    reward_distribution: RewardName = md.setting(
        "bernoulli",
        description="Reward distribution p(r|s): bernoulli for rewards in [0, 1], or gaussian.",
        used_by=_SOLIPSISTIC,
    )
    contrast: ContrastName = md.setting(
        "same_time",
        description="Regulariser that keeps states apart: a hinge against another trajectory's "
        "state at the same time (same_time, equation C.4) or against all other states in the batch "
        "(any_time, equation C.3), information_bottleneck (equation 5.12), or none.",
        used_by=_SOLIPSISTIC,
    )
    contrast_weight: float = md.setting(
        1.0,
        description="Weight of the contrast, lambda_s in equation 5.4.",
        ge=0.0,
        used_by=_SOLIPSISTIC,
    )
    margin: float = md.setting(
        5.0,
        description="Margin m in equation 5.4: divergences above it cost nothing.",
        gt=0.0,
        used_by=_SOLIPSISTIC | {"contrast": ("same_time", "any_time")},
    )
    reward_weight: float = md.setting(
        2.0,
        description="Weight of the reward loss, lambda_r in equation 5.4.",
        ge=0.0,
        used_by=_SOLIPSISTIC,
    )
    reward_of_predictions: bool = md.setting(
        True,
        description="Predict rewards from predicted states as well as from recognised ones.",
        used_by=_SOLIPSISTIC,
    )
    model_updates: int = md.setting(
        50,
        description="Gradient steps of the model in an iteration, N_model.",
        ge=1,
        used_by=_SOLIPSISTIC,
    )
    averaging: float = md.setting(
        0.95,
        description="Decay, per gradient step, of the moving average of the model's weights. "
        "Acting and the policy search use the average; 0 uses the weights themselves (thesis).",
        ge=0.0,
        lt=1.0,
        used_by=_SOLIPSISTIC,
    )
    trajectories: int = md.setting(
        30, description="Trajectories in a batch, B (thesis: 10).", ge=1, used_by=_SOLIPSISTIC
    )
    trajectory_length: int = md.setting(
        15,
        description="Observations in a trajectory, T_model (thesis: 50).",
        unit="steps",
        ge=2,
        used_by=_SOLIPSISTIC,
    )
    prediction_steps: int | None = md.setting(
        8,
        description="Steps ahead that the memory model is trained to predict from every "
        "observation; null predicts from the first observation of a trajectory to its end "
        "(thesis).",
        unit="steps",
        ge=1,
        used_by=_MEMORY,
    )
    absorbing_steps: int = md.setting(
        0,
        description="Copies of a terminated episode's last observation, with reward 0, that the "
        "model is shown. For environments that end with the failure and show nothing after it.",
        unit="steps",
        ge=0,
        used_by=_SOLIPSISTIC,
    )
    imagined_steps: int = md.setting(
        60,
        description="Steps of an imagined roll-out, T_policy (thesis: 200).",
        unit="steps",
        ge=1,
        used_by=_MEMORY,
    )
    imagined_return: ImaginedReturn = md.setting(
        "survival",
        description="Return of an imagined roll-out: sum of the expected rewards (thesis), or "
        "survival, which takes a reward for the probability of staying alive and sums the "
        "probabilities of being alive at each step.",
        used_by=_MEMORY,
    )
    start_frames: StartFrames = md.setting(
        "any",
        description="Observations at which imagined roll-outs start: the first ones of episodes, "
        "or any.",
        used_by=_MEMORY,
    )
    starts: int = md.setting(
        16,
        description="Starts of roll-outs in an iteration of the policy search, shared by all "
        "perturbations (thesis: one per perturbation).",
        ge=1,
        used_by=_MEMORY,
    )
    policy_iterations: int = md.setting(
        100,
        description="Iterations of the policy search, N_policy (thesis: 50).",
        ge=1,
        used_by=_MEMORY,
    )
    perturbations: int = md.setting(
        50,
        description="Perturbed policies in an iteration of the policy search, J.",
        ge=2,
        used_by=_MEMORY,
    )
    perturbation_scale: float = md.setting(
        0.2,
        description="Standard deviation of the policy perturbations, sigma.",
        gt=0.0,
        used_by=_MEMORY,
    )
    policy_learning_rate: float = md.setting(
        0.05,
        description="Learning rate of Adam in the policy search (thesis: 1e-2).",
        gt=0.0,
        used_by=_MEMORY,
    )
    reinitialise_policy: bool = md.setting(
        True,
        description="Start every policy search from a random policy instead of the last one.",
        used_by=_MEMORY,
    )
    horizon: int = md.setting(
        10,
        description="Observations that dynamic programming plans for, T.",
        unit="steps",
        ge=1,
        used_by=_MARKOV,
    )
    replanning: bool = md.setting(
        True,
        description="Act on the state recognised at every step; false acts on the model's "
        "predictions from the first observation.",
        used_by=_MEMORY,
    )
    exploration_rate: float = md.setting(
        0.5,
        description="Probability of a random action (epsilon) in every episode of an iteration "
        "but the first.",
        ge=0.0,
        le=1.0,
        used_by=_SOLIPSISTIC,
    )
    first_exploration_rate: float = md.setting(
        0.0,
        description="Probability of a random action in the first episode of an iteration, which "
        "the thesis collects with the policy alone.",
        ge=0.0,
        le=1.0,
        used_by=_SOLIPSISTIC,
    )
    action_noise: float = md.setting(
        0.1,
        description="Standard deviation of the noise on continuous actions, which lie in [-1, 1].",
        ge=0.0,
        used_by=_MEMORY,
    )


class PPOOptions(EpisodicOptions):
    """Settings of PPO."""

    clip: float = md.setting(
        0.2, description="PPO's clip ratio (thesis: 0.1 and 0.2).", gt=0.0, used_by=_PPO
    )


class DQNOptions(EpisodicOptions):
    """Settings of DQN."""

    updates_per_step: float = md.setting(
        1.0,
        description="DQN's gradient steps per environment step.",
        gt=0.0,
        used_by=_DQN,
    )


class SolipsisticSettings(DQNOptions, PPOOptions, SolipsisticOptions, TrialSettings):
    """Settings of the experiment: an environment, a method, and the method's settings."""

    @model_validator(mode="after")
    def _episodes_fit(self) -> Self:
        each = self.episodes_per_iteration
        for name in ("evaluate_every", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and value % each:
                raise ValueError(f"{name}: must be a multiple of {each}, got {value}")
        if self.episodes % self.evaluate_every:
            raise ValueError(
                f"episodes: must be a multiple of evaluate_every, {self.evaluate_every}, got "
                f"{self.episodes}"
            )
        if self.checkpoint_every is not None and self.checkpoint_every % self.evaluate_every:
            raise ValueError(
                "checkpoint_every: must be a multiple of evaluate_every, "
                f"{self.evaluate_every}, got {self.checkpoint_every}"
            )
        if self.random_start and self.environment not in _OWN_ENVIRONMENTS:
            raise ValueError(
                f"random_start: only {' and '.join(_OWN_ENVIRONMENTS)} have it; use "
                "environment_options"
            )
        return self

    @property
    def episodes_per_iteration(self) -> int:
        """Episodes that the method collects between two of its updates."""
        return EPISODES_PER_ITERATION[self.method]

    @property
    def environment_arguments(self) -> dict[str, Any]:
        """Keyword arguments of the environment."""
        arguments = dict(self.environment_options)
        if self.random_start:
            arguments["start"] = "random"
        if self.method == "solipsistic" and self.environment == PIXEL_CART_POLE:
            arguments["frames_after_fall"] = self.frames_after_fall
        return arguments
