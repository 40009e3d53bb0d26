"""Settings of the experiment `solipsistic`; what is not the thesis's says so."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import model_validator

import modicum as md
from modicum_algorithms.solipsistic.names import (
    MNIST_GAME,
    PIXEL_CART_POLE,
    ContrastName,
    DynamicsName,
    ImaginedReturn,
    RecognitionName,
    RewardName,
    StartFrames,
    StateBound,
    TransitionName,
)

_OWN_ENVIRONMENTS = (MNIST_GAME, PIXEL_CART_POLE)

_SOLIPSISTIC = {"method": ("solipsistic",)}
_MEMORY = _SOLIPSISTIC | {"dynamics": ("memory",)}
_MARKOV = _SOLIPSISTIC | {"dynamics": ("markov",)}
_PPO = {"method": ("ppo",)}
_DQN = {"method": ("dqn",)}


class SolipsisticSettings(md.Config):
    """An environment, a method, and the method's settings."""

    environment: str = md.setting(
        PIXEL_CART_POLE,
        description="Id of a gymnasium environment: modicum/MnistGame-v0, "
        "modicum/PixelCartPole-v0, or any other, with its module before a colon where it must be "
        "imported first.",
    )
    environment_options: dict[str, Any] = md.setting(
        {}, description="Keyword arguments of the environment."
    )
    random_start: bool = md.setting(
        False,
        description="Whether the game starts at any digit, or the pole near the upright position, "
        "instead of at a fixed state (thesis: fixed).",
        used_by={"environment": _OWN_ENVIRONMENTS},
    )
    frames_after_fall: int = md.setting(
        10,
        description="Frames that the model is shown of the time after the pole fell, with reward "
        "0; PPO's and DQN's episodes end with the fall.",
        unit="steps",
        ge=0,
        used_by=_SOLIPSISTIC | {"environment": (PIXEL_CART_POLE,)},
    )
    method: Literal["solipsistic", "ppo", "dqn"] = md.setting(
        "solipsistic", description="Solipsistic reinforcement learning, or RLlib's PPO or DQN."
    )
    episodes: int = md.setting(
        300, description="Training episodes to collect.", unit="episodes", ge=1
    )
    evaluate_every: int = md.setting(
        5,
        description="Training episodes between two evaluations, each of them a record.",
        unit="episodes",
        ge=1,
    )
    evaluation_episodes: int = md.setting(
        1,
        description="Greedy episodes of an evaluation; from a fixed start without chance all are "
        "the same.",
        unit="episodes",
        ge=1,
    )
    checkpoint_every: int | None = md.setting(
        None,
        description="Training episodes between two checkpoints, from which a trial goes on and a "
        "policy can be watched; null for one at the end.",
        unit="episodes",
        identity=False,
        ge=1,
    )
    environment_runners: int = md.setting(
        0,
        description="Processes that collect episodes, a core each; 0 collects in the trial's own. "
        "The episodes are the same.",
        identity=False,
        ge=0,
    )
    gpus: float = md.setting(
        0.0,
        description="GPUs of the learner, may be a fraction; 0 computes on the CPU.",
        identity=False,
        ge=0.0,
    )
    recognition: RecognitionName = md.setting(
        "auto",
        description="Network of images or vectors, the same for all methods: convolutional "
        "(appendix C.2.2), digits (C.2.1), or mlp for vectors.",
    )
    learning_rate: float | None = md.setting(
        None,
        description="Of the model or the networks; null for the method's: 3e-3 (thesis: 1e-4), "
        "PPO's 3e-4, DQN's 1e-2.",
        gt=0.0,
    )

    dynamics: DynamicsName = md.setting(
        "memory",
        description="Continuous states with a policy from variational optimisation, or discrete "
        "states with dynamic programming.",
        used_by=_SOLIPSISTIC,
    )
    state_size: int = md.setting(
        16,
        description="Numbers of a state, or number of discrete states.",
        ge=1,
        le=10_000,
        used_by=_SOLIPSISTIC,
    )
    transition: TransitionName = md.setting(
        "residual", description="Recurrent cell (thesis: gru).", used_by=_MEMORY
    )
    state_bound: StateBound = md.setting(
        "none", description="Whether recognised states go through tanh.", used_by=_MEMORY
    )
    reward_distribution: RewardName = md.setting(
        "bernoulli", description="p(r|s).", used_by=_SOLIPSISTIC
    )
    contrast: ContrastName = md.setting(
        "same_time",
        description="What keeps states apart: another trajectory's state at the same time "
        "(equation C.4), all others in the batch (C.3), equation 5.12's regulariser, or nothing.",
        used_by=_SOLIPSISTIC,
    )
    contrast_weight: float = md.setting(
        1.0, description="Lambda_s of equation 5.4.", ge=0.0, used_by=_SOLIPSISTIC
    )
    margin: float = md.setting(
        5.0,
        description="m of equation 5.4.",
        gt=0.0,
        used_by=_SOLIPSISTIC | {"contrast": ("same_time", "any_time")},
    )
    reward_weight: float = md.setting(
        2.0, description="Lambda_r of equation 5.4.", ge=0.0, used_by=_SOLIPSISTIC
    )
    reward_of_predictions: bool = md.setting(
        True,
        description="Whether rewards are predicted from predicted states, too.",
        used_by=_SOLIPSISTIC,
    )
    model_updates: int = md.setting(
        50,
        description="Gradient steps of the model an iteration, N_model.",
        ge=1,
        used_by=_SOLIPSISTIC,
    )
    averaging: float = md.setting(
        0.95,
        description="Decay, for each gradient step, of the moving average of the model's weights "
        "that acting and the policy's search use (thesis: 0, the weights themselves).",
        ge=0.0,
        lt=1.0,
        used_by=_SOLIPSISTIC,
    )
    trajectories: int = md.setting(
        30, description="Trajectories in a batch, B (thesis: 10).", ge=1, used_by=_SOLIPSISTIC
    )
    trajectory_length: int = md.setting(
        15,
        description="Observations in each, T_model (thesis: 50).",
        unit="steps",
        ge=2,
        used_by=_SOLIPSISTIC,
    )
    prediction_steps: int | None = md.setting(
        8,
        description="How far ahead predictions are trained from every observation; null for "
        "predictions from a trajectory's first observation to its end (thesis).",
        unit="steps",
        ge=1,
        used_by=_MEMORY,
    )
    absorbing_steps: int = md.setting(
        0,
        description="Copies of a terminated episode's last observation, with reward 0, that the "
        "model is shown, for environments without frames after the end.",
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
        description="Sum of expected rewards (thesis), or of the probabilities of having had none "
        "of 0 until then.",
        used_by=_MEMORY,
    )
    start_frames: StartFrames = md.setting(
        "any",
        description="Where imagined roll-outs start: at episodes' first observations, or any.",
        used_by=_MEMORY,
    )
    starts: int = md.setting(
        16,
        description="Starts in an iteration of the search, shared by all perturbations (thesis: "
        "one for each perturbation).",
        ge=1,
        used_by=_MEMORY,
    )
    policy_iterations: int = md.setting(
        100, description="Iterations of the search, N_policy (thesis: 50).", ge=1, used_by=_MEMORY
    )
    perturbations: int = md.setting(
        50, description="Perturbed policies in each, J.", ge=2, used_by=_MEMORY
    )
    perturbation_scale: float = md.setting(
        0.2, description="Their standard deviation, sigma.", gt=0.0, used_by=_MEMORY
    )
    policy_learning_rate: float = md.setting(
        0.05, description="Adam's in the search (thesis: 1e-2).", gt=0.0, used_by=_MEMORY
    )
    reinitialise_policy: bool = md.setting(
        True,
        description="Whether the search starts from a random policy every time.",
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
        description="Whether the policy acts on what is recognised at every step, or on "
        "predictions from the first observation.",
        used_by=_MEMORY,
    )
    exploration_rate: float = md.setting(
        0.5,
        description="Probability of a random action (epsilon) in four of an iteration's five "
        "episodes.",
        ge=0.0,
        le=1.0,
        used_by=_SOLIPSISTIC,
    )
    first_exploration_rate: float = md.setting(
        0.0,
        description="The same in the first of them, which the thesis collects with the policy "
        "alone.",
        ge=0.0,
        le=1.0,
        used_by=_SOLIPSISTIC,
    )
    action_noise: float = md.setting(
        0.1,
        description="Standard deviation of noise on continuous actions, in [-1, 1].",
        ge=0.0,
        used_by=_MEMORY,
    )

    clip: float = md.setting(
        0.2, description="PPO's clip ratio (thesis: 0.1 and 0.2).", gt=0.0, used_by=_PPO
    )
    updates_per_step: float = md.setting(
        1.0,
        description="DQN's gradient steps for each step in the environment.",
        gt=0.0,
        used_by=_DQN,
    )

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
        return 1 if self.method == "dqn" else 5

    @property
    def environment_arguments(self) -> dict[str, Any]:
        """Keyword arguments of the environment."""
        arguments = dict(self.environment_options)
        if self.random_start:
            arguments["start"] = "random"
        if self.method == "solipsistic" and self.environment == PIXEL_CART_POLE:
            arguments["frames_after_fall"] = self.frames_after_fall
        return arguments

    @property
    def resources(self) -> md.Resources:
        """What a trial needs."""
        runners = (md.Bundle(),) * self.environment_runners
        return md.Resources(trial=md.Bundle(gpus=self.gpus), actors=runners)
