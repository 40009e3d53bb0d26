"""Records that are written to a ledger and read back from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from modicum.oracles.protocol import Letter
from modicum.oracles.questions import Question

State = Literal["reserved", "answered", "unreadable", "refused", "lost", "withdrawn"]


@dataclass(frozen=True)
class Amount:
    """An amount spent or reserved: requests, tokens and dollars."""

    calls: int = 0
    tokens: int = 0
    dollars: float = 0.0

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            self.calls + other.calls, self.tokens + other.tokens, self.dollars + other.dollars
        )

    def __sub__(self, other: Amount) -> Amount:
        return Amount(
            self.calls - other.calls, self.tokens - other.tokens, self.dollars - other.dollars
        )


@dataclass(frozen=True)
class Reservation:
    """A request that is about to be sent."""

    question: Question
    run: str  # Name of the run that pays.
    most: Amount  # Upper bound of its cost.


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """The outcome of a request, by the request's number."""

    request: int
    state: State
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float = 0.0
    latency: float = 0.0
    answer: str | None = None
    verdict: Letter | None = None
    rationale: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Remembered:
    """The ledger's knowledge of a question."""

    verdict: Letter | None = None  # The letter that was answered; None if there is no verdict yet.
    rationale: str | None = None
    unreadable: int = 0  # Number of answers without a verdict.
