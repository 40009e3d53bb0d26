"""Preference judgements: rate-limited actors in front of an endpoint, and local oracles.

Heavy parts are imported when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from modicum.oracles.protocol import Failure, Judgement, Oracle, Pair

if TYPE_CHECKING:
    from modicum.oracles.budget import Budget, Price
    from modicum.oracles.client import EndpointOracle
    from modicum.oracles.endpoint import Endpoint, Limits
    from modicum.oracles.estimate import Estimate, estimate
    from modicum.oracles.labelling import Human
    from modicum.oracles.pairs_file import read_pairs
    from modicum.oracles.templates import Template

__all__ = [
    "Budget",
    "Endpoint",
    "EndpointOracle",
    "Estimate",
    "Failure",
    "Human",
    "Judgement",
    "Limits",
    "Oracle",
    "Pair",
    "Price",
    "Template",
    "estimate",
    "read_pairs",
]

_LATER = {
    "Budget": "modicum.oracles.budget",
    "Endpoint": "modicum.oracles.endpoint",
    "EndpointOracle": "modicum.oracles.client",
    "Estimate": "modicum.oracles.estimate",
    "Human": "modicum.oracles.labelling",
    "Limits": "modicum.oracles.endpoint",
    "Price": "modicum.oracles.budget",
    "Template": "modicum.oracles.templates",
    "estimate": "modicum.oracles.estimate",
    "read_pairs": "modicum.oracles.pairs_file",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'modicum.oracles' has no attribute {name!r}")
