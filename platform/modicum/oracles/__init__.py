"""Oracles that judge preferences: language models behind endpoints, local models, and humans.

Heavy parts are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from modicum.lazy import lazy_exports
from modicum.oracles.protocol import Failure, Judgement, Oracle, Pair, Winner, digest

if TYPE_CHECKING:
    from modicum.oracles.endpoint.budget import Budget, Price
    from modicum.oracles.endpoint.oracle import EndpointOracle, Estimate, estimate
    from modicum.oracles.endpoint.settings import Endpoint, Limits
    from modicum.oracles.endpoint.templates import Template
    from modicum.oracles.labelling.human import Human
    from modicum.oracles.local.classifier import ClassifierOracle
    from modicum.oracles.local.fluency import HuggingFaceFluency, NGramFluency
    from modicum.oracles.local.noisy import NoisyOracle
    from modicum.oracles.local.sentiment import SentimentOracle, VaderOracle
    from modicum.oracles.pair_files import read_judged_pairs, read_pairs

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
        "Budget": "endpoint.budget",
        "ClassifierOracle": "local.classifier",
        "Endpoint": "endpoint.settings",
        "EndpointOracle": "endpoint.oracle",
        "Estimate": "endpoint.oracle",
        "Human": "labelling.human",
        "HuggingFaceFluency": "local.fluency",
        "Limits": "endpoint.settings",
        "NGramFluency": "local.fluency",
        "NoisyOracle": "local.noisy",
        "Price": "endpoint.budget",
        "SentimentOracle": "local.sentiment",
        "Template": "endpoint.templates",
        "VaderOracle": "local.sentiment",
        "estimate": "endpoint.oracle",
        "read_judged_pairs": "pair_files",
        "read_pairs": "pair_files",
    },
)
