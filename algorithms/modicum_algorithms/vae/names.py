"""The names that settings choose from; imports nothing heavy."""

from __future__ import annotations

from typing import Any, Literal, get_args

import modicum as md

Binarisation = Literal["none", "threshold", "sampling"]
NetworkName = Literal["mlp", "resnet"]
LikelihoodName = Literal["bernoulli", "discretised_logistic", "autoregressive_logistic"]
MethodName = Literal["wake", "sleep", "reverse_sleep", "reverse_half_sleep", "denoising"]
SampleSource = Literal["prior", "aggregate_posterior"]
Schedule = Literal["constant", "linear"]
Precision = Literal["float32", "bfloat16"]


def require_choice(field: str, value: object, choices: Any) -> None:
    """Refuse a name that is none of a `Literal`'s.

    Raises:
        InputError: Naming the field and what is allowed.
    """
    if value not in get_args(choices):
        allowed = ", ".join(get_args(choices))
        raise md.InputError(f"{field}: must be one of {allowed}, got {value!r}")
