"""Preference judgements: rate-limited actors in front of an endpoint, and local oracles.

Heavy parts are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from modicum.lazy import lazy_exports
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

__getattr__ = lazy_exports(
    __name__,
    {
        "Budget": "budget",
        "ClassifierOracle": "local.hugging_face",
        "Endpoint": "endpoint",
        "EndpointOracle": "client",
        "Estimate": "planning",
        "Human": "labelling",
        "HuggingFaceFluency": "local.fluency",
        "Limits": "endpoint",
        "NGramFluency": "local.fluency",
        "NoisyOracle": "local.noisy",
        "Price": "budget",
        "SentimentOracle": "local.sentiment",
        "Template": "templates",
        "VaderOracle": "local.lexicon",
        "estimate": "planning",
        "read_judged_pairs": "pairs_file",
        "read_pairs": "pairs_file",
    },
)
