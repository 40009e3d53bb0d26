"""The names that settings choose from; imports nothing heavy."""

from __future__ import annotations

from typing import Any, Literal, get_args

import modicum as md

DynamicsName = Literal["memory", "markov"]
RecognitionName = Literal["auto", "convolutional", "digits", "mlp"]
TransitionName = Literal["gru", "residual"]
StateBound = Literal["none", "tanh"]
ContrastName = Literal["same_time", "any_time", "information_bottleneck", "none"]
RewardName = Literal["bernoulli", "gaussian"]
ImaginedReturn = Literal["sum", "survival"]
StartFrames = Literal["first", "any"]


def require_choice(field: str, value: object, choices: Any) -> None:
    """Refuse a name that is none of a `Literal`'s.

    Raises:
        InputError: Naming the field and what is allowed.
    """
    if value not in get_args(choices):
        allowed = ", ".join(get_args(choices))
        raise md.InputError(f"{field}: must be one of {allowed}, got {value!r}")
