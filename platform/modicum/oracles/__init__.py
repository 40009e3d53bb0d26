"""Preference judgements: rate-limited actors in front of an endpoint, and local oracles."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from modicum.oracles.protocol import Failure, Judgement, Oracle, Pair, digest

if TYPE_CHECKING:
    from modicum.oracles.local.fluency import HuggingFaceFluency, NGramFluency
    from modicum.oracles.local.hugging_face import ClassifierOracle
    from modicum.oracles.local.lexicon import VaderOracle
    from modicum.oracles.local.noisy import NoisyOracle
    from modicum.oracles.local.sentiment import SentimentOracle

__all__ = [
    "ClassifierOracle",
    "Failure",
    "HuggingFaceFluency",
    "Judgement",
    "NGramFluency",
    "NoisyOracle",
    "Oracle",
    "Pair",
    "SentimentOracle",
    "VaderOracle",
    "digest",
]

_LATER = {
    "ClassifierOracle": "modicum.oracles.local.hugging_face",
    "HuggingFaceFluency": "modicum.oracles.local.fluency",
    "NGramFluency": "modicum.oracles.local.fluency",
    "NoisyOracle": "modicum.oracles.local.noisy",
    "SentimentOracle": "modicum.oracles.local.sentiment",
    "VaderOracle": "modicum.oracles.local.lexicon",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'modicum.oracles' has no attribute {name!r}")
