"""Pairs of completions: as sampled from the policy, and as judged by the oracle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modicum_algorithms.preference.data.tokenized import Ids

Two = tuple[float, float]


@dataclass(frozen=True)
class SampledPair:
    """Two completions of a prompt, sampled from the policy of a round.

    Attributes:
        place: Index of the prompt among the training prompts.
        first: Tokens of a completion.
        second: Tokens of another completion of the same prompt.
        log_probabilities: log p_θ of both completions when they were sampled.
        reference: log p_θ0 of both, once computed.
        rewards: Implicit rewards of both (equation 6.5), once computed.
    """

    place: int
    first: Ids
    second: Ids
    log_probabilities: Two
    reference: Two | None = None
    rewards: Two | None = None

    def as_json(self) -> dict[str, Any]:
        """The pair as the journal keeps it: as sampled."""
        return {
            "place": self.place,
            "first": list(self.first),
            "second": list(self.second),
            "log_probabilities": list(self.log_probabilities),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> SampledPair:
        """The inverse of `as_json`."""
        first, second = row["log_probabilities"]
        return cls(row["place"], tuple(row["first"]), tuple(row["second"]), (first, second))


@dataclass(frozen=True)
class JudgedPair:
    """An element of the preference dataset X_P.

    Attributes:
        round: Round that acquired it, from 1.
        place: Index of the prompt among the training prompts.
        first: Tokens of a completion.
        second: Tokens of another completion of the same prompt.
        reference: log p_θ0 of both completions.
        rewards: Implicit rewards of both before training on the pair.
        winner: The preferred completion, `first` or `second`.
        rationale: Reason that the oracle gave.
        order: Order in which the oracle saw the pair, `given` or `swapped`.
    """

    round: int
    place: int
    first: Ids
    second: Ids
    reference: Two
    rewards: Two
    winner: str
    rationale: str | None
    order: str | None
