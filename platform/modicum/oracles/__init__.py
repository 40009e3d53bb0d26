"""Preference judgements: rate-limited actors in front of an endpoint, and local oracles.

Heavy parts are imported when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from modicum.oracles.protocol import Failure, Judgement, Oracle, Pair, Winner, digest

if TYPE_CHECKING:
    from modicum.oracles.budget import Budget, Price
    from modicum.oracles.client import EndpointOracle
    from modicum.oracles.endpoint import Endpoint, Limits
    from modicum.oracles.labelling import Human
    from modicum.oracles.local.fluency import HuggingFaceFluency, NGramFluency
    from modicum.oracles.local.hugging_face import ClassifierOracle
    from modicum.oracles.local.lexicon import VaderOracle
    from modicum.oracles.local.noisy import NoisyOracle
    from modicum.oracles.local.sentiment import SentimentOracle
    from modicum.oracles.pairs_file import read_judged_pairs, read_pairs
    from modicum.oracles.planning import Estimate, estimate
    from modicum.oracles.templates import Template

__all__ = [
    "Budget",
    "ClassifierOracle",
    "Endpoint",
    "EndpointOracle",
    "Estimate",
    "Failure",
    "HuggingFaceFluency",
    "Human",
    "Judgement",
    "Limits",
    "NGramFluency",
    "NoisyOracle",
    "Oracle",
    "Pair",
    "Price",
    "SentimentOracle",
    "Template",
    "VaderOracle",
    "Winner",
    "digest",
    "estimate",
    "read_judged_pairs",
    "read_pairs",
]

_LATER = {
    "Budget": "modicum.oracles.budget",
    "ClassifierOracle": "modicum.oracles.local.hugging_face",
    "Endpoint": "modicum.oracles.endpoint",
    "EndpointOracle": "modicum.oracles.client",
    "Estimate": "modicum.oracles.planning",
    "Human": "modicum.oracles.labelling",
    "HuggingFaceFluency": "modicum.oracles.local.fluency",
    "Limits": "modicum.oracles.endpoint",
    "NGramFluency": "modicum.oracles.local.fluency",
    "NoisyOracle": "modicum.oracles.local.noisy",
    "Price": "modicum.oracles.budget",
    "SentimentOracle": "modicum.oracles.local.sentiment",
    "Template": "modicum.oracles.templates",
    "VaderOracle": "modicum.oracles.local.lexicon",
    "estimate": "modicum.oracles.planning",
    "read_judged_pairs": "modicum.oracles.pairs_file",
    "read_pairs": "modicum.oracles.pairs_file",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'modicum.oracles' has no attribute {name!r}")
