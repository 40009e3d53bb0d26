"""Preference judgements: rate-limited actors in front of an endpoint, and local oracles."""

from __future__ import annotations

from modicum.oracles.protocol import Failure, Judgement, Oracle, Pair

__all__ = ["Failure", "Judgement", "Oracle", "Pair"]
